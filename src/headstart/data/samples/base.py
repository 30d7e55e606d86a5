"""How a sample is divided: few rows to learn from, as many to choose by, many to test on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

PER_CLASS = 20  # labelled rows of each class to learn from, and again to choose by


def divided(labels: Sequence[Hashable], test: int, seed: int = 0) -> dict[str, list[int]]:
    """Row numbers of ``train``, ``val`` and ``test``; ``test`` is the largest number of a class's rows in the last."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for label in sorted(set(labels), key=str):
        rows = rng.permutation([row for row, other in enumerate(labels) if other == label]).tolist()
        found["train"] += rows[:PER_CLASS]
        found["val"] += rows[PER_CLASS : 2 * PER_CLASS]
        found["test"] += rows[2 * PER_CLASS : 2 * PER_CLASS + test]
    return {split: sorted(rows) for split, rows in found.items()}
