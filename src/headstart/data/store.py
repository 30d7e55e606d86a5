"""Every row decoded once, to its canvas: one flat buffer in memory or, above a budget, in a file of the cache folder.

Shapes: N rows, h and w of a canvas (they differ from row to row), C channels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import registry
from headstart.core.errors import DataError
from headstart.data import canvases
from headstart.data.modalities.base import DecodeError, Facts, Unreadable
from headstart.data.splits import Rows

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Store:
    """The canvases of N rows, with what was seen while they were decoded."""

    modality: str
    names: tuple[str, ...]
    shapes: np.ndarray  # (N, 3) int64 h, w, C; zeros where the row is unreadable
    offsets: np.ndarray  # (N,) int64 into the buffer
    buffer: canvases.Buffer
    sketches: np.ndarray  # (N, 32, 32) uint8 grey miniatures; zeros where unreadable
    facts: tuple[Facts | None, ...]
    errors: dict[int, Unreadable] = field(default_factory=dict)
    explain: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> np.ndarray:
        """The canvas of one row, uint8 (h, w, C), not to be written to. Raises DataError where it is unreadable."""
        row = int(row)
        if row in self.errors:
            reason = self.errors[row]
            raise DataError(f"{reason.message} [{reason.code}]", where=self.names[row])
        height, width, channels = self.shapes[row]
        count = int(height * width * channels)
        return self.buffer.read(int(self.offsets[row]), count).reshape(height, width, channels)

    @property
    def nbytes(self) -> int:
        """Bytes of all canvases."""
        return self.buffer.nbytes

    @property
    def where(self) -> str:
        """ "memory" or "disk"."""
        return self.buffer.where

    @property
    def usable(self) -> np.ndarray:
        """(M,) int64: the rows that could be decoded."""
        return np.array([row for row in range(len(self)) if row not in self.errors], dtype=np.int64)

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of every row's content, "" where it is unreadable."""
        return tuple("" if facts is None else facts.sha256 for facts in self.facts)

    @property
    def hashes(self) -> np.ndarray:
        """(N,) uint64 difference hashes: is each of 8x8 places brighter than its left neighbour?"""
        rows, columns = pooling(self.sketches.shape[1], 8), pooling(self.sketches.shape[2], 9)
        small = rows @ self.sketches.astype(np.float32) @ columns.T
        bits = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(self), 64)
        return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)

    @classmethod
    def build(
        cls,
        rows: Rows,
        spec: Any,
        *,
        modality: str = "image",
        budget_bytes: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Store:
        """Decode every row of ``rows`` once, with threads (the decoders release the GIL), in order.

        Args:
            budget_bytes: what the canvases may take in memory; None is a quarter of what is free now. Above it they
                go to a file in ``cache_dir``, kept for the next run under a key of contents, spec and decoder version.
            cache_dir: None is $HEADSTART_CACHE, or ~/.cache/headstart. The oldest files leave it when it is full.
            progress: called with (rows done, N) from the calling thread.
        """
        kind = registry.find("headstart.data.modalities", modality)
        budget = canvases.free_bytes() // 4 if budget_bytes is None else budget_bytes
        writer = canvases.Writer(budget, Path(cache_dir) if cache_dir is not None else canvases.default_folder())
        count = len(rows)
        shapes, offsets = np.zeros((count, 3), np.int64), np.zeros(count, np.int64)
        sketches = np.zeros((count, 32, 32), np.uint8)
        facts: list[Facts | None] = [None] * count
        errors: dict[int, Unreadable] = {}

        def decode_one(row: int) -> tuple[np.ndarray, np.ndarray, Facts] | Unreadable:
            try:
                value, seen = kind.decode_with_facts(rows.items[row], spec)
            except DecodeError as error:
                return error.reason
            canvas = kind.canvas(value, spec)
            return canvas, kind.sketch(canvas), seen

        for row, result in enumerate(in_order(decode_one, range(count))):
            if isinstance(result, Unreadable):
                errors[row] = result
            else:
                canvas, sketches[row], facts[row] = result
                shapes[row], offsets[row] = canvas.shape, writer.append(canvas)
            if progress is not None:
                progress(row + 1, count)
        buffer = writer.finished()
        return cls(
            modality, rows.names, shapes, offsets, buffer, sketches, tuple(facts), errors, _explained(buffer, budget)
        )


def _explained(buffer: canvases.Buffer, budget: int) -> str:
    size, limit = f"{buffer.nbytes / 2**20:.1f} MB", f"{budget / 2**20:.0f} MB"
    if buffer.where == "memory":
        return f"pictures decoded once into memory: {size}, below the budget of {limit}"
    return f"pictures decoded once into a file of the cache folder: {size}, above the budget of {limit}"


def in_order(work: Callable[[int], Any], items: range) -> Iterator[Any]:
    """``work(item)`` for every item, in order, by a few threads that never run far ahead (memory stays flat)."""
    threads = min(8, os.cpu_count() or 1)
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def pooling(size: int, parts: int) -> np.ndarray:
    """(parts, size): the matrix that averages ``size`` values over ``parts`` equal, possibly fractional, stretches."""
    edges = np.linspace(0, size, parts + 1)
    cells = np.arange(size)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (overlap.clip(0) * (parts / size)).astype(np.float32)
