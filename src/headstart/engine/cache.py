"""The frozen frontier: what the blocks below it computed, once, for every row and view.

While blocks 0..k-1 are frozen and their input is deterministic, their output is too. It is kept under a byte budget
and training starts at block k; ``POOLED`` stands for everything below the head. Rows of texts differ in length: only
their tokens are kept, and what is taken is as long as a batch of them (``core.lengths``), with zeros where a network's
mask lets nothing through. Shapes: B rows taken or put, N rows, V views, T tokens, S places of all rows.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from headstart.core.errors import ConfigError
from headstart.core.lengths import evened
from headstart.engine.runtime import Runtime
from headstart.stages.learner import POOLED

Tree = Any


@dataclass(frozen=True)
class CacheDecision:
    """Whether the frontier of a stage is cached, and why; shown to the user and recorded."""

    used: bool
    frontier: int
    nbytes: int
    reason: str


class FrontierCache:
    """Outputs of the frozen blocks; rows of one view are filled in any order.

    ``lengths`` (N,) are the tokens of every row where these differ: then tensors (B, T, …) of the tree are kept packed.
    Batches of them have at most ``most`` places.
    """

    def __init__(
        self, frontier: int, rows: int, views: int = 1, lengths: np.ndarray | None = None, most: int | None = None
    ) -> None:
        self.frontier = frontier
        self.rows = rows
        self.views = views
        self.most = most
        self._lengths = None if lengths is None else torch.as_tensor(lengths, dtype=torch.int64)
        self._spec: TreeSpec | None = None
        self._leaves: list[Any] = []  # a ``_Kept``, or what is the same for all rows
        self._filled = np.zeros((views, rows), dtype=bool)

    @classmethod
    def of(cls, features: torch.Tensor) -> FrontierCache:
        """A cache of pooled features (V, N, D) that are there already."""
        views, rows = features.shape[:2]
        cache = cls(POOLED, rows, views)
        for view in range(views):
            cache.put(view, np.arange(rows), features[view])
        return cache

    @property
    def nbytes(self) -> int:
        return sum(leaf.values.nbytes for leaf in self._kept)

    @property
    def complete(self) -> bool:
        return bool(self._filled.all())

    def put(self, view: int, rows: np.ndarray, value: Tree) -> None:
        """Keep what the frozen blocks gave for these rows of one view; of a row that comes again the first.

        Raises:
            ConfigError: augmentation has changed the length of a row.
        """
        if self._lengths is not None and not torch.equal(value["lengths"].cpu(), self._lengths[torch.as_tensor(rows)]):
            if view == 0:
                raise AssertionError("these rows have other lengths than the cache was made for")
            what = "the augmentation changes how many tokens some texts have, so their views cannot be kept"
            raise ConfigError(what, where="augment", remedy="views=live, which computes them anew in every epoch")
        leaves, spec = tree_flatten(value)
        if self._spec is None:
            self._spec, self._leaves = spec, [self._place_for(leaf, len(rows)) for leaf in leaves]
        places = np.sort(np.unique(rows, return_index=True)[1])
        index = torch.as_tensor(rows[places], dtype=torch.int64)
        for kept, leaf in zip(self._leaves, leaves, strict=True):
            if isinstance(kept, _Kept):
                own = leaf if len(places) == len(rows) else leaf[torch.as_tensor(places)]
                kept.put(view, index, own.detach().to("cpu"))
        self._filled[view, rows] = True

    def take(self, views: int | np.ndarray, rows: np.ndarray, device: torch.device | str = "cpu") -> Tree:
        """The tree for these rows, each in its view, as the frozen blocks would give it now."""
        if not self._filled[views, rows].all():
            raise AssertionError("the frontier cache was read before it was filled")
        view, row = torch.as_tensor(np.broadcast_to(views, rows.shape).copy()), torch.as_tensor(rows)
        leaves = [leaf.take(view, row, self.most) if isinstance(leaf, _Kept) else leaf for leaf in self._leaves]
        leaves = [_as_images(leaf).to(device) if torch.is_tensor(leaf) else leaf for leaf in leaves]
        assert self._spec is not None
        return tree_unflatten(leaves, self._spec)

    def features(self, view: int) -> torch.Tensor:
        """One view of pooled features (N, D), as they lie here: no copy is made."""
        if not self._filled[view].all():
            raise AssertionError("the frontier cache was read before it was filled")
        (leaf,) = self._leaves
        return leaf.values[view]

    def synchronise(self, view: int, rows: np.ndarray, runtime: Runtime) -> None:
        """Give every rank what the others computed for this view."""
        if runtime.world == 1:
            return
        if not self._leaves:
            raise AssertionError("this rank had no rows, so it does not know what the others kept")
        for kept in self._kept:
            places = kept.places(torch.as_tensor(rows, dtype=torch.int64))
            kept.values[view] = runtime.gather(places.numpy(), kept.values[view][places], kept.values.shape[1])
        self._filled[view] = True

    @property
    def _kept(self) -> list[_Kept]:
        return [leaf for leaf in self._leaves if isinstance(leaf, _Kept)]

    def _place_for(self, leaf: Any, batch: int) -> Any:
        if torch.is_tensor(leaf) and leaf.dim() > 0 and leaf.shape[0] == batch:
            return _Kept(self.views, self.rows, leaf, self._lengths if leaf.dim() > 2 else None)
        return leaf.detach().to("cpu") if torch.is_tensor(leaf) else leaf


class _Kept:
    """A tensor of the tree for all rows, (V, S, …): a place a row or, with ``lengths`` (N,), a place a token."""

    def __init__(self, views: int, rows: int, like: torch.Tensor, lengths: torch.Tensor | None) -> None:
        self.lengths = lengths
        count, shape = (rows, like.shape[1:]) if lengths is None else (int(lengths.sum()), like.shape[2:])
        self.values = torch.empty((views, count, *shape), dtype=like.dtype)
        self.starts = None if lengths is None else lengths.cumsum(0) - lengths

    def places(self, rows: torch.Tensor) -> torch.Tensor:
        """Where these rows lie, row after row: (B,), or of their tokens."""
        if self.lengths is None:
            return rows
        places, real = self._grid(rows)
        return places[real]

    def put(self, view: int, rows: torch.Tensor, leaf: torch.Tensor) -> None:
        """Keep (B, …) or, of (B, T, …), the tokens."""
        if self.lengths is not None:
            places, real = self._grid(rows)
            rows, leaf = places[real], leaf[:, : real.shape[1]][real]
        self.values[view].index_copy_(0, rows, leaf)

    def take(self, views: torch.Tensor, rows: torch.Tensor, most: int | None) -> torch.Tensor:
        """(B, …), or (B, T, …) with zeros where there is no token."""
        if self.lengths is None:
            return self.values[views, rows]
        places, real = self._grid(rows, most)
        taken = self.values.new_zeros((*real.shape, *self.values.shape[2:]))
        taken[real] = self.values[views[:, None].expand_as(places)[real], places[real]]
        return taken

    def _grid(self, rows: torch.Tensor, most: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The place of every token (B, T), and which of them there are; T is the longest's, or that of a batch."""
        assert self.lengths is not None
        assert self.starts is not None
        longest = int(self.lengths[rows].max())
        steps = torch.arange(longest if most is None else evened(longest, most))
        return self.starts[rows, None] + steps, steps < self.lengths[rows, None]


