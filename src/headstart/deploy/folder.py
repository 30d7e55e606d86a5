"""The folder of an export: which files it may hold, and what its golden rows prove.

Shapes: B rows, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import arrays, manifest
from headstart.core.errors import ArtefactError

FLOAT, INT8, HALF = MODELS = ("model.onnx", "model.int8.onnx", "model.fp16.onnx")
VERDICT, GOLDEN, README = "verdict.json", "golden.npz", "README.md"
EXPORT = "export"  # the folder inside that of a run
FORMAT = 1
GOLDEN_BYTES = 2**28  # to which golden.npz may unpack
PARITY = 1e-4  # of the largest logit: how far fp32 ONNX may be from torch


@dataclass(frozen=True)
class Golden:
    """A few inputs as the modality collates them, with torch's logits and probabilities (B, K) in fp32."""

    inputs: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray

    def save(self, path: Path) -> None:
        """Write an .npz file, atomically."""

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **vars(self))

        manifest.write_atomically(path, write)

    @classmethod
    def read(cls, path: Path) -> Golden:
        """What ``save`` wrote.

        Raises:
            ArtefactError: missing, damaged, or with other arrays in it.
        """
        try:
            return cls(**arrays.read(path, limit=GOLDEN_BYTES))
        except TypeError as error:
            raise ArtefactError(f"not golden rows ({error})", where=str(path)) from error

    def gap(self, logits: np.ndarray) -> float:
        """The largest difference of ``logits`` (B, K) from these, relative to the largest logit."""
        if logits.shape != self.logits.shape:
            return float("inf")
        return float(np.abs(logits - self.logits).max() / max(1e-12, np.abs(self.logits).max()))


def is_export(folder: Path) -> bool:
    """Whether this is what ``headstart export`` wrote, though one of its files may be missing."""
    return sum((folder / file).is_file() for file in (VERDICT, FLOAT, GOLDEN)) >= 2


def foreign(folder: Path) -> list[Path]:
    """What lies in the folder of an export and was not written by it."""
    own = {*MODELS, VERDICT, GOLDEN, README, manifest.MANIFEST}
    return sorted(each for each in folder.iterdir() if each.name not in own)


def exported(place: Path, why: str) -> Path:
    """``place`` where it is an export, else the export of the run there.

    Raises:
        ArtefactError: there is none; ``why`` says what asked for it.
    """
    for found in (place, place / EXPORT):
        if is_export(found):
            return found
    run = next((each for each in (place, *place.parents[:2]) if (each / "experiment.yaml").is_file()), place)
    raise ArtefactError(f"{why}, and there is none", where=str(place), remedy=f"headstart export {run}")


def read_verdict(folder: Path) -> dict[str, Any]:
    """``verdict.json`` of a complete, undamaged export.

    Raises:
        ArtefactError: a file is missing or differs from the manifest, or the verdict is of a newer format.
    """
    manifest.check(folder, FLOAT, VERDICT, GOLDEN, remedy="restore the folder, or export the run again")
    found = manifest.read_json(folder / VERDICT)
    if not isinstance(found, dict) or not isinstance(found.get("variants"), list):
        raise ArtefactError("not a verdict", where=str(folder / VERDICT))
    if not isinstance(found.get("format"), int) or found["format"] > FORMAT:
        raise ArtefactError("written by a newer Headstart", where=str(folder / VERDICT), remedy="upgrade headstart")
    return found
