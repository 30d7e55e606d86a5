"""What a modality is: how one kind of input is decoded, prepared, augmented, batched and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Modality(Protocol):
    """The functions that a file in this folder offers at module level (numpy only, no torch at import).

    The path of one item: ``decode`` (the user's file to a value) → ``canvas`` (the deterministic, cacheable part) →
    ``finish`` (what the network sees, before normalisation) or ``augment`` (the same with chance) → ``collate``.
    """

    name: str

    def decode(self, item: Any, spec: Any) -> Any: ...
    def canvas(self, value: Any, spec: Any) -> np.ndarray: ...
    def finish(self, canvas: np.ndarray, spec: Any) -> np.ndarray: ...
    def prepare(self, item: Any, spec: Any) -> np.ndarray: ...
    def augment(self, canvas: np.ndarray, spec: Any, policy: Any, rng: np.random.Generator) -> np.ndarray: ...
    def collate(self, values: Sequence[np.ndarray]) -> np.ndarray: ...
    def fingerprint(self, item: Any) -> str: ...
    def preview(self, item: Any, size: int) -> bytes: ...
