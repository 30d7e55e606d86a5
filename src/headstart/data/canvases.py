"""Where the canvases lie: segments in memory, or one file in the user's cache folder, read row by row.

Shapes: N rows. A finished file is a folder ``<cache>/canvases/<key>/`` with values.bin, index.npz and facts.json; it is
written beside and renamed, so that a folder of that name is whole. The least recently used ones leave a full cache.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headstart.core import arrays
from headstart.core.errors import ArtefactError, DataError
from headstart.data.modalities.base import Facts, Unreadable

SEGMENT_BYTES = 64 * 2**20
MEMORY_BYTES = 2**30  # what canvases take in memory at most unless told: the system keeps files there anyway
CACHE_BYTES = 50 * 2**30  # what all files of the cache may take together
KEPT_ROOM = 10  # times as much room on the disk as canvases take that need not be there
DAY_SECONDS = 86_400


@dataclass
class Index:
    """What is known of N canvases besides their bytes."""

    shapes: np.ndarray  # (N, 3) int64, ones beyond the canvas's axes; zeros where the row is unreadable
    places: np.ndarray  # (N,) int64 offsets into the buffer
    checksums: np.ndarray  # (N,) int64 CRC-32
    sketches: np.ndarray  # (N, …) uint8 summaries; zeros where unreadable
    facts: list[Facts | None]
    errors: dict[int, Unreadable] = field(default_factory=dict)

    @classmethod
    def blank(cls, count: int, sketch: tuple[int, ...]) -> Index:
        """For the store to fill; ``sketch`` is the shape of one."""
        shapes, places, checksums = (np.zeros(shape, np.int64) for shape in ((count, 3), count, count))
        return cls(shapes, places, checksums, np.zeros((count, *sketch), np.uint8), [None] * count)

    def take(self, rows: Sequence[int] | np.ndarray) -> Index:
        """These rows only, in the order given."""
        order = np.asarray(rows, dtype=np.int64)
        errors = {new: self.errors[int(old)] for new, old in enumerate(order) if int(old) in self.errors}
        facts = [self.facts[row] for row in order]
        return Index(self.shapes[order], self.places[order], self.checksums[order], self.sketches[order], facts, errors)

    def save(self, folder: Path) -> None:
        np.savez(folder / "index.npz", self.shapes, self.places, self.checksums, self.sketches)
        facts = [None if seen is None else asdict(seen) for seen in self.facts]
        errors = {str(row): asdict(reason) for row, reason in self.errors.items()}
        (folder / "facts.json").write_text(json.dumps({"facts": facts, "errors": errors}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, kind: type[Facts]) -> Index:
        stored = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        stored_arrays = arrays.read(folder / "index.npz")
        shapes, places, checksums, sketches = (stored_arrays[f"arr_{number}"] for number in range(4))
        facts = [None if seen is None else kind(**seen) for seen in stored["facts"]]
        errors = {int(row): Unreadable(**reason) for row, reason in stored["errors"].items()}
        return cls(shapes, places, checksums, sketches, facts, errors)


class Buffer:
    """Finished canvases, read by their place."""

    def __init__(self, segments: list[np.ndarray], nbytes: int, folder: Path | None = None) -> None:
        self.segments = segments  # flat uint8, one behind the other; no canvas lies across two
        self._starts = [0, *np.cumsum([len(segment) for segment in segments])[:-1].tolist()]
        self.nbytes = nbytes
        self.folder = folder
        if folder is not None:  # read, not mapped: what is mapped counts as this process's memory once it was seen
            self._file = (folder / "values.bin").open("rb", buffering=0)  # stays readable when the cache drops it
            self._turn = threading.Lock()
            weakref.finalize(self, self._file.close)

    @property
    def where(self) -> str:
        """ "memory" or "disk"."""
        return "memory" if self.folder is None else "disk"

    def read(self, place: int, count: int, checksum: int) -> np.ndarray:
        """``count`` bytes from ``place``; those in memory without a copy.

        Raises:
            ArtefactError: a file of the cache was damaged since it was written.
        """
        if self.folder is not None:
            with self._turn:
                self._file.seek(place)
                found = np.frombuffer(self._file.read(count), np.uint8)
            if len(found) != count or zlib.crc32(found.data) != checksum:
                raise ArtefactError("a cached row is damaged", where=str(self.folder), remedy="delete this folder")
            return found
        segment = bisect_right(self._starts, place) - 1
        start = place - self._starts[segment]
        return self.segments[segment][start : start + count]


class Writer:
    """Takes canvases one after the other; moves to a file of the cache when they outgrow the budget."""

    def __init__(self, budget: int, cache: Path, dtype: str, kind: type[Facts]) -> None:
        self._budget, self._cache, self._dtype, self._kind = budget, cache, dtype, kind
        self._segments: list[np.ndarray] = []
        self._used = 0  # of the last segment
        self._file: BinaryIO | None = None
        self.nbytes = 0

    def adopt(self, segments: Sequence[np.ndarray]) -> None:
        """Begin with these bytes (flat uint8, one segment behind the other), as they lie."""
        self._segments, self._used, self.nbytes = [*segments], len(segments[-1]), sum(map(len, segments))

    def append(self, canvas: np.ndarray) -> tuple[int, int]:
        """Keep ``canvas``; its place in the finished buffer, and its CRC-32."""
        flat = np.ascontiguousarray(canvas).reshape(-1).view(np.uint8)
        place = self.nbytes
        if self._file is None and place + len(flat) > self._budget:
            self.to_disk()
        if self._file is not None:
            self._put(flat)
        else:
            self._keep(flat)
        self.nbytes += len(flat)
        return place, zlib.crc32(flat.data)

    def _keep(self, flat: np.ndarray) -> None:
        if not self._segments or self._used + len(flat) > len(self._segments[-1]):
            self._close_segment()
            self._segments.append(np.empty(max(SEGMENT_BYTES, len(flat)), np.uint8))
            self._used = 0
        self._segments[-1][self._used : self._used + len(flat)] = flat
        self._used += len(flat)

    def _close_segment(self) -> None:
        if self._segments:
            self._segments[-1] = self._segments[-1][: self._used]

    def to_disk(self) -> None:
        """Move what is there to a file of the cache, and go on there."""
        folder = self._cache / "canvases"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder))
            self._file = (self._folder / "values.bin").open("wb")
        except OSError as error:
            raise _no_room(folder, error) from error
        self._close_segment()
        for segment in self._segments:
            self._put(segment)
        self._segments = []

    def _put(self, flat: np.ndarray) -> None:
        assert self._file is not None
        try:
            self._file.write(flat.data)
        except OSError as error:
            self.abandon()
            raise _no_room(self._cache, error) from error

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            with suppress(OSError):  # of what it still had to write
                self._file.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_on_disk(self) -> bool:
        return self._file is not None

    def finished(self, index: Index, key: str) -> Buffer:
        """The buffer; what lies on disk gets its final name, ``key``, and older files leave the full cache."""
        if self._file is None:
            self._close_segment()
            return Buffer(self._segments, self.nbytes)
        return Buffer([], self.nbytes, self.placed(index, key))

    def placed(self, index: Index, key: str) -> Path:
        """The folder of what lies on disk, under its final name."""
        assert self._file is not None
        try:
            self._file.close()
            index.save(self._folder)
            final = self._folder.with_name(key)
            if find(self._cache, key, self._dtype, self._kind) is not None:  # another process was faster
                shutil.rmtree(self._folder)
            else:
                shutil.rmtree(final, ignore_errors=True)  # of that name, but not whole
                self._folder.rename(final)
        except OSError as error:
            self.abandon()
            raise _no_room(self._cache, error) from error
        make_room(final)
        return final


def keep(buffer: Buffer, index: Index, cache: Path, key: str, dtype: str, kind: type[Facts]) -> bool:
    """Leave canvases that lie in memory in a file of the cache too; False where there is little room for it."""
    writer = Writer(0, cache, dtype, kind)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not buffer.segments or shutil.disk_usage(cache).free < KEPT_ROOM * buffer.nbytes:
            return False
        writer.adopt(buffer.segments)
        writer.to_disk()
        writer.placed(index, key)
    except (DataError, OSError):  # nobody needs it now
        writer.abandon()
        return False
    except BaseException:
        writer.abandon()
        raise
    return True


def find(cache: Path, key: str, dtype: str, kind: type[Facts]) -> tuple[Buffer, Index] | None:
    """The finished canvases of an earlier run; None when there are none, or when they are not whole."""
    folder = cache / "canvases" / key
    try:
        index = Index.load(folder, kind)
        nbytes = int(index.shapes.prod(axis=1).sum()) * np.dtype(dtype).itemsize
        if (folder / "values.bin").stat().st_size != nbytes:
            return None
        os.utime(folder)  # used now
        return Buffer([], nbytes, folder), index
    except (ArtefactError, OSError, ValueError, KeyError, TypeError):
        return None


def make_room(newest: Path, limit: int | None = None) -> None:
    """Delete the least recently used files beside ``newest`` until all together are below ``limit`` bytes."""
    limit = CACHE_BYTES if limit is None else limit
    sized = []
    for folder in newest.parent.iterdir():
        try:
            changed, size = folder.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir())
        except OSError:  # another process took it away
            continue
        if folder.name.startswith("unfinished-") and time.time() - changed > DAY_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)  # a run was killed while it wrote
        elif not folder.name.startswith("unfinished-"):
            sized.append((folder == newest, changed, size, folder))
    total = sum(size for _, _, size, _ in sized)
    for is_newest, _, size, folder in sorted(sized):
        if total <= limit or is_newest:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= size


def _no_room(cache: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot keep the decoded rows on disk ({error.strerror or error})",
        where=str(cache),
        remedy="free some space, set HEADSTART_CACHE to a folder on a larger disk, or allow more memory",
    )


def default_folder() -> Path:
    """$HEADSTART_CACHE, or else ``headstart`` in $XDG_CACHE_HOME (where it is absolute) or ~/.cache."""
    usual = Path(os.environ.get("XDG_CACHE_HOME", ""))
    usual = (usual if usual.is_absolute() else Path.home() / ".cache") / "headstart"
    return Path(os.environ.get("HEADSTART_CACHE") or usual)


def usual_budget(held: int = 0) -> int:
    """Bytes of canvases that are kept in memory where nobody says it; so many are ``held`` there already."""
    return min((free_bytes() + held) // 4, MEMORY_BYTES)


def free_bytes() -> int:
    """Memory that is free now, within the limit of the container; 2 GB where the system does not tell."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2 * 2**30
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return max(0, min(free, limit - used))
    except (OSError, ValueError):
        return free
