"""Gates: better is kept, worse is reverted, a tie keeps the cheaper model, and losses count downwards."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.measure.evaluation import Evaluation
from headstart.stages import gates
from headstart.stages.base import Gate

CLASSES = ("a", "b")


def answers(right: int, n: int = 200) -> Evaluation:
    """The first ``right`` of ``n`` rows answered correctly."""
    labels = np.arange(n) % 2
    said = np.where(np.arange(n) < right, labels, 1 - labels)
    return Evaluation("val", np.arange(n), np.eye(2)[said] * 4, labels, CLASSES)


def test_the_first_stage_is_kept():
    assert gates.check(Gate(), answers(100), None).decision == "keep"


def test_a_clear_gain_is_kept_and_called_clear():
    verdict = gates.check(Gate(), answers(190), answers(150), name="probe")
    assert verdict.decision == "keep"
    assert "clearly better than probe" in verdict.reason
    assert verdict.difference.value == pytest.approx(0.2)


def test_a_gain_within_the_noise_is_kept_and_called_so():
    verdict = gates.check(Gate(), answers(151), answers(150), name="probe")
    assert verdict.decision == "keep"
    assert "within the noise" in verdict.reason


def test_a_tie_keeps_the_cheaper_model():
    verdict = gates.check(Gate(), answers(150), answers(150), name="probe")
    assert verdict.decision == "revert"
    assert "tie" in verdict.reason


@pytest.mark.parametrize(("on_fail", "decision"), [("revert", "revert"), ("stop", "stop"), ("warn", "keep")])
def test_a_worse_stage_does_what_on_fail_says(on_fail, decision):
    verdict = gates.check(Gate(on_fail=on_fail), answers(120), answers(180), name="probe")
    assert verdict.decision == decision
    assert "clearly worse" in verdict.reason


def test_min_gain_asks_for_more():
    assert gates.check(Gate(min_gain=0.1), answers(160), answers(150), name="probe").decision == "revert"
    assert gates.check(Gate(min_gain=0.1), answers(180), answers(150), name="probe").decision == "keep"


def test_a_loss_is_better_when_lower():
    sure, unsure = answers(190), answers(190)
    unsure = Evaluation("val", unsure.rows, unsure.logits / 8, unsure.labels, CLASSES)
    assert gates.check(Gate(), sure, unsure, metric="log_loss", name="probe").decision == "keep"
    assert gates.check(Gate(), unsure, sure, metric="log_loss", name="probe").decision == "revert"


def test_few_rows_are_said():
    assert "few" in gates.check(Gate(), answers(20, 30), answers(15, 30), name="probe").reason
    assert "few" not in gates.check(Gate(), answers(190), answers(150), name="probe").reason


def test_own_metrics_judge_too():
    def share_of_b(labels, probabilities):
        return float((probabilities.argmax(1) == 1).mean())

    everything_b = Evaluation("val", np.arange(200), np.tile([0.0, 4.0], (200, 1)), np.arange(200) % 2, CLASSES)
    verdict = gates.check(Gate(), everything_b, answers(200), metric=share_of_b, name="probe")
    assert verdict.decision == "keep"
    assert verdict.metric == "share_of_b"
