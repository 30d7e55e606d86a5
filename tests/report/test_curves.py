"""The curves of a run: which events count, what is best so far, and what is marked as kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from markupsafe import Markup

from headstart.core.run import Run
from headstart.report import charts, contents, curves
from headstart.report.charts import Line
from headstart.report.contents import Contents

Plots = list[tuple[Sequence[Line], dict[str, Any]]]


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> Plots:
    """The lines and options of every chart that is drawn."""
    drawn: Plots = []

    def plot(x: Any, y: Any, lines: Sequence[Line], **options: Any) -> Markup:
        drawn.append((lines, options))
        return Markup()

    monkeypatch.setattr(charts, "plot", plot)
    return drawn


def epoch(number: int, accuracy: float, loss: float) -> dict[str, Any]:
    scores = {"accuracy": accuracy, "log_loss": loss}
    return {"event": "EpochDone", "stage": 0, "epoch": number, "val_metrics": scores, "val_loss": loss, "seconds": 2.0}


def stage(index: int, decision: str, accuracy: float, loss: float) -> dict[str, Any]:
    scores = {"accuracy": {"value": accuracy}, "log_loss": {"value": loss}}
    for each in scores.values():
        each.update(low=each["value"], high=each["value"], n=9)
    verdict = {"decision": decision, "metric": "accuracy"}
    return {"index": index, "name": f"stage{index}", "metrics": {"val": scores}, "verdict": verdict, "seconds": 10.0}


@pytest.fixture
def run(make: Callable[..., Run]) -> Contents:
    """After three seconds of decoding a stage that is kept, its second epoch the best; one that is taken back."""
    found = contents.read(make(baseline=False))
    begun = [{"event": "Phase", "name": "decode", "seconds": 3.0}, {"event": "StageStarted", "stage": 0}]
    events = [*begun, epoch(1, 0.5, 0.9), epoch(2, 0.8, 0.4), epoch(3, 0.7, 0.6)]
    stages = [stage(0, "keep", 0.8, 0.4), stage(1, "revert", 0.9, 0.1)]
    return replace(found, events=events, stages=stages, best=stages[0], result={}, baselines=[], val=None, test=None)


def over_time(run: Contents, plots: Plots) -> tuple[list[float], list[float], list[str]]:
    """Seconds and scores of the chart over time, and the names of its marks."""
    drawn = curves.curves(run)
    place = next(place for place, curve in enumerate(drawn) if "over time" in curve.title)
    lines, options = plots[place]
    seconds, scores = zip(*lines[0].points, strict=True)
    return list(seconds), list(scores), [mark.label for mark in options["marks"]]


def test_the_best_so_far_never_gets_worse_and_a_stage_that_was_taken_back_is_none(run: Contents, plots: Plots) -> None:
    assert over_time(run, plots) == ([5.0, 7.0, 9.0, 13.0], [0.5, 0.8, 0.8, 0.8], ["stage0"])


def test_of_a_loss_the_best_is_the_least(run: Contents, plots: Plots) -> None:
    losses = replace(run, result={"metric": "log_loss"})
    assert over_time(losses, plots)[1] == [0.9, 0.4, 0.4, 0.4]


def test_an_epoch_that_is_repeated_after_an_interruption_replaces_the_first(run: Contents, plots: Plots) -> None:
    again = replace(run, events=[*run.events, epoch(1, 0.6, 0.8)])
    curves.curves(again)
    lines, _ = next((lines, told) for lines, told in plots if told["label"] == "Validation accuracy")
    assert list(lines[0].points) == [(1, 0.6), (2, 0.8), (3, 0.7)]


def test_a_stage_that_was_taken_back_is_faded(run: Contents, plots: Plots) -> None:
    taken_back = [{**run.stages[0], "verdict": {"decision": "revert"}}]
    for stages, faded in ((run.stages, False), (taken_back, True)):
        plots.clear()
        curves.curves(replace(run, stages=stages))
        assert [band.faded for band in plots[0][1]["bands"]] == [faded]
