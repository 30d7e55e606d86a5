"""Batches: an answer depends on nothing but its item, a poisoned item takes no other with it, and room is bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from headstart.data.modalities.base import DecodeError
from headstart.deploy.predictor import Predictor
from headstart.deploy.serving.batching import Batcher, Problem
from headstart.deploy.serving.limits import Limits, Refusal
from headstart.deploy.serving.metrics import Metrics

from . import stand


class Model:
    """Answers each number with its share of 1000; takes its time, and notes what it was given."""

    def __init__(self, seconds: float = 0.0, poison: Any = None) -> None:
        self.seconds, self.poison = seconds, poison
        self.batches: list[list[int]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()

    def prepare(self, item: Any) -> np.ndarray:
        if item == "unreadable":
            raise DecodeError("not-an-image", "holds no picture")
        if item == "surprise":
            raise ZeroDivisionError
        return np.array([item])

    def answer(self, values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(self.seconds)
        numbers = [int(value[0]) for value in values]
        self.batches.append(numbers)
        with self.lock:
            self.running -= 1
        if self.poison in numbers:
            raise RuntimeError("the kernel died")
        shares = np.array(numbers, np.float32)[:, None] / 1000
        shares = np.concatenate([shares, 1 - shares], axis=1)
        shares[np.array(numbers) == 666] = np.nan
        return shares, shares


def batched(model: Any, act: Any, **limits: Any) -> Any:
    async def run() -> Any:
        batcher = Batcher(model, Limits(**limits), Metrics())
        batcher.start()
        try:
            return await act(batcher)
        finally:
            await batcher.stop()

    return asyncio.run(run())


def test_a_poisoned_item_takes_no_other_with_it() -> None:
    model = Model(0.001, poison=500)

    async def act(batcher: Batcher) -> list[list[Any]]:
        return [
            await batcher.answer(
                [
                    *range(start, start + 3),
                    (500, 666, "unreadable", "surprise")[start % 4],
                    *range(start + 3, start + 7),
                ]
            )
            for start in range(0, 100)
        ]

    for start, answers in enumerate(batched(model, act)):
        bad = answers.pop(3)
        assert isinstance(bad, Problem)
        assert bad.status == (422 if start % 4 == 2 else 500)
        assert [round(1000 * float(row[0])) for row in answers] == list(range(start, start + 7))

    good, bad = Batcher(model, Limits(), Metrics())._answers([np.array([7]), np.array([500])])
    assert isinstance(good, np.ndarray)
    assert round(1000 * float(good[0])) == 7
    assert isinstance(bad, Problem)


def test_everyone_gets_their_own_answer_in_order() -> None:
    model = Model(0.002)

    async def act(batcher: Batcher) -> list[list[Any]]:
        return await asyncio.gather(*(batcher.answer([n, n + 1]) for n in range(0, 600, 2)))

    found = batched(model, act, queue=10_000)
    assert [round(1000 * float(row[0])) for answers in found for row in answers] == list(range(600))
    assert max(map(len, model.batches)) == 16, "what waits becomes one batch"
    assert model.most == 1
    assert model.batches[-1][-1] > 500, "first come, first served"


def test_nobody_waits_for_a_batch_to_fill() -> None:
    model = Model()

    async def act(batcher: Batcher) -> None:
        for number in range(5):
            await batcher.answer([number])

    batched(model, act)
    assert model.batches == [[number] for number in range(5)]


def test_a_full_queue_says_when_to_come_again() -> None:
    async def act(batcher: Batcher) -> str:
        waiting = [asyncio.create_task(batcher.answer([n])) for n in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await batcher.answer([9])
        assert batcher.held == 8
        await asyncio.gather(*waiting)
        await asyncio.sleep(0)
        assert batcher.held == 0
        assert len(await batcher.answer([9])) == 1
        return refused.value.headers["retry-after"]

    assert int(batched(Model(0.01), act, queue=8)) >= 1


def test_who_has_left_gets_no_turn() -> None:
    model = Model(0.05)

    async def act(batcher: Batcher) -> None:
        leaving = [asyncio.create_task(batcher.answer([n])) for n in range(500)]
        staying = asyncio.create_task(batcher.answer([999]))
        await asyncio.sleep(0.01)
        for each in leaving:
            each.cancel()
        assert round(1000 * float((await staying)[0][0])) == 999
        assert batcher.held <= 1

    batched(model, act, queue=1000)
    assert sum(map(len, model.batches)) <= 25, "at least 95 % were not computed"


def test_a_batch_is_bounded_by_what_padding_makes_of_it() -> None:
    class Long(Model):
        def prepare(self, item: Any) -> np.ndarray:
            return np.full(100 if item == 7 else 10, item)

    model = Long(0.02)

    async def run() -> None:
        batcher = Batcher(model, Limits(queue=100), Metrics(), cells=200)
        batcher.start()
        await asyncio.gather(*(batcher.answer([n]) for n in range(20)))
        await batcher.stop()

    asyncio.run(run())
    assert all(len(batch) * (100 if 7 in batch else 10) <= 200 for batch in model.batches)
    assert sum(map(len, model.batches)) == 20


def test_an_answer_of_the_server_is_that_of_the_item_alone(predictor: Predictor) -> None:
    contents = [stand.picture(n % 3, n) for n in range(60)]
    alone = [predictor.answer([predictor.prepare(content)])[1][0] for content in contents]

    async def act(batcher: Batcher) -> list[Any]:
        rng = np.random.default_rng(0)
        order = rng.integers(0, len(contents), 1000)
        cuts = np.sort(rng.choice(np.arange(1, 1000), 300, replace=False))
        parts = np.split(order, cuts)
        found = await asyncio.gather(*(batcher.answer([contents[n] for n in part]) for part in parts))
        return [(n, row) for part, rows in zip(parts, found, strict=True) for n, row in zip(part, rows, strict=True)]

    answers = batched(predictor, act, queue=2000)
    assert len(answers) == 1000
    assert max(float(np.abs(row - alone[n]).max()) for n, row in answers) <= 1e-5
