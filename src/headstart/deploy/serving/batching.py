"""Items of all clients in batches, in the order in which they came; an answer never depends on who came with it.

What waits while the model works becomes the next batch: nobody is kept waiting for others to come.
Shapes: B rows of a batch, K classes.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from headstart.data.modalities.base import DecodeError
from headstart.deploy.mates import ROWS
from headstart.deploy.serving.limits import Limits, Refusal
from headstart.deploy.serving.metrics import Metrics
from headstart.measure.prediction import NO_NUMBER


class Model(Protocol):
    """What answers: a ``Predictor``."""

    def prepare(self, item: Any) -> np.ndarray: ...
    def answer(self, values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Problem:
    """Why an item has no answer; ``status`` is what a request with nothing else in it is answered."""

    code: str
    message: str
    status: int = 422


@dataclass(eq=False)
class _Item:
    value: Any  # as it came, and then as the model takes it
    done: asyncio.Future[np.ndarray | Problem]


class Batcher:
    """The queue before a model: ``await answer(items)`` within ``start`` and ``stop``.

    Args:
        rows: the largest batch; 1 where an answer depends on what else is in it (see ``deploy.mates``).
        cells: values that a batch holds at most, padding included, where it has more than one row.
    """

    def __init__(self, model: Model, limits: Limits, metrics: Metrics, *, rows: int = ROWS, cells: int = 2**40) -> None:
        self._model, self._limits, self._metrics = model, limits, metrics
        self._rows, self._cells = rows, cells
        self._decoding = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)), thread_name_prefix="decode")
        self._working = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._ready: deque[_Item] = deque()
        self._wake = asyncio.Event()
        self._seconds_an_item = 0.01  # a moving average
        self._loop: asyncio.Task[None] | None = None
        self._preparing: set[asyncio.Task[None]] = set()
        self.held = 0  # items that were accepted and are not answered yet
        self.answered = self.given_up = 0

    @property
    def alive(self) -> bool:
        return self._loop is not None and not self._loop.done()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._serve())

    async def stop(self) -> None:
        """Answers that are still owed are given up."""
        self.given_up = self.held
        if self._loop is not None:
            self._loop.cancel()
        self._decoding.shutdown(wait=False, cancel_futures=True)
        self._working.shutdown(wait=False, cancel_futures=True)

    def demand_room(self, count: int = 1) -> None:
        """Whether so many items more can be taken.

        Raises:
            Refusal: 429, with the seconds after which there should be room.
        """
        if self.held + count > self._limits.queue:
            wait = str(max(1, math.ceil(self.held * self._seconds_an_item)))
            raise Refusal(429, "busy", "too many items are waiting; try again later", headers={"retry-after": wait})

    async def answer(self, items: Sequence[Any]) -> list[np.ndarray | Problem]:
        """Probabilities (K,) of every item, or its own problem. Where the caller is cancelled, the items are dropped.

        Raises:
            Refusal: as ``demand_room``.
        """
        self.demand_room(len(items))
        loop = asyncio.get_running_loop()
        waiting = [_Item(item, loop.create_future()) for item in items]
        self._hold(len(waiting))
        for item in waiting:
            item.done.add_done_callback(lambda done: self._hold(-1))
            task = loop.create_task(self._prepare(item))
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)
        return list(await asyncio.gather(*(item.done for item in waiting)))

    def _hold(self, count: int) -> None:
        self.held += count
        self._metrics.queue.set(self.held)

    async def _prepare(self, item: _Item) -> None:
        found = await asyncio.get_running_loop().run_in_executor(self._decoding, self._decoded, item)
        if item.done.done():
            self._metrics.items.labels("dropped").inc()
        elif isinstance(found, Problem):
            self._metrics.items.labels("failed" if found.status >= 500 else "unreadable").inc()
            item.done.set_result(found)
        else:
            item.value = found
            self._ready.append(item)
            self._wake.set()

    def _decoded(self, item: _Item) -> np.ndarray | Problem | None:
        """In a thread: the project's one decoder."""
        if item.done.done():
            return None
        try:
            if isinstance(item.value, Refusal):
                raise item.value
            return self._model.prepare(item.value)
        except DecodeError as error:
            too_large = error.reason.code.startswith("too-")
            return Problem(error.reason.code, error.reason.message, 413 if too_large else 422)
        except Refusal as error:
            return Problem(error.code, error.message, error.status)
        except MemoryError:
            return Problem("memory", "takes more memory than there is", 413)
        except Exception as error:  # an item that no decoder foresaw must not take others with it
            return Problem("failed", f"cannot be read ({type(error).__name__})", 500)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch = self._take()
            if not batch:
                self._wake.clear()
                continue
            begun = time.perf_counter()
            found = await loop.run_in_executor(self._working, self._answers, [item.value for item in batch])
            taken = time.perf_counter() - begun
            self._seconds_an_item += 0.2 * (taken / len(batch) - self._seconds_an_item)
            self._metrics.model_seconds.inc(taken)
            self._metrics.batches.observe(len(batch))
            for item, answer in zip(batch, found, strict=True):
                self._metrics.items.labels("failed" if isinstance(answer, Problem) else "answered").inc()
                self.answered += not isinstance(answer, Problem)
                if not item.done.done():
                    item.done.set_result(answer)

    def _take(self) -> list[_Item]:
        """The next batch: the first of those that wait, without those whose clients have left."""
        batch: list[_Item] = []
        longest = 0
        while self._ready and len(batch) < self._rows:
            item = self._ready[0]
            if not item.done.done():
                longest = max(longest, item.value.size)
                if batch and longest * (len(batch) + 1) > self._cells:
                    break
                batch.append(item)
            else:
                self._metrics.items.labels("dropped").inc()
            self._ready.popleft()
        return batch

    def _answers(self, values: Sequence[np.ndarray]) -> list[np.ndarray | Problem]:
        """In the model's thread. Where a batch fails, each of its rows is tried alone: the others have their answer."""
        try:
            shares = self._model.answer(values)[1]
        except Exception as error:  # whatever a runtime raises
            if len(values) > 1:
                return [answer for value in values for answer in self._answers([value])]
            return [Problem("failed", f"the model cannot take it ({type(error).__name__})", 500)]
        wrong = Problem("failed", NO_NUMBER, 500)
        return [row if np.isfinite(row).all() else wrong for row in shares]
