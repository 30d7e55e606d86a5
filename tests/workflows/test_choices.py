"""The precision of a run: what is ruled out before a step is timed, and for which machine a choice is remembered."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from headstart.core.errors import ArtefactError
from headstart.core.events import Decision, Notice
from headstart.engine import precision
from headstart.engine.frontier import CHECKED
from headstart.models import inference
from headstart.models.backbone import Backbone
from headstart.workflows import choices

REMEMBERED = "measured by an earlier run on this machine"
PLAN = ["probe", {"thaw": {"epochs": 1, "batch_size": 16, "blocks": 1, "views": 1, "augment": "none"}}]


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))


def reason(fit: Any) -> str:
    (decision,) = [event for event in fit.said(Decision) if event.topic == "precision"]
    return str(decision.reason)


@pytest.mark.parametrize("ruled", [{"bf16": "a product is slow"}, {}])
def test_a_precision_that_is_ruled_out_takes_no_step(fit, pictures, monkeypatch, ruled):
    asked, steps = [], []
    autocast = precision.Precision.autocast
    monkeypatch.setattr(precision.Precision, "autocast", lambda self, on: steps.append(self.name) or autocast(self, on))
    monkeypatch.setattr(precision, "hopeless", lambda device: asked.append(device.type) or ruled)
    fit(pictures(36), PLAN, precision="auto", name="auto")
    assert ("a product is slow" in reason(fit)) == bool(ruled)
    assert {*steps} == ({"fp32"} if ruled else {"fp32", "bf16"})
    fit(pictures(36), PLAN, precision="fp32", name="fp32")
    assert asked == ["cpu"], "who asks for fp32 waits for no product in another"
    fit(pictures(36), PLAN, precision="bf16", name="bf16")
    warned = [event.message for event in fit.said(Notice) if (event.level, event.kind) == ("warning", "precision")]
    assert warned == (["precision=bf16 was asked for, and a product is slow"] if ruled else [])


def test_another_processor_chooses_for_itself(fit, pictures, monkeypatch):
    """Though the cache folder is shared, or came with the disk."""
    for features in (["avx2"], ["avx2", "amx_bf16"]):
        monkeypatch.setattr(choices, "processor", lambda features=features: ("a processor", features))
        fit(pictures(36), PLAN, precision="auto", name=features[-1])
        assert reason(fit) != REMEMBERED
    fit(pictures(36), PLAN, precision="auto", name="again")
    assert reason(fit) == REMEMBERED


@pytest.mark.parametrize("bound", [0.15, 0.0])
def test_a_probe_times_the_copies_that_give_its_features(fit, pictures, monkeypatch, bound):
    """And where no copy in bf16 is near enough, there is nothing to choose."""
    monkeypatch.setattr(choices, "FEW_ROWS", 0)
    monkeypatch.setitem(inference.TOLERANCE, torch.bfloat16, bound)
    monkeypatch.setattr(precision, "hopeless", lambda device: {})
    timed: list[tuple[torch.dtype, int]] = []
    features = Backbone.features

    def seen(self, inputs):
        timed.append((self.compute, len(inputs)))
        return features(self, inputs)

    def choose(step, **options):
        timed.clear()  # what checking the copies took
        found = original(step, **options)
        passes[:] = timed
        return found

    passes: list[tuple[torch.dtype, int]] = []
    original = precision.choose
    monkeypatch.setattr(precision, "choose", choose)
    monkeypatch.setattr(Backbone, "features", seen)
    fit(pictures(36), ["probe"], precision="auto")
    (decision,) = [event for event in fit.said(Decision) if event.topic == "precision"]
    if bound:
        assert "a feature pass is" in decision.reason or "nothing else is" in decision.reason
        assert {*decision.facts["seconds"]} == {"fp32, channels last", "bf16, channels last"}
        assert {(torch.float32, CHECKED), (torch.bfloat16, CHECKED)} <= {*passes}
    else:
        assert decision.choice == "fp32, channels last"
        assert "moves the features by" in decision.facts["failed"]["bf16, channels last"]
        assert "so fp32 was kept" in decision.reason
        fit(pictures(36), ["probe"], precision="auto", name="again")
        assert reason(fit) == REMEMBERED
        for name, rows, seed in (("rows", pictures(36, 3), 42), ("weights", pictures(36), 7)):
            fit(rows, ["probe"], precision="auto", name=name, seed=seed, pretrained=name == "rows")
            assert reason(fit) != REMEMBERED, "other weights or rows may be near enough"
        run = fit(pictures(36), ["probe"], precision="bf16", name="asked")
        (told,) = [event for event in fit.said(Decision) if event.topic == "feature pass"]
        assert (reason(fit), told.choice) == ("bf16 was asked for", "float32")
        assert "so fp32 was kept" in told.reason
        stored = run.read("choices.json")
        run.write("choices.json", {**stored, "precision": "fp16"})
        (run.path / "result.json").unlink()
        with pytest.raises(ArtefactError, match="not the choices of a run"):
            fit(pictures(36), ["probe"], precision="bf16", name="asked", resume=True)


@pytest.mark.parametrize(("rows", "views", "timed"), [(36, 1, False), (36, 2, True), (64, 1, True)])
def test_nothing_is_timed_for_few_rows(fit, pictures, monkeypatch, rows, views, timed):
    """No stopwatch decides what they are told to be where it could save nothing."""
    monkeypatch.setattr(choices, "FEW_ROWS", 52)
    monkeypatch.setattr(precision, "hopeless", lambda device: {})
    asked = []
    original = precision.choose
    monkeypatch.setattr(precision, "choose", lambda *given, **options: asked.append(1) or original(*given, **options))
    fit({"train": pictures(rows), "val": pictures(20, 1)}, [{"probe": {"views": views}}], precision="auto")
    assert bool(asked) == timed
    assert ("pass the network" in reason(fit)) != timed
