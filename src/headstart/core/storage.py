"""The disk: errors of it told with the place and the space that is left, and room for a run asked for beforehand."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from headstart.core.errors import ArtefactError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Give an error of the operating system the file it rose at, where it does not say so itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def reported(what: str = "the run") -> Iterator[None]:
    """Turn a failing disk into an error that says where, and how much is free.

    Raises:
        ArtefactError: a file could not be read or written; what was complete before it is untouched.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        place = Path(str(error.filename or "."))
        raise ArtefactError(
            f"the disk refused ({error.strerror}); {free_bytes(place):,} bytes are free there",
            where=str(place),
            remedy=f"free some space, or mend the disk; then the same command continues {what}",
        ) from error


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Nobody else works in this folder meanwhile; the system lets go of it when the process ends, however it does.

    Where there are no such locks (Windows, some file systems of a network), nothing is claimed.

    Raises:
        ArtefactError: another process works there.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait until it is done, or give this run another --name"
            raise ArtefactError("another process works in this folder", where=str(folder), remedy=remedy) from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


def insist_writable(folder: Path, option: str) -> None:
    """Refuse a place that cannot be written to, before any work is done for it; nothing is left there.

    Raises:
        ArtefactError: ``folder`` cannot be made, or no file can be made in it; ``option`` chooses another.
    """
    place = folder.absolute()
    try:
        while not os.path.lexists(place):
            place = place.parent
        with tempfile.NamedTemporaryFile(dir=place, prefix=".headstart-") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        raise unwritable(folder, error, option) from error


def unwritable(path: Path, error: OSError, option: str) -> ArtefactError:
    """What is said of a place that refuses to be written to."""
    return ArtefactError(
        f"cannot write here ({error.strerror or error})", where=str(path), remedy=f"choose another place with {option}"
    )


def free_bytes(path: Path) -> int:
    """What is free on the disk of ``path``, or of its nearest folder that exists."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def insist(path: Path, needed: int, what: str) -> None:
    """Refuse before any work is done.

    Raises:
        ArtefactError: fewer than ``needed`` bytes are free on the disk of ``path``.
    """
    free = free_bytes(path)
    if free < needed:
        raise ArtefactError(
            f"{what} needs {needed:,} bytes on this disk, and {free:,} bytes are free",
            where=str(path),
            remedy="free some space, or choose another output_dir",
        )


def unused(path: Path, suffix: str = "") -> Path:
    """``path`` with the suffix, or else the first of ``path-2``, ``path-3`` … with it that is not there."""
    named = (path.with_name(f"{path.name}{place}{suffix}") for place in chain([""], map("-{}".format, count(2))))
    return next(each for each in named if not each.exists())
