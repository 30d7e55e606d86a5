"""What a runtime is.

Shapes: B rows, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

MIDDLE = 128  # where our quantiser puts 0 of values that take both signs: a runtime may read these as signed ones


class Session(Protocol):
    """An opened model; one call at a time."""

    def __call__(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and probabilities, both (B, K) float32, of a batch as the modality collates it."""


class Runtime(Protocol):
    """The functions that a file in this folder offers at module level."""

    EXTRA: str  # of the package that brings it; "" where the base install does
    PRECISIONS: tuple[str, ...]  # in which it can compute what the file holds as floats, the plain one first

    def version(self) -> str:
        """Of the library; "" where it is not installed."""

    def precisions(self) -> tuple[str, ...]:
        """Those of ``PRECISIONS`` that the installed library computes in on this processor."""

    def load(self, path: Path, *, threads: int, precision: str) -> Session: ...
