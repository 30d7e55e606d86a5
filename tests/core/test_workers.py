"""Items are worked on in their order; threads come where items are worth it, and not before."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from headstart.core import workers


class Clock:
    """Time that passes as items say."""

    def __init__(self) -> None:
        self.now = 0.0
        self.threads: list[bool] = []

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> float:
        self.now += seconds
        self.threads.append(threading.current_thread() is not threading.main_thread())
        return seconds


@pytest.mark.parametrize("count", [0, 1, 2, 200])
@pytest.mark.parametrize("seconds", [1e-4, 1.0])
def test_every_item_once_and_in_order(count: int, seconds: float) -> None:
    clock = Clock()
    items = [seconds + number * 1e-9 for number in range(count)]
    assert list(workers.in_turn(clock.work, items, threads=2, clock=clock)) == items


def test_quick_items_stay_in_the_calling_thread() -> None:
    clock = Clock()
    list(workers.in_turn(clock.work, [3.0] + [0.9 * workers.QUICK] * 500, threads=2, clock=clock))
    assert clock.threads == [False] * 501, "the first, for which modules are loaded, says nothing"


def test_slow_items_go_to_threads_soon() -> None:
    clock = Clock()
    list(workers.in_turn(clock.work, [0.0] + [5 * workers.QUICK] * 50, threads=2, clock=clock))
    own = clock.threads.index(True)
    assert 10 <= own <= 20
    assert all(clock.threads[own:])


def test_quick_items_before_do_not_put_it_off() -> None:
    clock = Clock()
    list(workers.in_turn(clock.work, [0.0] * 1000 + [10 * workers.QUICK] * 20, threads=2, clock=clock))
    assert clock.threads.index(True) <= 1010


def test_threads_do_not_run_far_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = workers.in_order(lambda item: item, items(), 2)
    next(results)
    assert len(taken) <= 10
    results.close()


@pytest.mark.parametrize("at", [0, 5, 150])
def test_a_failure_is_raised_where_its_item_stands(at: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.002)
        if item == at:
            raise ValueError(f"item {item}")
        return item

    results = workers.in_turn(work, range(200), threads=2)
    assert [next(results) for _ in range(at)] == list(range(at))
    with pytest.raises(ValueError, match=f"item {at}"):
        next(results)
