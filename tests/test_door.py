"""The public door: what ``headstart.fit`` and its neighbours hand to the workflows."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.core.errors import ConfigError
from headstart.terminal import Terminal


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the workflows were called with."""
    box = SimpleNamespace(shown=[])
    monkeypatch.setattr("headstart.results.show", lambda run, console: box.shown.append(run))
    for name in ("fit", "audit", "plan"):
        importlib.import_module(f"headstart.workflows.{name}")

        def workflow(experiment: Any, name: str = name, **given: Any) -> str:
            box.experiment, box.given = experiment, given
            return name

        monkeypatch.setattr(f"headstart.workflows.{name}.{name}", workflow)
    return box


def test_a_place_becomes_a_setting(called: SimpleNamespace, tmp_path: Path) -> None:
    assert headstart.fit("photos/", backbone="builtin/tiny", plan="full", lr=3e-4, label_smoothing=0.1) == "fit"
    experiment = called.experiment
    assert (experiment.data.source, experiment.backbone, experiment.plan) == ("photos/", "builtin/tiny", "full")
    assert experiment.training == {"lr": 3e-4, "label_smoothing": 0.1}
    assert called.given["data"] is None
    assert isinstance(called.given["on_event"], Terminal), "progress is shown unless events are wanted elsewhere"
    assert called.shown == ["fit"], "and what was found, as on the command line"
    assert headstart.fit(tmp_path) == "fit"
    assert called.experiment.data.source == str(tmp_path)


def test_data_as_values_are_handed_on_untouched(called: SimpleNamespace) -> None:
    rows = (np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1]))
    events: list[Any] = []
    assert headstart.fit(rows, on_event=events.append, resume=True) == "fit"
    assert called.shown == [], "who listens to the events shows what was found"
    assert called.given["data"] is rows
    assert called.given["resume"] is True
    assert called.given["on_event"] == events.append
    assert headstart.audit(rows) == "audit"
    assert called.given["data"] is rows
    assert headstart.plan(rows) == "plan"
    assert called.given["data"] is rows


def test_an_experiment_is_taken_as_it_is(called: SimpleNamespace) -> None:
    experiment = headstart.Experiment(plan="probe")
    assert headstart.plan(experiment) == "plan"
    assert called.experiment is experiment
    with pytest.raises(TypeError, match="not both"):
        headstart.fit(experiment, lr=1e-3)


def test_a_file_and_arguments(called: SimpleNamespace, tmp_path: Path) -> None:
    file = tmp_path / "pets.yaml"
    file.write_text("data: photos/\nplan: full\nseed: 1\n", encoding="utf-8")
    headstart.fit(config=file, seed=2)
    assert (called.experiment.data.source, called.experiment.seed) == ("photos/", 2)


def test_mistakes_are_told_before_anything_runs(called: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        headstart.fit("photos/", epoks=3)
    assert not hasattr(called, "experiment")
