"""Which epoch of a stage a run keeps, and when it stops to wait for a better one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

RECIPE: dict[str, Any] = {"batch_size": 16, "blocks": 1, "augment": "none"}


def thaw(**own: Any) -> list[dict[str, Any]]:
    return [{"thaw": {**RECIPE, **own}}]


def test_patience_ends_a_stage_that_does_not_improve(fit, pictures):
    own = {"epochs": 6, "lr": 1e-9, "head_multiple": 1.0, "metric": "macro_f1", "patience": 2}
    (stage,) = fit(pictures(33), thaw(**own)).stages()
    assert (stage["epochs"], stage["best_epoch"]) == (3, 1)
    assert (stage["settings"]["metric"], stage["settings"]["patience"]) == ("macro_f1", 2)
    assert "stopped-early" in fit.kinds()


@pytest.mark.parametrize(
    ("metric", "own", "best"),
    [("auto", "auto", 2), ("accuracy", "auto", 1), ("auto", "accuracy", 1), ("accuracy", "log_loss", 2)],
)
def test_the_best_epoch_is_by_the_metric_that_was_asked_for_and_else_by_log_loss(
    fit, pictures, monkeypatch, metric, own, best
):
    """The first epoch is said to be right everywhere by a hair, the second all but once, and sure of it."""
    from headstart.engine import features

    script, evaluate = [], features.evaluate

    def scripted(*arguments: Any, **options: Any) -> Any:
        found = evaluate(*arguments, **options)
        right = np.eye(3, dtype=np.float32)[found.labels]
        script.append(right * 0.1 if not script else right * 6.0)
        script[-1][0] = right[0] * (0.1 if len(script) == 1 else -0.1)
        return replace(found, logits=script[-1])

    monkeypatch.setattr(features, "evaluate", scripted)
    rows = {"train": pictures(30), "val": pictures(12, 1)}
    (stage,) = fit(rows, thaw(epochs=2, metric=own), metric=metric).stages()
    assert stage["best_epoch"] == best
