"""The verdict: every rule by hand, and the clock that judges in turns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.deploy import timing, verdict
from headstart.deploy.timing import Timed
from headstart.deploy.verdict import Speed
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import paired

CLASSES = ("a", "b", "c")


def answers(n: int = 400, wrong: int = 20, seed: int = 0) -> Evaluation:
    """``wrong`` rows of ``n`` get another class than theirs."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    said = np.where(np.arange(n) < wrong, (labels + 1) % 3, labels)
    logits = rng.normal(0, 0.1, (n, 3)) + 4 * np.eye(3)[said]
    return Evaluation("val", np.arange(n), logits, labels, CLASSES)


def changed(found: Evaluation, rows: np.ndarray) -> Evaluation:
    """The same with other decisions on ``rows``."""
    logits = found.logits.copy()
    logits[rows] = logits[rows][:, [1, 2, 0]]
    return replace(found, logits=logits)


def speed(one: float = 1.0, many: float = 8.0) -> Speed:
    return Speed(*(Timed(ms, 2 * ms, (ms, ms, ms), 9) for ms in (one, many)))


def judged(found: Evaluation, **own: Any) -> verdict.Judged:
    names = {"name": "x", "file": "model.int8.onnx", "runtime": "onnxruntime", "precision": "fp32", "how": "h"}
    given = {
        "size": 1,
        "gap": 0.0,
        "batch_gap": 0.0,
        "exact": False,
        "speed": speed(),
        "plain": speed(),
        **names,
        **own,
    }
    return verdict.judge(answers(), found, **given)


def test_the_same_answers_are_accepted() -> None:
    found = judged(answers(), exact=True)
    assert found.accepted
    assert found.agreement.value == 1
    assert found.recall_changes == ()
    assert found.times_as_long == 1


def test_a_loss_beyond_the_tolerance_is_refused() -> None:
    two, three = (judged(changed(answers(), np.arange(300, 300 + count))) for count in (2, 3))
    assert two.accepted, "2 of 400 are half a point"
    assert three.fault == "metric"
    assert "0.75 points" in three.refused
    difference = paired(changed(answers(), np.arange(300, 303)).correct, answers().correct)
    assert (three.difference.low, three.difference.high) == (difference.low, difference.high)
    assert three.agreement.value == pytest.approx(397 / 400)
    assert dict(three.recall_changes)["a"] == pytest.approx(-1 / 134)


def test_few_rows_are_said() -> None:
    assert judged(answers()).too_few, "400 rows cannot exclude a loss of half a point"
    many = answers(20_000)
    fine = verdict.judge(
        many,
        many,
        speed(),
        speed(),
        name="x",
        file="f",
        runtime="r",
        precision="p",
        how="",
        size=1,
        gap=0.0,
        batch_gap=0.0,
        exact=False,
    )
    assert not fine.too_few


def test_what_is_slower_is_refused() -> None:
    assert judged(answers(), speed=speed(1.04, 8.3)).accepted
    slow = judged(answers(), speed=speed(1.2, 9.0))
    assert slow.fault == "time"
    assert slow.times_as_long == pytest.approx(np.sqrt(1.2 * 9 / 8))
    assert judged(answers(), speed=speed(0.5, 12.0)).accepted, "half the time alone makes up for a slower batch"


def test_an_exact_file_has_to_have_the_logits_of_torch() -> None:
    nudged = replace(answers(), logits=answers().logits + np.float32(0.01))
    assert judged(nudged, exact=True).fault == "parity"
    assert judged(answers(), exact=True, gap=0.1).fault == "parity"
    assert judged(nudged).accepted, "in eight bits logits may differ where decisions do not"


def test_a_network_that_shows_padding_is_held_to_torch_in_the_batches_that_torch_had() -> None:
    alone = replace(answers(), logits=answers().logits + np.float32(0.01))
    found = judged(alone, exact=True, together=answers(), batch_gap=0.002)
    assert found.accepted
    assert not found.batches
    assert found.as_json()["batches"] is False
    assert judged(alone, exact=True, together=alone, batch_gap=0.002).fault == "parity"


