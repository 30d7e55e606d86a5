"""Batches side by side: each by itself, in order, by a thread each, with the answers of one session."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from headstart.deploy import contract, folder, parallel
from headstart.deploy.parallel import SideBySide
from headstart.deploy.runtimes import onnxruntime


class Told:
    """A session that says what it was asked, and answers by the row and the size of its batch."""

    def __init__(self, at_once: int = 1) -> None:
        self.sizes: list[int] = []
        self.meeting = threading.Barrier(at_once)

    def __call__(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.meeting.wait(timeout=10)
        self.sizes.append(len(inputs))
        values = np.stack([inputs[:, 0], np.full(len(inputs), len(inputs))], axis=1).astype(np.float32)
        return values, values / 2


def rows(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("threads", "count", "parts"),
    [(2, 16, [4, 4, 4, 4]), (2, 3, [2, 1]), (2, 9, [3, 2, 2, 2]), (4, 6, [2, 2, 1, 1]), (16, 16, [1] * 16)],
)
def test_many_rows_are_answered_in_parts(threads: int, count: int, parts: list[int]) -> None:
    whole, single = Told(), Told(at_once=threads)  # the barrier opens where as many threads are at it
    logits, shares = SideBySide(whole, threads, lambda: single)(rows(count))
    assert logits[:, 0].tolist() == list(range(count)), "in order"
    assert logits[:, 1].tolist() == [size for size in parts for _ in range(size)]
    assert np.array_equal(shares, logits / 2)
    assert not whole.sizes


@pytest.mark.parametrize(("threads", "count"), [(1, 16), (2, 1), (4, 3)])
def test_few_rows_are_answered_by_all_threads(threads: int, count: int) -> None:
    def never() -> parallel.Session:
        raise AssertionError("the weights are held twice for nothing")

    whole = Told()
    SideBySide(whole, threads, never)(rows(count))
    assert whole.sizes == [count]


def test_batches_stay_by_themselves() -> None:
    batches = [rows(2), rows(1), rows(3), rows(1)]
    single = Told(at_once=2)
    found = parallel.each(SideBySide(Told(), 2, lambda: single), batches)
    assert [len(logits) for logits, _ in found] == [2, 1, 3, 1]
    assert sorted(single.sizes) == [1, 1, 2, 3]
    plain = Told()
    parallel.each(plain, batches)
    assert plain.sizes == [2, 1, 3, 1], "one after the other where the session knows nothing else"


def test_the_single_thread_is_opened_once() -> None:
    opened: list[Told] = []

    def single() -> Told:
        opened.append(Told(at_once=2))
        return opened[-1]

    session = SideBySide(Told(), 2, single)
    session(rows(4))
    session(rows(4))
    assert len(opened) == 1


def test_large_weights_are_held_once(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported / folder.FLOAT
    assert isinstance(onnxruntime.load(path, threads=2), SideBySide)
    monkeypatch.setattr(onnxruntime, "TWICE_AT_MOST", path.stat().st_size - 1)
    assert not isinstance(onnxruntime.load(path, threads=2), SideBySide)


def test_the_answers_are_those_of_one_session(exported: Path) -> None:
    path = exported / folder.FLOAT
    alone, beside = (onnxruntime.load(path, threads=threads) for threads in (1, 2))
    inputs = np.random.default_rng(0).integers(0, 256, (11, *contract.read(path).spec.input_shape), dtype=np.uint8)
    for mine, theirs in zip(beside(inputs), alone(inputs), strict=True):
        assert np.allclose(mine, theirs, atol=1e-5)
