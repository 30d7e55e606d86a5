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

from headstart.core import keyed, registry
from headstart.core.errors import ConfigError
from headstart.core.plural import plural
from headstart.data import loaders
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine import balance, cache, memory
from headstart.engine.cache import FrontierCache
from headstart.engine.runtime import Runtime
from headstart.models.model import Model
from headstart.stages.base import Training

POOL = 100  # batches, about, among which rows of alike length are brought together


@dataclass(frozen=True)
class Examples:
    """The rows of one split with their decoded values."""

    split: str
    rows: Rows
    store: Store  # of the same rows, in the same order
    spec: Any

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the contents, in order."""
        return f"{keyed.digest('contents', *self.store.digests):032x}"

    @property
    def most(self) -> int | None:
        """Places that a batch has at most, where rows are padded to each other's length; None where they are not."""
        return getattr(self.spec, "max_length", None)

    def by_length(self, order: np.ndarray) -> np.ndarray:
        """These rows with alike lengths beside each other, the longest first: hardly anything is padded then."""
        return order[np.argsort(-self.store.lengths[order], kind="stable")]

    def batches(
        self,
        order: np.ndarray,
        *,
        batch_size: int | Sequence[int],
        augment: Any = None,
        key: tuple[int, ...] = (),
        start: int = 0,
        times: np.ndarray | None = None,
    ) -> Iterator[loaders.Batch]:
        """Batches of the rows of ``order``; see ``data.loaders.batches``."""
        return loaders.batches(
            self.store,
            self.rows.labels,
            self.spec,
            batch_size=batch_size,
            order=order,
            augment=augment,
            key=key,
            start=start,
            times=times,
        )


@dataclass
class Update:
    """One effective batch, or this rank's share of it."""

    rows: np.ndarray  # (B,) indices into the training rows
    inputs: Any  # a batch of the loader, or the tree that the frozen blocks gave
    targets: torch.Tensor  # (B,) class indices or (B, K) soft targets
    frontier: int
    total: int  # rows of the effective batch over all ranks

    def parts(self, size: int) -> Iterator[Update]:
        """Micro-batches of at most ``size`` rows, as equal as can be."""
        for cut in memory.split(len(self.rows), size):
            inputs = tree_map(lambda leaf, cut=cut: self._cut(leaf, cut), self.inputs)
            yield Update(self.rows[cut], cache.shortened(inputs), self.targets[cut], self.frontier, self.total)

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
    batch_size: int
    weights: np.ndarray | None = None  # (N,) for drawing rows, balanced; None: every row comes once
    lengths: np.ndarray | None = None  # (N,) where rows differ in length: batches are of alike ones

    @property
    def sizes(self) -> list[int]:
        """Rows of every batch: as equal as can be, so that no update rests on a handful of rows."""
        return [cut.stop - cut.start for cut in memory.split(len(self.rows), self.batch_size)]

    def batches(self, epoch: int) -> list[np.ndarray]:
        if self.weights is None:
            order = keyed.order(self.seed, self.stage, epoch, len(self.rows))
        else:
            order = keyed.weighted_order(self.seed, self.stage, epoch, self.weights)
        edges = np.cumsum(self.sizes)[:-1]
        if self.lengths is None:
            return np.split(order, edges)
        pools = np.array_split(np.r_[0, edges], max(1, round(len(self.sizes) / POOL)))
        parts = np.split(order, [int(starts[0]) for starts in pools[1:]])
        ordered = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")] for part in parts])
        return self._mixed(np.split(ordered, edges), epoch)

    def _mixed(self, batches: list[np.ndarray], epoch: int) -> list[np.ndarray]:
        """The batches in random order, those of one size among themselves: ``sizes`` stays true."""
        sizes = np.array(self.sizes)
        drawn = keyed.generator(self.seed, "order of batches", self.stage, epoch).permutation(len(batches))
        mixed: list[np.ndarray] = [np.empty(0)] * len(batches)
        for size in np.unique(sizes):
            for place, chosen in zip(np.flatnonzero(sizes == size), drawn[sizes[drawn] == size], strict=True):
                mixed[place] = batches[chosen]
        return mixed


