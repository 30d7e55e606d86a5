"""Which rows a run has learned from and chosen by: known again by their contents, under any name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import arrays, manifest, registry
from headstart.core.errors import HeadstartError
from headstart.core.events import Event, Notice
from headstart.core.run import Run

if TYPE_CHECKING:
    from headstart.workflows.materials import Decoded

FILE = "seen.npz"
DIGITS = 16  # of a SHA-256 in hex: eight bytes a row
MODALITIES = "headstart.data.modalities"


def record(run: Run, decoded: Decoded) -> None:
    """Write the beginnings of the hashes of the training and validation rows."""
    train, val = (_numbers(decoded.examples(split).store.digests) for split in ("train", "val"))

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, train=train, val=val)

    manifest.write_atomically(run.path / FILE, write)


def warn(run: Run, items: Sequence[Any], modality: str, on_event: Callable[[Event], None] | None) -> None:
    """Say how many of these rows the run has seen: what it answers on them tells nothing of new rows."""
    try:
        known = arrays.read(run.path / FILE)
    except HeadstartError:  # a run without it, or damaged: nothing can be said
        return
    fingerprint = registry.find(MODALITIES, modality).fingerprint
    found = []
    for item in items:
        with suppress(OSError, HeadstartError, ValueError, TypeError):  # what cannot be read is told elsewhere
            found.append(fingerprint(item))
    asked = _numbers(found)
    trained, chosen = (int(np.isin(asked, known.get(split, asked[:0])).sum()) for split in ("train", "val"))
    if on_event is not None and trained + chosen:
        what = f"of {len(items)} rows the model has learned {trained} and was chosen by {chosen}"
        on_event(Notice("warning", "seen-rows", f"{what}: on new rows it will do worse than on these"))


def _numbers(digests: Iterable[str]) -> np.ndarray:
    return np.array([int(digest[:DIGITS], 16) for digest in digests if digest], dtype=np.uint64)