def shortened(tree: Tree) -> Tree:
    """A record of rows that differ in length, cut from a larger one, as long as a batch of them; else as it is."""
    lengths = tree.get("lengths") if isinstance(tree, dict) else None
    if lengths is None or lengths.dim() != 1:
        return tree
    longest = int(lengths.max())

    def cut(leaf: Any) -> Any:
        return leaf[:, : evened(longest, leaf.shape[1])] if torch.is_tensor(leaf) and leaf.dim() > 2 else leaf

    return tree_map(cut, tree)


def decide(frontier: int, blocks: int, row_bytes: int, rows: int, budget: int, *, fresh: str = "") -> CacheDecision:
    """Whether to cache the frontier of a stage: there is one, its input repeats, and it fits the budget (bytes).

    Args:
        frontier: leading blocks that stay frozen, of ``blocks``.
        row_bytes: what one row in one view takes (``tree_bytes``); of rows that differ in length the mean one.
        rows: every view of the training rows, and the validation rows.
        fresh: why the input does not repeat (``streams.why_fresh``); empty where it does.
    """
    if frontier == 0:
        return CacheDecision(False, 0, 0, "no block is frozen, so there is nothing to cache")
    if fresh:
        return CacheDecision(False, frontier, 0, fresh)
    size = row_bytes * rows
    below = "all blocks" if frontier == blocks else f"{frontier} of {blocks} blocks"
    shape = f"{rows} rows of {row_bytes / 1e3:.1f} kB: {size / 1e6:.0f} MB"
    if size > budget:
        return CacheDecision(False, frontier, size, f"{shape} exceeds the budget of {budget / 1e6:.0f} MB")
    return CacheDecision(True, frontier, size, f"{below} stay frozen: their output is kept ({shape})")


