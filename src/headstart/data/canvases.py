"""Where the canvases lie: segments in memory, or one memory-mapped file in the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

SEGMENT_BYTES = 64 * 2**20


class Buffer:
    """Finished canvases, read by offset."""

    def __init__(self, segments: list[np.ndarray], nbytes: int, where: str) -> None:
        self._segments = segments  # flat uint8; the key of a place is (segment << 40) + offset inside it
        self.nbytes = nbytes
        self.where = where

    def read(self, place: int, count: int) -> np.ndarray:
        """``count`` bytes from ``place``, not writable, without a copy."""
        start = place & (1 << 40) - 1
        found = self._segments[place >> 40][start : start + count]
        found.flags.writeable = False
        return found


class Writer:
    """Takes canvases one after the other."""

    def __init__(self, budget: int, folder: Path) -> None:
        self._budget, self._folder = budget, folder
        self._segments: list[np.ndarray] = []
        self._used = 0
        self.nbytes = 0

    def append(self, canvas: np.ndarray) -> int:
        """Keep ``canvas``; its place in the finished buffer."""
        flat = canvas.reshape(-1)
        if not self._segments or self._used + len(flat) > len(self._segments[-1]):
            self._segments.append(np.empty(max(SEGMENT_BYTES, len(flat)), np.uint8))
            self._used = 0
        place = (len(self._segments) - 1 << 40) + self._used
        self._segments[-1][self._used : self._used + len(flat)] = flat
        self._used += len(flat)
        self.nbytes += len(flat)
        return place

    def finished(self) -> Buffer:
        return Buffer(self._segments, self.nbytes, "memory")


def default_folder() -> Path:
    """$HEADSTART_CACHE, or the user's cache folder."""
    return Path(os.environ.get("HEADSTART_CACHE") or Path.home() / ".cache" / "headstart")


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
