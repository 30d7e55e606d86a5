"""Models of Headstart on the Hugging Face Hub: which files one consists of, and how it comes to this machine.

A model is fetched whole, into a folder of its own for each commit: files of two commits never mix, and its manifest is
checked like that of any other model.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from headstart.core import manifest
from headstart.core.errors import ArtefactError, Unreachable
from headstart.data import canvases
from headstart.models import download, saving

NATIVE = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")  # of the libraries
FILES = (*saving.FILES, *NATIVE, "README.md", manifest.MANIFEST)
OURS = "headstart.json"  # the file by which such a repository is known
_ADDRESS = re.compile(r"hf:/{1,2}(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")  # a Path of hf://… has one slash


def address(path: str | Path) -> tuple[str, str | None] | None:
    """Repository and revision of ``hf://owner/name`` or ``hf://owner/name@revision``; None where it is no address."""
    found = _ADDRESS.fullmatch(str(path))
    return None if found is None else (found[1], found[2])


def fetch(repo: str, revision: str | None = None, *, offline: bool = False) -> Path:
    """The folder of the model ``owner/name``: from the Hub, or without it the last one that was fetched.

    Raises:
        BackboneError: no such repository or no access. ArtefactError: it holds no model of Headstart.
        Unreachable: neither the Hub nor a copy here.
    """
    here = _newest(repo) if revision is None else None
    why = "offline was asked for, and it was never fetched"
    commit, files = "", frozenset[str]()
    if not offline:
        try:
            commit, files = download.hub_files(repo, revision)
        except Unreachable:
            why = "the Hub does not answer"
    if not commit:
        if here is None:
            raise _unreachable(repo, why)
        return here
    if OURS not in files or not re.fullmatch("[0-9a-f]{7,64}", commit):
        remedy = "as a start for training, --backbone takes models of transformers and timm, too"
        raise ArtefactError("this repository holds no model of Headstart", where=f"hf://{repo}", remedy=remedy)
    place = _place(repo, commit)
    if not manifest.is_sealed(place):
        _download(repo, commit, place)
    return place


def model_of(name: str, *, offline: bool) -> Path | None:
    """The folder of ``owner/name`` or ``owner/name@revision`` where that is a model of Headstart, else None.

    What is on this machine is not asked for again.
    """
    found = address(f"hf://{name}")
    if found is None:
        return None
    repo, revision = found
    here = _newest(repo) if revision is None else _place(repo, revision)
    if here is not None and manifest.is_sealed(here):
        return here
    if offline or download.hub_cached(repo, "config.json", revision) is not None:
        return None
    return fetch(repo, revision) if OURS in download.hub_files(repo, revision)[1] else None


def _place(repo: str, commit: str) -> Path:
    return canvases.default_folder() / "hub" / commit / repo.replace("/", "--")


def _newest(repo: str) -> Path | None:
    found = [place for place in _place(repo, "x").parents[1].glob(f"*/{_place(repo, 'x').name}") if place.is_dir()]
    return max(found, key=lambda place: place.stat().st_mtime, default=None)


def _download(repo: str, commit: str, place: Path) -> None:
    from huggingface_hub import snapshot_download

    draft = place.with_name(f".{place.name}.tmp-{os.getpid()}")
    draft.mkdir(parents=True, exist_ok=True)
    try:
        snapshot_download(repo, revision=commit, local_dir=draft, allow_patterns=list(FILES))
        manifest.remove(draft / ".cache")  # what the Hub's client remembers about its downloads
        os.replace(draft, place)
    except Exception as error:  # the client's network errors have no common base class
        raise _unreachable(repo, f"its files cannot be downloaded ({type(error).__name__})") from error
    finally:
        manifest.remove(draft)


def _unreachable(repo: str, why: str) -> Unreachable:
    remedy = (
        f"where there is a network, `hf download {repo} --local-dir FOLDER` fetches it; FOLDER can be given instead"
    )
    return Unreachable(f"the model '{repo}' cannot be had: {why}", where=f"hf://{repo}", remedy=remedy)
