"""Weights from the network: look on this machine first, probe once, fail within seconds, say what to do instead."""

from __future__ import annotations

import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from headstart.core.errors import BackboneError, Unreachable

TIMEOUT_S = 4.0


def fetch(url: str, place: Path, *, name: str, offline: bool) -> None:
    """Download ``url`` to ``place`` (checked against the hash in its file name).

    Raises:
        Unreachable: offline, or no answer within seconds.
    """
    if offline:
        raise unreachable(name, f"offline was asked for, and {place.name} is not in {place.parent}")
    if not answers(url):
        raise unreachable(name, f"{url} does not answer")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(place), hash_prefix=place.stem.rpartition("-")[2], progress=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise unreachable(name, f"{url} broke off ({error})") from error


def checkpoint(url: str) -> Path:
    """Where torch.hub keeps the file of this address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def answers(url: str) -> bool:
    """Whether the address answers within seconds."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "headstart"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return True
    except (urllib.error.URLError, OSError, ValueError):
        return False


def hub_cached(repo: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a Hub repository that is on this machine already."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def hub_file(repo: str, file: str, *, revision: str | None, offline: bool) -> Path | None:
    """A file of a Hub repository, from this machine or the network; None where the repository has no such file.

    Raises:
        BackboneError: no such repository or no access. Unreachable: offline, or no answer within seconds.
    """
    from huggingface_hub import hf_hub_download

    cached = hub_cached(repo, file, revision)
    if cached is not None:
        return cached
    if _known_absent(repo, file, revision):
        return None
    if offline:
        raise unreachable(repo, f"offline was asked for, and {file} of '{repo}' is not in the Hub's cache here")
    if file not in hub_files(repo, revision)[1]:
        return None
    try:
        return Path(hf_hub_download(repo, file, revision=revision, etag_timeout=TIMEOUT_S))
    except Exception as error:  # the client's network errors have no common base class
        raise unreachable(repo, f"{file} of '{repo}' cannot be downloaded ({type(error).__name__})") from error


def unreachable(name: str, why: str) -> Unreachable:
    """The error for weights that cannot be had, with the ways out."""
    return Unreachable(
        f"the weights of '{name}' cannot be had: {why}",
        where="backbone",
        remedy="give a file with --weights FILE (safetensors or a state dict), name a backbone whose weights are on "
        "this machine (`headstart models` marks them; a file or folder works too, such as --backbone "
        "torchvision/mobilenet_v2 --weights FILE), or start without pretrained weights: pretrained=false",
    )


def _known_absent(repo: str, file: str, revision: str | None) -> bool:
    """Whether the cache remembers that the repository has no such file."""
    from huggingface_hub import try_to_load_from_cache

    found: Any = try_to_load_from_cache(repo, file, revision=revision)
    # Someone who copied a snapshot by hand has its config.json but no record of what is absent.
    return (found is not None and not isinstance(found, str)) or (
        file != "config.json" and hub_cached(repo, "config.json", revision) is not None and _is_offline()
    )


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@lru_cache(maxsize=32)
def hub_files(repo: str, revision: str | None) -> tuple[str, frozenset[str]]:
    """The repository's commit and files: one request without retries, so that a missing network shows at once.

    Raises:
        BackboneError: no such repository or no access. Unreachable: no answer within seconds.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(repo, revision=revision, timeout=TIMEOUT_S)
    except (GatedRepoError, RepositoryNotFoundError, HFValidationError) as error:
        raise BackboneError(
            f"the Hub has no model '{repo}' that you can read ({type(error).__name__})",
            where="backbone",
            remedy="check the name; for a private or gated model log in first: hf auth login",
        ) from error
    except Exception as error:  # the client's network errors have no common base class
        raise unreachable(repo, f"the Hub does not answer ({type(error).__name__})") from error
    return str(info.sha), frozenset(sibling.rfilename for sibling in info.siblings or ())
