"""Work on many items in their order, by a few threads or, where that is quicker, by none."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

from headstart.core.machine import usable_cores

MOST = 8  # threads
TRIED = 4  # items of a trial, at least: of slow ones few more are not worth to wait for
TRIAL = 0.05  # seconds of a trial, which tell something of quick ones too
STRETCH = 1.0  # seconds until both ways are tried again
PART = 0.004  # seconds of items that a thread is handed at once: handing over a quick one takes as long as the item
AHEAD = 4  # items a thread that are handed over before their results are taken
LARGEST = 16  # items of a part: those after it may be slow, and results wait for their turn in memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_turn(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Result]:
    """``work(item)`` for every item, in order: in the calling thread or by others, whichever is quicker.

    Threads take turns at the interpreter, and wait for it after every file that they read. Spoken digits on two cores:
    .40 ms a file in one thread, .56 ms by two; small pictures .52 and .35 ms, five seconds of sound 8.5 and 4.4 ms.
    Both ways are tried every now and then. The first item, for which modules are loaded, is not counted.
    """
    items = iter(items)
    yield from map(work, islice(items, 1))
    while True:
        begun, alone = clock(), 0
        for result in map(work, items):
            yield result
            alone += 1
            if alone >= TRIED and clock() - begun >= TRIAL:
                break
        else:
            return
        each = max((clock() - begun) / alone, 1e-7)
        others = partial(_in_parts, work, size=min(LARGEST, max(1, round(PART / each))), threads=threads)
        begun, together = clock(), 0
        for result in others(islice(items, alone)):
            yield result
            together += 1
        if together < alone:
            return
        faster = max((clock() - begun) / together, 1e-7)
        begun = clock()
        if faster < each:
            yield from others(islice(items, max(together, round(STRETCH / faster))))
            continue
        for result in map(work, islice(items, max(alone, round(STRETCH / each)))):
            yield result
            if clock() - begun > 2 * STRETCH:  # they have become slower
                break


def _in_parts(
    work: Callable[[Item], Result], items: Iterable[Item], *, size: int, threads: int | None
) -> Iterator[Result]:
    """``in_order``, so many items at once; no more of them wait than there would one by one, or a part a thread."""
    items, threads = iter(items), threads or _usual_threads()

    def several(part: Sequence[Item]) -> tuple[list[Result], Exception | None]:
        done: list[Result] = []
        try:
            for item in part:
                done.append(work(item))
        except Exception as error:  # raised where its item stands, after the results before it
            return done, error
        return done, None

    parts = iter(lambda: list(islice(items, size)), [])
    for results, error in in_order(several, parts, threads, ahead=max(threads, AHEAD * threads // size)):
        yield from results
        if error is not None:
            raise error


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None, ahead: int | None = None
) -> Iterator[Result]:
    """``work(item)`` for every item, in order, by a few threads that never run far ahead: memory stays flat.

    ``ahead`` is how many items are handed over before the first result is taken; None is ``AHEAD`` a thread.
    """
    threads = threads or _usual_threads()
    most = AHEAD * threads if ahead is None else ahead
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="workers") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _usual_threads() -> int:
    return min(MOST, max(1, round(usable_cores())))