def tree_bytes(value: Tree, batch: int) -> int:
    """Bytes a row of what a frontier puts into the cache."""
    leaves, _ = tree_flatten(value)
    return sum(
        leaf.nbytes // batch for leaf in leaves if torch.is_tensor(leaf) and leaf.dim() and leaf.shape[0] == batch
    )


class FeatureStore:
    """Pooled features kept between runs, in files named by everything that they depend on; oldest go first."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder = folder
        self.budget = budget

    def read(self, key: str) -> torch.Tensor | None:
        """The features, or None when they are not here or not sound."""
        from headstart.core.errors import ArtefactError
        from headstart.engine.checkpoint import load_tensors

        path = self.folder / f"{key}.safetensors"
        if not path.is_file():
            return None
        try:
            tensors = load_tensors(path)
        except ArtefactError:
            path.unlink(missing_ok=True)
            return None
        features, digest = tensors.get("features"), tensors.get("digest")
        if features is None or digest is None or not torch.equal(digest, _digest(features)):
            path.unlink(missing_ok=True)
            return None
        os.utime(path)
        return features

    def write(self, key: str, features: torch.Tensor) -> None:
        """Keep features; a full disk costs only the cache, never the run."""
        from headstart.engine.checkpoint import save_tensors

        if features.nbytes > self.budget:
            return
        try:
            self._clear_leftovers()
            save_tensors(self.folder / f"{key}.safetensors", {"features": features, "digest": _digest(features)})
            self._prune()
        except OSError:
            return

    def remove(self, key: str) -> None:
        """Let go of the features of this key, where there are any."""
        with suppress(OSError):  # it was never kept: there is no such folder, or no room in it
            (self.folder / f"{key}.safetensors").unlink()

    def _clear_leftovers(self) -> None:
        """Remove what processes that are no more left half-written; others may be writing right now."""
        for left in self.folder.glob(".*.tmp-*"):
            try:
                os.kill(int(left.name.rpartition("-")[2]), 0)
            except (ProcessLookupError, ValueError):
                left.unlink(missing_ok=True)

    def _prune(self) -> None:
        files = sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
        size = 0
        for file in files:
            size += file.stat().st_size
            if size > self.budget:
                file.unlink(missing_ok=True)


def _digest(features: torch.Tensor) -> torch.Tensor:
    import hashlib

    raw = features.contiguous().view(torch.uint8).numpy()
    return torch.frombuffer(bytearray(hashlib.sha256(raw.data).digest()), dtype=torch.uint8)


def _as_images(leaf: torch.Tensor) -> torch.Tensor:
    """Channels-last for picture-like tensors, which is what the blocks above compute fastest with on a CPU."""
    return leaf.contiguous(memory_format=torch.channels_last) if leaf.dim() == 4 else leaf
