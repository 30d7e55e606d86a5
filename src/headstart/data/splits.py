"""Rows and splits: what the rest of the house knows about the user's data.

Shapes: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headstart.core.plural import plural

UNLABELLED = -1
COMMON = 10  # rows with the same labels, from which on they are shared out for themselves


def counted(labels: np.ndarray, classes: int) -> np.ndarray:
    """(K,) int64 rows of every class, of indices (N,) or of marks (N, K); rows without a label count nowhere."""
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype=np.int64)
    return np.bincount(labels[labels >= 0], minlength=classes)


def strata(labels: np.ndarray) -> np.ndarray:
    """(N,) int64 ids of the rows that are shared out together: those of a class.

    Where a row may have several labels, those with the same ones where at least COMMON rows have them, and otherwise
    those whose rarest label is the same: rare labels are shared out as exactly as can be, frequent ones closely.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    counts = counted(labels, labels.shape[1])
    _, alike, sizes = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    alike = alike.reshape(-1)
    rarest = np.where(labels > 0, counts, len(labels) + 1).argmin(axis=1)
    kinds = np.where(sizes[alike] >= COMMON, alike, len(sizes) + np.where(labels.any(axis=1), rarest, labels.shape[1]))
    return np.unique(kinds, return_inverse=True)[1].reshape(-1).astype(np.int64)


def of_class(labels: np.ndarray, index: int) -> np.ndarray:
    """(N,) bool: the rows that have this class, or this one among their labels."""
    return labels[:, index] > 0 if labels.ndim == 2 else labels == index


class LazyItems(Sequence[Any]):
    """Items that are fetched when they are read (a dataset's pictures), so that choosing rows loads nothing."""

    def __init__(self, fetch: Callable[[int], Any], order: Sequence[int]) -> None:
        self._fetch, self._order = fetch, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        return self._fetch(int(self._order[index]))

    def select(self, rows: Sequence[int] | np.ndarray) -> LazyItems:
        return LazyItems(self._fetch, [self._order[int(row)] for row in rows])


def choose(items: Sequence[Any], rows: Sequence[int] | np.ndarray) -> Sequence[Any]:
    """The items of these rows, without fetching lazy ones."""
    return items.select(rows) if isinstance(items, LazyItems) else [items[int(row)] for row in rows]


@dataclass(frozen=True)
class Rows:
    """Labelled inputs in a fixed order; a row is known by its index here and shown by its name."""

    items: Sequence[Any]  # what the modality's decode() takes: a path (str), bytes, an array, a PIL image, a text…
    # (N,) int64, UNLABELLED where there is none; or (N, K) uint8, 1 for every label that a row has
    labels: np.ndarray
    names: tuple[str, ...]  # short and printable: the path relative to the data, or "row 17"
    groups: tuple[str, ...] | None = None  # rows of one group never straddle splits

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"Rows({len(self):,})"

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """These rows only, in the order given."""
        order = np.asarray(indices, dtype=np.int64)
        return Rows(
            items=choose(self.items, order),
            labels=self.labels[order],
            names=tuple(self.names[i] for i in order),
            groups=None if self.groups is None else tuple(self.groups[i] for i in order),
        )


@dataclass(frozen=True)
class Splits:
    """Training, validation and test rows (test may be None), the classes in index order."""

    train: Rows
    val: Rows
    classes: tuple[str, ...]
    modality: str
    test: Rows | None = None
    source: str = ""  # what the user gave, for people
    fingerprint: str = ""  # SHA-256 over names, labels and split membership
    notes: tuple[str, ...] = field(default=())  # how the splits came to be, in sentences

    def __repr__(self) -> str:
        rows = ", ".join(f"{len(rows):,} {name}" for name, rows in self.present().items())
        return f"Splits({self.source!r}, {self.modality} rows: {rows}; {plural(len(self.classes), 'class')})"

    def present(self) -> dict[str, Rows]:
        """The splits that exist, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: rows for name, rows in named.items() if rows is not None}

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of every class in every split."""
        return {
            name: dict(zip(self.classes, counted(rows.labels, len(self.classes)).tolist(), strict=True))
            for name, rows in self.present().items()
        }

    def subset(self, fraction: float, seed: int) -> Splits:
        """A stratified share of the training rows (at least one a class); the other splits stay whole."""
        rng = np.random.default_rng(seed)
        chosen: list[int] = []
        kinds = strata(self.train.labels)
        for kind in np.unique(kinds):
            rows = np.flatnonzero(kinds == kind)
            count = max(1, round(fraction * len(rows)))
            chosen.extend(rng.permutation(rows)[:count])
        return replace(self, train=self.train.take(sorted(chosen)))