def test_a_decision_that_changed_between_two_nearly_equal_logits_is_told() -> None:
    logits = np.array(answers().logits)
    logits[7] = [1.0, 1.0 + 1e-6, 0.0]
    reference, found = replace(answers(), logits=logits), replace(answers(), logits=logits[:, [0, 1, 2]])
    other = np.array(found.logits)
    other[7] = [1.0 + 1e-6, 1.0, 0.0]
    names = {"name": "x", "file": "f", "runtime": "r", "precision": "fp32", "how": "", "size": 1}
    names |= {"gap": 0.0, "batch_gap": 0.0}
    both = verdict.judge(reference, replace(found, logits=other), speed(), speed(), exact=True, **names)
    assert "1 of 400 decisions" in both.refused


def test_the_quickest_accepted_comes_first() -> None:
    found = [
        replace(judged(answers(), speed=speed(ms, 8 * ms)), name=name)
        for name, ms in (("slow", 1.0), ("quick", 0.3), ("wrong", 0.1))
    ]
    found[2] = replace(found[2], fault="metric")
    assert verdict.order(found) == ["quick", "slow"]


def test_a_threshold_keeps_the_wanted_precision() -> None:
    confidence = np.array([0.99, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.55])
    right = np.array([1, 1, 1, 0, 1, 1, 0, 0], bool)
    labels = np.where(right, 0, 1)
    logits = np.stack([np.log(confidence), np.log(1 - confidence)], axis=1)
    found = Evaluation("val", np.arange(8), logits, labels, ("a", "b"))
    at = verdict.threshold(found, 0.8)
    assert at is not None
    assert at.value == pytest.approx(0.65), "halfway to the next"
    assert at.precision.value == pytest.approx(5 / 6)
    assert at.coverage == 6 / 8
    strict = verdict.threshold(found, 1.0)
    assert strict is not None
    every = verdict.threshold(replace(found, labels=np.zeros(8, int)), 1.0)
    assert every is not None
    assert (every.coverage, every.value) == (1.0, pytest.approx(0.55, rel=2e-4)), "just below the least sure"
    assert strict.value == pytest.approx(0.875)
    assert verdict.threshold(replace(found, labels=np.ones(8, int)), 0.9) is None


def test_rows_of_equal_confidence_are_answered_together() -> None:
    logits = np.tile([1.0, 0.0], (4, 1))
    found = Evaluation("val", np.arange(4), logits, np.array([0, 0, 1, 1]), ("a", "b"))
    assert verdict.threshold(found, 0.9) is None, "the first two are right, but nothing tells them from the others"


class Clock:
    """Time that passes only while work is done; from some moment on the machine is ten times slower."""

    def __init__(self, busy_after: float) -> None:
        self.now, self.busy_after = 0.0, busy_after

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds * (10 if self.now > self.busy_after else 1)


def test_a_machine_that_becomes_busy_slows_all_candidates_alike() -> None:
    clock = Clock(busy_after=1.0)
    calls = {"a": lambda: clock.work(0.01), "b": lambda: clock.work(0.02)}
    found = timing.interleaved(calls, rounds=9, seconds=2.0, clock=clock)
    assert found["b"].times_as_long(found["a"]) == pytest.approx(2.0)
    assert found["a"].rounds_ms[0] == pytest.approx(10)
    assert max(found["a"].rounds_ms) == pytest.approx(100)


def test_one_after_the_other_would_not_do() -> None:
    clock = Clock(busy_after=1.0)
    a = timing.interleaved({"a": lambda: clock.work(0.01)}, rounds=9, seconds=1.5, clock=clock)["a"]
    b = timing.interleaved({"b": lambda: clock.work(0.02)}, rounds=9, seconds=1.5, clock=clock)["b"]
    assert b.times_as_long(a) > 3
