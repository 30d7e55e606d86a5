"""Reach for weights on the network: probe once, fail within seconds, and say what to do instead."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import torch

from headstart.core.errors import Unreachable

TIMEOUT_S = 4.0


def fetch(url: str, place: Path, *, name: str, offline: bool) -> None:
    """Download ``url`` to ``place`` (checked against the hash in its file name).

    Raises:
        Unreachable: offline, or no answer within seconds.
    """
    if offline:
        raise unreachable(name, f"offline was asked for, and {place.name} is not in {place.parent}")
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "headstart"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass
        place.parent.mkdir(parents=True, exist_ok=True)
        digest = place.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(place), hash_prefix=digest, progress=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise unreachable(name, f"{url} cannot be reached ({error})") from error


def unreachable(name: str, why: str) -> Unreachable:
    """The error for weights that cannot be had, with the ways out."""
    return Unreachable(
        f"the weights of '{name}' cannot be had: {why}",
        where=name,
        remedy="give a file with --weights FILE (safetensors or a state dict), choose a backbone whose weights are on "
        "this machine (`headstart models` marks them; a folder or file path works too), "
        "or start without pretrained weights: pretrained=false",
    )
