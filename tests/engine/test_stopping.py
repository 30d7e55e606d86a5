"""When a stage stops, and which epoch it keeps: patience, the metric that decides, and the time of stage and run."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from headstart.core.events import EpochDone, Notice
from headstart.engine import loop as loops
from headstart.measure.evaluation import Evaluation
from headstart.stages.base import Training


def settings(**own) -> Training:
    return Training(**{"epochs": 5, "lr": 1e-4, "batch_size": 24, "schedule": "constant", "warmup": 0.0, **own})


def answers(logits: np.ndarray) -> Evaluation:
    return Evaluation("val", np.arange(3), logits, np.arange(3), ("a", "b", "c"))


def of_loss(loss: float) -> Evaluation:
    """Three answers, all with this log-loss."""
    return answers(np.eye(3) * math.log(2 / math.expm1(loss)))


HESITANT = answers(np.eye(3) * 0.1)  # all right, by a hair: log-loss 1.03
ALL_BUT_ONE = answers(np.array([[6.0, 0, 0], [0, 6.0, 0], [0.1, 0, 0]]))  # two of three right: log-loss 0.38


def scripted(loop, found: list[Evaluation], recipe: Training, **own):
    """A loop that is judged by these, one an epoch."""
    training = loop(recipe, **own)
    script = iter(found)
    training.job.validate = lambda: next(script)
    return training


def test_patience_counts_the_epochs_since_the_best_one(loop):
    """One without improvement, a better one, then two without: it is the second two that end the stage."""
    found = [of_loss(loss) for loss in (1.0, 1.1, 0.9, 1.0, 1.1, 0.5)]
    training = scripted(loop, found, settings(epochs=6, patience=2))
    events = list(training.run())
    assert (training.state.epoch, training.state.best_epoch, training.state.waited) == (5, 2, 2)
    (told,) = [event.message for event in events if isinstance(event, Notice) and event.kind == "stopped-early"]
    assert told == "stopped after epoch 5: no improvement for 2 epochs"


@pytest.mark.parametrize(
    ("metric", "decides", "best"),
    [("auto", "log_loss", 1), ("auto", "accuracy", 0), ("accuracy", "log_loss", 0), ("log_loss", "accuracy", 1)],
)
def test_the_stages_own_metric_comes_before_what_decides_for_the_run(loop, metric, decides, best):
    training = scripted(loop, [HESITANT, ALL_BUT_ONE], settings(epochs=2, metric=metric), decides=decides)
    improved = [event.improved for event in training.run() if isinstance(event, EpochDone)]
    assert training.state.best_epoch == best
    assert improved == [True, best == 1]


def test_the_deadline_of_the_run_ends_a_stage_after_its_epoch(loop):
    over = loop(settings(), deadline=time.monotonic())
    told = [event.message for event in over.run() if isinstance(event, Notice)]
    assert over.state.epoch == 1
    assert told == ["stopped after epoch 1: the time is used up"]
    far = loop(settings(epochs=2), deadline=time.monotonic() + 1e6)
    list(far.run())
    assert far.state.epoch == 2


def test_a_resumed_stage_counts_the_time_before(loop, tmp_path, monkeypatch):
    monkeypatch.setattr(loops, "CHECKPOINT_SECONDS", -1.0)
    recipe = settings(time_limit=1e5)
    broken = loop(recipe, folder=tmp_path)
    broken.state.elapsed = 1e5 - 1e-3  # as of a session long ago
    for event in broken.run():
        if isinstance(event, EpochDone):
            break  # its checkpoint is that of the update, written a moment ago
    resumed = loop(recipe, folder=tmp_path)
    told = [event.message for event in resumed.run() if isinstance(event, Notice)]
    assert told[-1] == "stopped after epoch 1: the time is used up"
    assert resumed.state.elapsed >= 1e5
