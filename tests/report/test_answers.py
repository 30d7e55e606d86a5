"""What the report tells of answers: whose rows, shares of what, and which way the temperature works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation
from headstart.report import answers, contents
from headstart.report.contents import Contents

# of three ants two are right, of five bees one: four are taken for ants
LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1])
PREDICTED = np.array([0, 0, 1, 0, 0, 1, 0, 0])
SURE = np.array([1.0, 2.0, 9.0, 1.0, 1.5, 2.0, 8.0, 2.5])


@pytest.fixture
def told() -> Evaluation:
    """Rows 10, 12, 14 … of a split, in no order."""
    logits = np.zeros((8, 2), np.float32)
    logits[np.arange(8), PREDICTED] = SURE
    order = np.array([3, 0, 7, 2, 5, 1, 6, 4])
    return Evaluation("test", (10 + 2 * np.arange(8))[order], logits[order], LABELS[order], ("ant", "bee"))


@pytest.fixture
def found(make: Callable[..., Run]) -> Contents:
    names = [f"file{row}.jpg" for row in range(40)]
    return replace(contents.read(make()), rows={"test": names}, previews={})


def test_a_cell_is_shaded_by_its_share_of_the_row(told: Evaluation) -> None:
    assert answers.matrix(told).cells == ((("2", "hit-7"), ("1", "miss-4")), (("4", "miss-8"), ("1", "hit-2")))


def test_the_worst_answers_are_named_by_their_rows(told: Evaluation, found: Contents) -> None:
    first, second = answers.worst(found, told, limit=2)
    assert (first.name, first.label, first.predicted, first.correct) == ("file14.jpg", "ant", "bee", False)
    assert (second.name, second.label, second.predicted) == ("file22.jpg", "bee", "ant")
    assert first.confidence == "100% sure · "
    short = replace(found, rows={"test": ["file0.jpg"]})
    assert answers.worst(short, told, limit=1)[0].name == "row 14"


def test_mistakes_are_counted_of_the_rows_of_their_class(told: Evaluation, found: Contents) -> None:
    pairs = answers.pairs(found, told)
    assert [(each.label, each.predicted, each.count, each.total) for each in pairs] == [
        ("bee", "ant", 4, 5),
        ("ant", "bee", 1, 3),
    ]


def test_a_temperature_above_one_makes_answers_less_sure(told: Evaluation, found: Contents) -> None:
    raw, cooled = answers.calibration(replace(found, result={"temperature": 4.0}), told).diagrams
    assert cooled.title == "with temperature 4.00"
    right = np.where(LABELS == PREDICTED, 1, -1)
    losses = [float(np.log1p(np.exp(-right * SURE / temperature)).mean()) for temperature in (1.0, 4.0)]
    assert (raw.log_loss, cooled.log_loss) == tuple(f"{loss:.3f}" for loss in losses)


def test_a_temperature_that_was_fitted_on_the_rows_shown_is_called_optimistic(
    told: Evaluation, found: Contents
) -> None:
    fitted = replace(found, result={"temperature": 4.0})
    assert "optimistic" not in answers.calibration(fitted, told).note
    assert "optimistic" in answers.calibration(fitted, replace(told, split="val")).note
    assert "optimistic" not in answers.calibration(replace(found, result={}), replace(told, split="val")).note
    assert len(answers.calibration(replace(found, result={}), told).diagrams) == 1
