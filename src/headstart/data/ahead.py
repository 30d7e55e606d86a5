"""Rows that a process beside this one decodes, while this one loads what a backbone needs.

Loading torch keeps the interpreter busy for a second, and the other cores idle. Threads that decode meanwhile wait for
the interpreter after every step (measured: longer than one after the other); a process forked before has one of its
own. What it decodes lies in memory that both see. It ends when it is done, when it is told to, or with its parent.

Shapes: k rows of N, the first ones; canvases are flat.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.core import interruption, machine, registry
from headstart.data import store
from headstart.data.modalities.base import Facts, Unreadable
from headstart.data.splits import Rows

DRAWS = "rich.live"  # whose thread only draws progress


@dataclass(frozen=True)
class Record:
    """What is known of one decoded row besides its bytes."""

    shape: tuple[int, ...]
    place: int  # of its canvas in ``Begun.values``
    checksum: int
    sketch: np.ndarray
    facts: Facts


@dataclass(frozen=True)
class Begun:
    """The first k rows, decoded."""

    records: tuple[Record | Unreadable, ...]
    values: np.ndarray  # flat uint8: all their canvases


def is_possible(rows: Rows) -> bool:
    """Whether a process can be forked for these rows: files, on Linux, with a core to spare and before torch."""
    return (
        hasattr(os, "memfd_create")
        and "torch" not in sys.modules  # whose threads no child would have
        and all(type(each).__module__ == DRAWS for each in threading.enumerate()[1:])
        and machine.usable_cores() >= 2
        and all(isinstance(item, str | os.PathLike) for item in rows.items)
    )


class Ahead:
    """Decoding that goes on in another process until ``taken`` or ``stop``; see ``is_possible``.

    Args:
        spec: what the backbone probably wants; rows of a spec with other canvases are not taken.
        most: bytes of canvases, before which it ends.

    Raises:
        OSError: the system allows no such process, or no such memory.
    """

    def __init__(self, rows: Rows, spec: Any, modality: str, most: int) -> None:
        self.spec, self._kind = spec, registry.find("headstart.data.modalities", modality)
        self._open: list[int] = []  # descriptors of memory
        self._child, self._line = 0, -1
        # For good in the child: its parent closes the line.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, interruption.SIGNALS)
        try:
            for name in ("values", "records"):
                self._open.append(os.memfd_create(f"headstart-{name}"))
            self._values, self._records = self._open
            listening, self._line = os.pipe()  # whose end here is closed by this process, or with it: the child stops
            self._open.append(listening)
            with warnings.catch_warnings():  # of threads that numpy and rich have, and that no child needs
                warnings.simplefilter("ignore", DeprecationWarning)
                self._child = os.fork()
            if not self._child:
                try:
                    os.close(self._line)
                    self._decode(rows, listening, most)
                finally:
                    os._exit(0)
            os.close(self._open.pop())
        except OSError:
            self.stop()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _decode(self, rows: Rows, listening: int, most: int) -> None:
        warnings.filterwarnings("ignore", module="PIL")
        place = 0
        with open(self._values, "wb") as values, open(self._records, "w", encoding="utf-8") as records:
            for item in rows.items:
                if select.select([listening], [], [], 0)[0]:
                    return
                result = store.decoded(self._kind, item, self.spec)
                if isinstance(result, Unreadable):
                    told: Any = asdict(result)
                else:
                    canvas, sketch, facts = result
                    flat = canvas.reshape(-1).view(np.uint8)
                    if place + flat.nbytes > most:
                        return
                    told = [canvas.shape, place, zlib.crc32(flat.data), sketch.tobytes().hex(), asdict(facts)]
                    values.write(flat.data)
                    values.flush()
                    place += flat.nbytes
                records.write(json.dumps(told) + "\n")
                records.flush()  # what stands here is whole

    def taken(self, spec: Any) -> Begun | None:
        """End the work and take what is done.

        None where that is nothing, where canvases of this spec are others, and where it was taken before.
        """
        if not self._child or spec.kept_by != self.spec.kept_by:
            self.stop()
            return None
        try:
            self._end()
            records = tuple(self._read())
            ends = [each.place + self._size(each) for each in records if isinstance(each, Record)]
            if not ends:
                return None
            mapped = mmap.mmap(self._values, ends[-1], prot=mmap.PROT_READ)
            return Begun(records, np.frombuffer(mapped, np.uint8))
        finally:
            self._close()

    def _size(self, record: Record) -> int:
        return int(np.prod(record.shape)) * np.dtype(self._kind.DTYPE).itemsize

    def _read(self) -> Iterator[Record | Unreadable]:
        with open(os.dup(self._records), encoding="utf-8") as records:
            records.seek(0)
            for line in records:
                if not line.endswith("\n"):  # it died while it wrote
                    return
                told = json.loads(line)
                if isinstance(told, dict):
                    yield Unreadable(**told)
                    continue
                shape, place, checksum, drawn, facts = told
                sketch = np.frombuffer(bytes.fromhex(drawn), np.uint8).reshape(self._kind.SKETCH)
                yield Record(tuple(shape), place, checksum, sketch, self._kind.Facts(**facts))

    def stop(self) -> None:
        """End the work and let go of it; nothing where that has been done."""
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        self._end()
        self._close()

    def _end(self) -> None:
        line, self._line = self._line, -1
        if line >= 0:
            os.close(line)
        if self._child:
            with suppress(ChildProcessError):
                os.waitpid(self._child, 0)
            self._child = 0

    def _close(self) -> None:
        while self._open:
            os.close(self._open.pop())
