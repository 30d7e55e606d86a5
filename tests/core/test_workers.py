"""Items are worked on in their order, in the way that is quicker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from headstart.core import workers


class Clock:
    """Time that passes as items say: by threads for a ``share`` of it."""

    def __init__(self, share: float = 0.5) -> None:
        self.now = 0.0
        self.share = share
        self.own: list[bool] = []  # whether it was the calling thread that worked on an item
        self._one = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> float:
        own = threading.current_thread() is threading.main_thread()
        with self._one:
            self.now += seconds * (1 if own else self.share)
            self.own.append(own)
        return seconds


@pytest.mark.parametrize("count", [0, 1, 2, 9, 17, 18, 500])
@pytest.mark.parametrize("seconds", [1e-4, 1.0])
@pytest.mark.parametrize("share", [0.5, 2.0])
def test_every_item_once_and_in_order(count: int, seconds: float, share: float) -> None:
    clock = Clock(share)
    items = [seconds + number * 1e-9 for number in range(count)]
    assert list(workers.in_turn(clock.work, items, threads=2, clock=clock)) == items


@pytest.mark.parametrize("seconds", [2e-4, 5e-3])
def test_the_quicker_way_does_nearly_all_of_it(seconds: float) -> None:
    for share, own in ((2.0, 0.9), (0.5, 0.1)):
        clock = Clock(share)
        list(workers.in_turn(clock.work, [3.0] + [seconds] * 4000, threads=2, clock=clock))
        assert abs(sum(clock.own) / 4001 - own) < 0.1, (share, seconds)


def test_what_becomes_slow_is_tried_again() -> None:
    """Icons first, then photographs, which are worth a thread."""

    class Growing(Clock):
        def work(self, seconds: float) -> float:
            self.share = 2.0 if seconds < 1e-3 else 0.5
            return super().work(seconds)

    clock = Growing()
    list(workers.in_turn(clock.work, [1e-4] * 30_000 + [1e-2] * 30_000, threads=2, clock=clock))
    assert sum(clock.own[:30_000]) > 27_000
    assert sum(clock.own[-29_700:]) < 2_000


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


@pytest.mark.parametrize("at", [0, 5, 12, 150])
def test_a_failure_is_raised_where_its_item_stands(at: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.0005)
        if item == at:
            raise ValueError(f"item {item}")
        return item

    results = workers.in_turn(work, range(200), threads=2)
    assert [next(results) for _ in range(at)] == list(range(at))
    with pytest.raises(ValueError, match=f"item {at}"):
        next(results)


def test_a_few_blanks_at_the_start_do_not_hold_threads_back() -> None:
    clock = Clock(0.25)
    list(workers.in_turn(clock.work, [1e-5] * 4 + [1e-2] * 3000, threads=2, clock=clock))
    assert sum(clock.own) < 100


def test_few_results_wait_where_quick_items_are_followed_by_slow_ones() -> None:
    clock, done, most = Clock(0.5), 0, 0
    one = threading.Lock()

    def work(seconds: float) -> float:
        nonlocal done
        with one:
            done += 1
        return clock.work(seconds)

    taken = 0
    for _ in workers.in_turn(work, [1e-4] * 2000 + [1e-2] * 2000, threads=2, clock=clock):
        taken += 1
        time.sleep(1e-5)  # who takes them is slower than who makes them
        most = max(most, done - taken)
    assert taken == 4000
    assert 4 <= most <= 6 * workers.LARGEST
