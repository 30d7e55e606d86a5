"""Every row decoded once, to its canvas: one buffer in memory or, above a budget, in a file of the cache folder.

What took long to decode is left in such a file too, and a later run finds it there: by the contents of the rows, which
are read for that, not by their names or times.

Shapes: N rows; canvases differ in size from row to row, so each keeps its own shape.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import registry, workers
from headstart.core.errors import DataError
from headstart.core.remembered import Remembered
from headstart.data import canvases
from headstart.data.modalities.base import DecodeError, Facts, Unreadable
from headstart.data.splits import Rows

if TYPE_CHECKING:
    from headstart.data.ahead import Ahead, Record

Progress = Callable[[int, int], None]
LAYOUT_VERSION = 3  # of the files in the cache folder
SAMPLE = 32  # rows that are decoded to estimate how much all of them will take
KEPT_SECONDS = 2.0  # of decoding, from which on its outcome is worth a file: reading the rows again costs a part of it


class Store:
    """The canvases of N rows, with what was seen while they were decoded. Built by ``Store.build``."""

    def __init__(
        self, modality: str, names: tuple[str, ...], buffer: canvases.Buffer, index: canvases.Index, explain: str
    ) -> None:
        self.modality = modality
        self.names = names
        self.explain = explain  # where the canvases are, and why, in one sentence
        self._buffer = buffer
        self._index = index

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> np.ndarray:
        """The canvas of one row, of the modality's type and rank, not to be written to.

        Raises:
            DataError: the row is unreadable.
        """
        row = int(row)
        if row in self.errors:
            reason = self.errors[row]
            raise DataError(f"{reason.message} [{reason.code}]", where=self.names[row])
        kind, index = self.kind, self._index
        nbytes = math.prod(shape := index.shapes[row].tolist()) * np.dtype(kind.DTYPE).itemsize
        flat = self._buffer.read(int(index.places[row]), nbytes, int(index.checksums[row]))
        flat.flags.writeable = False
        return flat.view(kind.DTYPE).reshape(shape[: kind.RANK])

    @property
    def kind(self) -> Any:
        """The modality's file (see ``modalities.base.Modality``)."""
        return registry.find("headstart.data.modalities", self.modality)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) size of every canvas along its last axis: tokens of a text, samples of a sound; 0 where unreadable."""
        return self._index.shapes[:, self.kind.RANK - 1]

    @property
    def errors(self) -> dict[int, Unreadable]:
        """The rows that could not be decoded, and why."""
        return self._index.errors

    @property
    def facts(self) -> Sequence[Facts | None]:
        """N facts, None where the row is unreadable."""
        return self._index.facts

    @property
    def sketches(self) -> np.ndarray:
        """(N, …) uint8 summaries from which near duplicates are told, zeros where the row is unreadable."""
        return self._index.sketches

    @property
    def nbytes(self) -> int:
        """Bytes of all canvases."""
        return self._buffer.nbytes

    @property
    def where(self) -> str:
        """ "memory" or "disk"."""
        return self._buffer.where

    @property
    def usable(self) -> np.ndarray:
        """(M,) int64: the rows that could be decoded."""
        return np.array([row for row in range(len(self)) if row not in self.errors], dtype=np.int64)

    @property
    def digests(self) -> list[str]:
        """SHA-256 of the content of N rows, "" where a row is unreadable."""
        return ["" if seen is None else seen.sha256 for seen in self.facts]

    def take(self, rows: Sequence[int] | np.ndarray) -> Store:
        """A view of these rows only, in the order given, such as those of one split; no canvas is copied."""
        names = tuple(self.names[int(row)] for row in rows)
        return Store(self.modality, names, self._buffer, self._index.take(rows), self.explain)

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
        ahead: Ahead | None = None,
        keep: bool = False,
    ) -> Store:
        """Decode every row of ``rows`` once, in order, with threads where that is quicker (see ``workers.in_turn``).

        Args:
            budget_bytes: what the canvases may take in memory; None is a quarter of what is free now, at most 1 GB.
                Above it they go to a file in ``cache_dir``, which a later run finds by contents, decoder version and
                what of the spec canvases depend on.
            cache_dir: None is ``canvases.default_folder()``. The least recently used files leave it when all
                of them take more than 50 GB.
            progress: called with (rows done, N) from the calling thread.
            ahead: another process that has begun with these rows; what it has done is taken.
            keep: leave what was decoded for more than ``KEPT_SECONDS`` in such a file too, where there is room.

        Raises:
            DataError: no room for the file. Rows that cannot be decoded raise nothing: see ``errors``.
        """
        kind = registry.find("headstart.data.modalities", modality)
        started = time.monotonic()
        begun = ahead.taken(spec) if ahead is not None else None
        held = 0 if begun is None else begun.values.nbytes
        budget = canvases.usual_budget(held) if budget_bytes is None else budget_bytes
        cache = Path(cache_dir) if cache_dir is not None else canvases.default_folder()
        hinted = is_kept(rows, spec, modality, cache)
        if hinted or _estimate(kind, rows, spec, budget) > budget:
            found = canvases.find(cache, _key(kind, spec, _identities(kind, rows)), kind.DTYPE, kind.Facts)
            if found is not None:
                if progress is not None:
                    progress(len(rows), len(rows))
                return cls(modality, rows.names, *found, f"decoded by an earlier run, in {found[0].folder}")
        writer = canvases.Writer(budget, cache, kind.DTYPE, kind.Facts)
        done: Sequence[Record | Unreadable] = ()
        if begun is not None:
            writer.adopt([begun.values])
            done, begun = begun.records, None  # the writer alone holds the bytes: they may outgrow memory yet
        try:
            index = _decode_all(kind, rows, spec, writer, progress, done)
            key = _key(kind, spec, _identities(kind, rows, index)) if writer.is_on_disk else ""
            buffer = writer.finished(index, key)
        except BaseException:
            writer.abandon()
            raise
        how = "decoded once"
        if keep and buffer.folder is None:
            key = ""
            if time.monotonic() - started > KEPT_SECONDS:
                key = _key(kind, spec, _identities(kind, rows, index))
                key = key if canvases.keep(buffer, index, cache, key, kind.DTYPE, kind.Facts) else ""
            if key or hinted:  # of other contents under these names
                _hints(cache).put(_hint(rows, spec, modality), key or None)
            how = f"{how} and kept for later runs" if key else how
        return cls(modality, rows.names, buffer, index, _explained(buffer, budget, how))


def is_kept(rows: Rows, spec: Any, modality: str, cache: Path | None = None) -> bool:
    """Whether an earlier run kept the canvases of rows with these names: their contents tell whether of these rows."""
    cache = cache or canvases.default_folder()
    key = _hints(cache).get(_hint(rows, spec, modality))
    return isinstance(key, str) and (cache / "canvases" / key).is_dir()


def _hints(cache: Path) -> Remembered:
    return Remembered(cache / "canvases.json")


def _hint(rows: Rows, spec: Any, modality: str) -> str:
    return hashlib.sha256(json.dumps([modality, spec.kept_by, rows.names]).encode()).hexdigest()[:32]


def decoded(kind: Any, item: Any, spec: Any) -> tuple[np.ndarray, np.ndarray, Facts] | Unreadable:
    """Canvas, sketch and facts of one item, or why there are none."""
    if isinstance(item, Unreadable):
        return item
    try:
        value, seen = kind.decode_with_facts(item, spec)
    except DecodeError as error:
        return error.reason
    canvas = kind.canvas(value, spec)
    return canvas, kind.sketch(canvas), seen


def _decode_all(
    kind: ModuleType,
    rows: Rows,
    spec: Any,
    writer: canvases.Writer,
    progress: Progress | None,
    done: Sequence[Record | Unreadable],
) -> canvases.Index:
    index = canvases.Index.blank(len(rows), kind.SKETCH)

    def keep(row: int, shape: tuple[int, ...], place: int, checksum: int, sketch: np.ndarray, facts: Facts) -> None:
        index.shapes[row] = (*shape, 1, 1)[:3]
        index.places[row], index.checksums[row] = place, checksum
        index.sketches[row], index.facts[row] = sketch, facts

    for row, record in enumerate(done):
        if isinstance(record, Unreadable):
            index.errors[row] = record
        else:
            keep(row, record.shape, record.place, record.checksum, record.sketch, record.facts)
    if progress is not None and done:
        progress(len(done), len(rows))
    with warnings.catch_warnings():  # for all threads, once: Pillow's remarks on odd files are facts and codes here
        warnings.filterwarnings("ignore", module="PIL")
        results = workers.in_turn(lambda item: decoded(kind, item, spec), _fetched(rows, len(done)))
        for row, result in enumerate(results, start=len(done)):
            if isinstance(result, Unreadable):
                index.errors[row] = result
            else:
                canvas, sketch, facts = result
                keep(row, canvas.shape, *writer.append(canvas), sketch, facts)
            if progress is not None:
                progress(row + 1, len(rows))
    return index


def _estimate(kind: ModuleType, rows: Rows, spec: Any, budget: int) -> float:
    """Bytes that all canvases will take: an upper bound if that is enough to know, else judged by a few rows."""
    bound = len(rows) * kind.largest_canvas(spec)
    if bound <= budget:
        return bound
    sample = np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))
    sizes = []
    for item in _fetched(rows.take(sample)):
        with suppress(DecodeError):
            if not isinstance(item, Unreadable):
                sizes.append(kind.canvas(kind.decode(item, spec), spec).nbytes)
    return len(rows) * float(np.mean(sizes)) if sizes else 0.0


def _fetched(rows: Rows, start: int = 0) -> Iterator[Any]:
    """The items, fetched by the calling thread: a dataset of the user's need not bear several threads."""
    for row in range(start, len(rows)):
        try:
            yield rows.items[row]
        except Exception as error:  # the user's own code: whatever it raises concerns this row alone
            yield Unreadable("source-error", f"could not be fetched from its data set ({error!r})")


