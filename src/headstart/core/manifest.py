"""Files that survive a crash: written beside their place, flushed, renamed; a SHA-256 manifest comes last.

A folder without a valid manifest does not exist for Headstart. Neither safetensors nor zip notices a flipped bit, so
the manifest is checked at every load.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.core.errors import ArtefactError
from headstart.core.storage import placed

MANIFEST = "manifest.json"


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary neighbour of ``path``, flush it to the disk, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with placed(path):
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: _write(temporary, text))


def write_bytes(path: Path, data: bytes) -> None:
    write_atomically(path, lambda temporary: _write_bytes(temporary, data))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON (numpy scalars and arrays become numbers and lists)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=plain, allow_nan=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        ArtefactError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtefactError("file is missing", where=str(path)) from error
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, a number of 5,000 digits
        raise ArtefactError(f"not a JSON file ({error})", where=str(path)) from error
    except (NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise ArtefactError(f"cannot be read ({error.strerror})", where=str(path)) from error


def seal(folder: Path, *, without: str = "") -> None:
    """Write the manifest of every file below ``folder``; from now on the folder counts as complete.

    ``without`` is a pattern of what lies in there and does not belong to it.
    """
    skipped = set(folder.glob(without)) if without else set()
    files = {
        file.relative_to(folder).as_posix(): sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST and not skipped & {file, *file.parents}
    }
    write_json(folder / MANIFEST, {"version": 1, "files": files})


def remove(path: Path) -> None:
    """Remove a file or a folder; one that is not there, or vanishes meanwhile, is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_sealed(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def is_whole(folder: Path) -> bool:
    """Whether the folder has a manifest, and every file is as it says."""
    try:
        check(folder)
    except ArtefactError:
        return False
    return True


def check(folder: Path, *needed: str, remedy: str = "restore the folder, or run the stage again") -> None:
    """Compare every file with the manifest, which has to list those that are ``needed``.

    Raises:
        ArtefactError: no manifest, or a file is missing or differs; all of them are named.
    """
    if not is_sealed(folder):
        what = f"{MANIFEST} is missing, which tells whether the other files are whole"
        raise ArtefactError(what, where=str(folder), remedy=remedy)
    listed = read_json(folder / MANIFEST)
    files = listed.get("files") if isinstance(listed, dict) else None
    if not isinstance(files, dict):
        raise ArtefactError("the manifest has no list of files", where=str(folder / MANIFEST))
    bad = [f"{name} is not in the manifest" for name in needed if name not in files]
    bad += [f"{name[:200]!r} {fault}" for name, digest in files.items() if (fault := _fault(folder, name, digest))]
    if bad:
        raise ArtefactError("; ".join(bad), where=str(folder), remedy=remedy)


def _fault(folder: Path, name: str, digest: Any) -> str:
    """What is wrong with a listed file, or nothing."""
    try:
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            return "leads out of the folder"
        if not file.is_file():
            return "is missing"
        return "" if sha256(file) == digest else "is damaged"
    except (OSError, ValueError) as error:  # such as a name with a NUL, or of a thousand characters
        return f"cannot be read ({error})"


def _write(path: Path, text: str) -> None:
    # a file name that is not UTF-8 holds lone surrogates; "\\udcff" is how JSON writes one
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
