"""Exact and near duplicates among the rows of a data set.

Exact: the same SHA-256. Near: what ``near/<modality>.py`` finds among the sketches of the distinct rows.
Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headstart.core import registry

if TYPE_CHECKING:
    from headstart.data.store import Store


@dataclass(frozen=True)
class Duplicates:
    """What is the same, or nearly, among N rows."""

    exact: tuple[tuple[int, ...], ...]  # groups of rows with identical content
    near: tuple[tuple[int, int, float], ...]  # (row, later row, score); one row stands for its exact group
    groups: np.ndarray  # (N,) int64 group ids; both kinds joined
    score: float  # that a near pair needed in this collection
    searched_near: bool

    def take(self, rows: Sequence[int] | np.ndarray) -> Duplicates:
        """The same for these rows only, numbered in the order given."""
        new = {int(old): position for position, old in enumerate(rows)}
        kept = [[row for row in group if row in new] for group in self.exact]
        stand_in = {old[0]: min(own, key=new.__getitem__) for old, own in zip(self.exact, kept, strict=True) if own}
        exact = tuple(sorted(tuple(sorted(new[row] for row in group)) for group in kept if len(group) > 1))
        near = []
        for a, b, score in self.near:
            first, second = new.get(stand_in.get(a, a)), new.get(stand_in.get(b, b))
            if first is not None and second is not None:
                near.append((min(first, second), max(first, second), score))
        _, groups = np.unique(self.groups[np.asarray(rows, dtype=np.int64)], return_inverse=True)
        return Duplicates(exact, tuple(near), groups.reshape(-1), self.score, self.searched_near)


def duplicates(store: Store) -> Duplicates:
    """The duplicates among all rows of a store."""
    return find(store.digests, store.sketches, store.modality)


def duplicate_groups(store: Store) -> np.ndarray:
    """(N,) int64 group ids: rows that are the same or nearly so share one, and must not straddle splits."""
    return duplicates(store).groups


def find(digests: Sequence[str], sketches: np.ndarray, modality: str = "image") -> Duplicates:
    """Duplicates among N rows, given the SHA-256 of each (``""`` where unreadable) and the sketches (N, …)."""
    kind = registry.find("headstart.data.checks.near", modality)
    by_digest: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        if digest:
            by_digest.setdefault(digest, []).append(row)
    exact = tuple(tuple(rows) for rows in by_digest.values() if len(rows) > 1)
    distinct = np.array([rows[0] for rows in by_digest.values()], dtype=np.int64)
    searched = len(distinct) <= kind.LIMIT
    pairs, scores, least = kind.near(sketches[distinct]) if searched else (np.zeros((0, 2), np.int64), np.zeros(0), 1.0)
    near = tuple((int(distinct[a]), int(distinct[b]), float(s)) for (a, b), s in zip(pairs, scores, strict=True))
    links = [(rows[0], row) for rows in exact for row in rows[1:]] + [(a, b) for a, b, _ in near]
    return Duplicates(exact, near, joined(len(digests), links), least, searched)


def joined(count: int, links: Sequence[tuple[int, int]]) -> np.ndarray:
    """(count,) group ids 0, 1, … such that linked rows share one (union-find)."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    _, ids = np.unique([root(row) for row in range(count)], return_inverse=True)
    return np.asarray(ids, dtype=np.int64).reshape(count)