def identities(rows: Rows, modality: str = "image") -> list[str]:
    """What each of N rows holds, read again: equal to a store's ``digests``, "" where a row is unreadable."""
    found = _identities(registry.find("headstart.data.modalities", modality), rows)
    return ["" if each.startswith("!") else each for each in found]


def _identities(kind: ModuleType, rows: Rows, index: canvases.Index | None = None) -> list[str]:
    """What each row holds, by content; ``index`` saves reading again what it has already seen."""

    def identity(item: Any) -> str:
        if isinstance(item, Unreadable):
            return f"!{item.code}"
        try:
            return str(kind.fingerprint(item))
        except DecodeError as error:
            return f"!{error.reason.code}"

    if index is None:
        return list(workers.in_turn(identity, _fetched(rows)))
    failed = sorted(index.errors)
    told = dict(zip(failed, workers.in_turn(identity, _fetched(rows.take(failed))), strict=True))
    return [told[row] if seen is None else seen.sha256 for row, seen in enumerate(index.facts)]


def _key(kind: ModuleType, spec: Any, identities: list[str]) -> str:
    told = [LAYOUT_VERSION, kind.name, kind.version, spec.kept_by, identities]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _explained(buffer: canvases.Buffer, budget: int, how: str) -> str:
    size, limit = f"{buffer.nbytes / 2**20:.1f} MB", f"{budget / 2**20:.0f} MB"
    if buffer.folder is None:
        return f"{how} into memory: {size}, within the budget of {limit}"
    return f"{how} into {buffer.folder}: {size}, above the memory budget of {limit}"
