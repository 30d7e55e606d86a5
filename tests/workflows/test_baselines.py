"""Which baseline the best stage does not beat: by the run's metric, in its own direction, and ties count as not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation
from headstart.workflows.baselines import RESULT, unbeaten

LABELS = np.arange(12) % 3


def answers(right: int, sure: float = 3.0) -> Evaluation:
    """So many of twelve rows right, each as ``sure`` of its answer."""
    said = np.where(np.arange(12) < right, LABELS, (LABELS + 1) % 3)
    return Evaluation("val", np.arange(12), sure * np.eye(3)[said], LABELS, ("a", "b", "c"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two baselines: one is right more often, and the other so unsure that its loss is lower than the first's."""
    found = Run(tmp_path / "run")
    for name, evaluation in {"pixels": answers(8, sure=6.0), "majority": answers(4, sure=0.1)}.items():
        evaluation.save(found.path / "baseline" / f"{name}.npz")
    found.write(RESULT, [{"name": "pixels"}, {"name": "majority"}])
    return found


@pytest.mark.parametrize(("right", "least"), [(3, "pixels"), (8, "pixels"), (9, None), (12, None)])
def test_the_best_baseline_has_to_be_beaten_and_a_tie_does_not_do(run: Run, right: int, least: str | None) -> None:
    assert unbeaten(run, answers(right), "accuracy") == least


@pytest.mark.parametrize(("sure", "least"), [(0.5, None), (0.1, "majority"), (6.0, "majority")])
def test_of_losses_the_lower_one_is_the_better(run: Run, sure: float, least: str | None) -> None:
    """Eight of twelve right: a little sure of it is better than not at all, and very sure of it worse."""
    model, unsure = answers(8 if sure != 0.1 else 4, sure), answers(4, sure=0.1)
    assert (model.losses.mean() < unsure.losses.mean()) == (least is None)
    assert unbeaten(run, model, "log_loss") == least


def test_who_makes_no_mistake_is_beaten_by_nobody(run: Run) -> None:
    answers(12).save(run.path / "baseline" / "pixels.npz")
    assert unbeaten(run, answers(12), "accuracy") is None
    assert unbeaten(run, answers(11), "accuracy") == "pixels"


def test_where_there_are_no_baselines_nothing_is_to_be_beaten(tmp_path: Path) -> None:
    assert unbeaten(Run(tmp_path), answers(0), "accuracy") is None
