"""Batches of pictures from a store, prepared by threads while the model works.

Shapes: B rows of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from headstart.core import keyed, registry
from headstart.core.errors import ConfigError
from headstart.data.store import Store


class Batch(NamedTuple):
    """B rows ready for the model."""

    rows: np.ndarray  # (B,) int64, indices into the store
    inputs: np.ndarray  # (B, C, H, W) uint8, not yet normalised
    labels: np.ndarray  # (B,) int64


def occurrences(order: np.ndarray) -> np.ndarray:
    """(N,) how often the row at each place of ``order`` has come before: a row drawn twice gets two different views."""
    order = np.asarray(order, dtype=np.int64)
    by_row = np.argsort(order, kind="stable")
    ordered = order[by_row]
    first = np.r_[True, ordered[1:] != ordered[:-1]] if len(ordered) else np.zeros(0, bool)
    places = np.arange(len(ordered))
    count = np.empty(len(ordered), np.int64)
    count[by_row] = places - np.maximum.accumulate(np.where(first, places, 0))
    return count


def batches(
    store: Store,
    labels: np.ndarray,
    spec: Any,
    *,
    batch_size: int | Sequence[int],
    order: np.ndarray,
    augment: Any = None,
    key: tuple[int, ...] = (),
    prefetch: int = 2,
    start: int = 0,
    times: np.ndarray | None = None,
) -> Iterator[Batch]:
    """The rows of ``order`` in batches of ``batch_size`` (the last may be smaller), in that order.

    Args:
        batch_size: one size, or the size of every batch.
        augment: an AugmentPolicy or a callable (canvas, rng) -> picture; None shows every row as it is.
        key: what the randomness belongs to, such as (seed, stage, epoch). A view depends on key, row and how often
            the row came before in ``order`` alone: batch size, prefetching, threads and ``start`` change no byte.
        prefetch: batches prepared ahead, each by a thread of its own as far as there are cores; 0 prepares on demand.
        start: batches to leave out, when an interrupted epoch goes on.
        times: (N,) how often the row at each place came before, where ``order`` is one rank's share of an order that
            was counted as a whole; None counts in ``order``.

    Raises:
        DataError: a row of ``order`` could not be read (take the usable rows of the audit).
    """
    modality = registry.find("headstart.data.modalities", store.modality)
    order = np.asarray(order, dtype=np.int64)
    seen = occurrences(order) if times is None else times
    sizes = [batch_size] * -(-len(order) // batch_size) if isinstance(batch_size, int) else batch_size
    edges = np.minimum(np.cumsum([0, *sizes]), len(order)).tolist()
    ends = dict(itertools.pairwise(edges))

    def prepared(begin: int) -> Batch:
        rows = order[begin : ends[begin]]
        if augment is None:
            values = [modality.finish(store[row], spec) for row in rows]
        else:
            keys = [(*key, int(row), int(times)) for row, times in zip(rows, seen[begin:], strict=False)]
            values = [
                _augmented(modality, store[row], spec, augment, keyed.generator(*own))
                for row, own in zip(rows, keys, strict=True)
            ]
        return Batch(rows, modality.collate(values, spec), labels[rows])

    begins = list(ends)[start:]
    if prefetch < 1:
        yield from map(prepared, begins)
        return
    yield from _ahead(prepared, begins, prefetch)


def _augmented(modality: Any, canvas: np.ndarray, spec: Any, augment: Any, rng: np.random.Generator) -> np.ndarray:
    """One row, augmented.

    Raises:
        ConfigError: a function of the user's own fails, or gives something else than a row.
    """
    try:
        value: np.ndarray = modality.augment(canvas, spec, augment, rng)
    except Exception as error:  # whatever a function of the user's own raises
        if not callable(augment):
            raise
        raise _fails(augment, canvas, f"{type(error).__name__}: {error}") from error
    if value.ndim != canvas.ndim:
        raise _fails(augment, canvas, f"it gave an array of shape {value.shape}")
    return value


def _fails(augment: Any, canvas: np.ndarray, what: str) -> ConfigError:
    name = getattr(augment, "__name__", type(augment).__name__)
    remedy = f"it gets an array ({canvas.dtype}, such as {canvas.shape}) and a numpy Generator, and gives such an array"
    return ConfigError(f"'{name}' fails: {what}", where="augment", remedy=remedy)


def _ahead(prepare: Any, begins: Sequence[int], prefetch: int) -> Iterator[Batch]:
    """``prepare(begin)`` for every begin, in order, ``prefetch`` of them under way at any time."""
    pool = ThreadPoolExecutor(max_workers=min(prefetch, os.cpu_count() or 1), thread_name_prefix="batch")
    waiting: deque[Future[Batch]] = deque()
    try:
        for begin in begins:
            waiting.append(pool.submit(prepare, begin))
            if len(waiting) > prefetch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # the consumer may stop early: nothing is left running behind it
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=True)
