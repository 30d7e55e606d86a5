"""Streams: the training rows of one stage, as updates. The order is a pure function of (seed, stage, epoch).

An update sees one effective batch; under several ranks each takes its share of the same batch, so the number of
updates does not depend on the number of processes. Shapes: B rows of this rank's share, N rows of the split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils._pytree import tree_map

from headstart.data import loaders
from headstart.data.splits import Rows
from headstart.engine import balance, keyed, memory
from headstart.engine.cache import FrontierCache
from headstart.engine.runtime import Runtime


@dataclass(frozen=True)
class Examples:
    """The rows of one split and where their decoded values stand in the store."""

    split: str
    rows: Rows
    store: Any  # data.store.Store
    index: np.ndarray  # (N,) int64, the store's row of every row here
    spec: Any

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the contents, in order."""
        return f"{keyed.digest('contents', *(self.store.digests[row] for row in self.index)):032x}"

    def batches(
        self,
        order: np.ndarray,
        *,
        batch_size: int | Sequence[int],
        augment: Any = None,
        key: tuple[int, ...] = (),
        start: int = 0,
    ) -> Iterator[loaders.Batch]:
        """Batches of the rows of ``order`` (indices here); see ``data.loaders.batches``."""
        labels = np.full(len(self.store), -1, dtype=np.int64)
        labels[self.index] = self.rows.labels
        back = np.full(len(self.store), -1, dtype=np.int64)
        back[self.index] = np.arange(len(self))
        loader = loaders.batches(
            self.store,
            labels,
            self.spec,
            batch_size=batch_size,
            order=self.index[order],
            augment=augment,
            key=key,
            start=start,
        )
        for batch in loader:
            yield batch._replace(rows=back[batch.rows])


@dataclass
class Update:
    """One effective batch, or this rank's share of it."""

    rows: np.ndarray  # (B,) indices into the training rows
    inputs: Any  # pictures (B, C, H, W) uint8, or the tree that the frozen blocks gave
    targets: torch.Tensor  # (B,) class indices or (B, K) soft targets
    frontier: int

    def parts(self, size: int) -> Iterator[Update]:
        """Micro-batches of at most ``size`` rows, as equal as can be."""
        for cut in memory.split(len(self.rows), size):
            inputs = tree_map(lambda leaf, cut=cut: self._cut(leaf, cut), self.inputs)
            yield Update(self.rows[cut], inputs, self.targets[cut], self.frontier)

    def _cut(self, leaf: Any, cut: slice) -> Any:
        per_row = torch.is_tensor(leaf) and leaf.dim() > 0 and leaf.shape[0] == len(self.rows)
        return leaf[cut] if per_row else leaf


class Stream(Protocol):
    """Updates of one stage; ``epoch(e, start)`` begins at update ``start`` of the epoch, for resuming."""

    frontier: int
    per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Update]: ...


@dataclass(frozen=True)
class Order:
    """Which rows an epoch visits, in which order, cut into effective batches."""

    seed: int
    stage: int
    rows: Rows
    classes: tuple[str, ...]
    batch_size: int
    balanced: bool = False

    @property
    def sizes(self) -> list[int]:
        """Rows of every batch: as equal as can be, so that no update rests on a handful of rows."""
        return [cut.stop - cut.start for cut in memory.split(len(self.rows), self.batch_size)]

    def batches(self, epoch: int) -> list[np.ndarray]:
        if self.balanced:
            labels = self.rows.labels
            order = balance.balanced_order(labels, self.classes, seed=self.seed, stage=self.stage, epoch=epoch)
        else:
            order = keyed.order(self.seed, self.stage, epoch, len(self.rows))
        return np.split(order, np.cumsum(self.sizes)[:-1])


class LiveStream:
    """Pictures through the whole network, freshly augmented every epoch."""

    frontier = 0

    def __init__(self, runtime: Runtime, order: Order, examples: Examples, augment: Any) -> None:
        self.runtime, self.order, self.examples, self.augment = runtime, order, examples, augment
        self.per_epoch = len(order.sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Update]:
        shares = [self.runtime.share_of(batch) for batch in self.order.batches(epoch)]
        loader = self.examples.batches(
            np.concatenate(shares),
            batch_size=[len(share) for share in shares],
            augment=self.augment,
            key=(self.order.seed, self.order.stage, epoch),
            start=start,
        )
        device = self.runtime.device
        for batch in loader:
            yield Update(batch.rows, as_images(batch.inputs, device), torch.as_tensor(batch.labels, device=device), 0)


class CachedStream:
    """What the frozen blocks gave, from the cache; epoch e sees view e modulo V."""

    def __init__(self, runtime: Runtime, order: Order, cache: FrontierCache) -> None:
        self.runtime, self.order, self.cache = runtime, order, cache
        self.frontier = cache.frontier
        self.per_epoch = len(order.sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Update]:
        view, device = epoch % self.cache.views, self.runtime.device
        for effective in self.order.batches(epoch)[start:]:
            rows = self.runtime.share_of(effective)
            targets = torch.as_tensor(self.order.rows.labels[rows], device=device)
            yield Update(rows, self.cache.take(view, rows, device), targets, self.frontier)


def as_images(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 pictures (B, C, H, W) on the device, channels last."""
    return torch.from_numpy(pictures).to(device).contiguous(memory_format=torch.channels_last)