class LiveStream:
    """Pictures through the whole network, freshly augmented every epoch."""

    frontier = 0

    def __init__(self, runtime: Runtime, order: Order, examples: Examples, augment: Any) -> None:
        self.runtime, self.order, self.examples, self.augment = runtime, order, examples, augment
        self.per_epoch = len(order.sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Update]:
        batches = self.order.batches(epoch)
        shares = [self.runtime.share_of(batch) for batch in batches]
        # counted before sharing out: a row drawn twice gets two views, whichever ranks it falls to
        times = np.split(loaders.occurrences(np.concatenate(batches)), np.cumsum(self.order.sizes)[:-1])
        loader = self.examples.batches(
            np.concatenate(shares),
            batch_size=[len(share) for share in shares],
            augment=self.augment,
            key=(self.order.seed, self.order.stage, epoch),
            start=start,
            times=np.concatenate([self.runtime.share_of(each) for each in times]),
        )
        device = self.runtime.device
        for batch, total in zip(loader, self.order.sizes[start:], strict=True):
            targets = torch.as_tensor(batch.labels, device=device)
            yield Update(batch.rows, on_device(batch.inputs, device), targets, 0, total)


class CachedStream:
    """What the frozen blocks gave, from the cache; epoch e sees row i in view (e + i) modulo V."""

    def __init__(self, runtime: Runtime, order: Order, cache: FrontierCache) -> None:
        self.runtime, self.order, self.cache = runtime, order, cache
        self.frontier = cache.frontier
        self.per_epoch = len(order.sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Update]:
        device = self.runtime.device
        for effective in self.order.batches(epoch)[start:]:
            rows = self.runtime.share_of(effective)
            targets = torch.as_tensor(self.order.rows.labels[rows], device=device)
            views = (epoch + rows) % self.cache.views
            yield Update(rows, self.cache.take(views, rows, device), targets, self.frontier, len(effective))


def of_stage(
    stage: Training,
    train: Examples,
    model: Model,
    runtime: Runtime,
    key: tuple[int, int],
    cached: FrontierCache | None,
) -> Stream:
    """The training rows as a stage sees them: from the frontier where it is cached, or from the inputs.

    Args:
        key: the seed of the run and the number of the stage.

    Raises:
        ConfigError: the ranks cannot share its batches.
    """
    balanced = stage.sampler == "balanced"
    weights = balance.row_weights(train.rows.labels, len(model.classes)) if balanced else None
    lengths = train.store.lengths if model.backbone.intake.ragged else None
    order = Order(*key, train.rows, stage.batch_size, weights, lengths)
    insist_shared(order.sizes, runtime)
    if cached is not None:
        return CachedStream(runtime, order, cached)
    return LiveStream(runtime, order, train, augmentation(stage.augment, train.store.modality))


def insist_shared(sizes: Sequence[int], runtime: Runtime, one: str = "row") -> None:
    """Every rank has its part of every batch.

    Raises:
        ConfigError: one of these sizes is smaller than the number of ranks.
    """
    if min(sizes) < runtime.world:
        told = f"{runtime.world} ranks cannot share batches of {plural(min(sizes), one)}"
        raise ConfigError(told, where="batch_size", remedy="start fewer processes, or raise batch_size")


def augmentation(value: Any, modality: str = "image") -> Any:
    """The policy that a setting means, or None where every view of a row would be the same."""
    found = registry.find("headstart.data.modalities", modality).policy(value)
    return None if hasattr(found, "is_random") and not found.is_random else found


def why_fresh(stage: Training, modality: str = "image") -> str:
    """Why this stage needs inputs that no earlier epoch has seen; empty where they repeat."""
    mixing = [name for name in ("mixup", "cutmix") if getattr(stage, name)]
    if mixing:
        verb = "blend" if len(mixing) > 1 else "blends"
        return f"{' and '.join(mixing)} {verb} the pictures themselves, anew in every update"
    if stage.views == "live" and augmentation(stage.augment, modality) is not None:
        return "every epoch sees freshly augmented rows (views: live)"
    return ""


def few(examples: Examples, count: int, device: torch.device) -> Any:
    """A batch of the first rows, repeated where there are fewer."""
    batch = next(iter(examples.batches(np.arange(count) % len(examples), batch_size=count)))
    return on_device(batch.inputs, device)


def on_device(inputs: np.ndarray, device: torch.device) -> torch.Tensor:
    """A batch of the loader on the device; pictures (B, C, H, W) channels last."""
    given = torch.from_numpy(inputs).to(device)
    return given.contiguous(memory_format=torch.channels_last) if given.dim() == 4 else given
