"""What a probe must not pay for: libraries that it does not need, and questions that an earlier run has answered."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import headstart
from headstart.core.errors import BackboneError
from headstart.core.events import Decision, Notice, Phase, Progress, StageDone
from headstart.data.modalities.image import ImageSpec
from headstart.engine import normalisation
from headstart.engine.normalisation import Mismatch, candidates
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import Difference
from headstart.models import inference
from headstart.workflows import plan as laying

NEEDLESS = {
    *("torch._dynamo", "torch._inductor", "triton", "sympy", "torchvision", "timm", "transformers", "accelerate"),
    *("sklearn", "scipy", "pandas", "pyarrow", "datasets", "matplotlib", "onnx", "onnxruntime", "httpx", "soundfile"),
}
LOADED = "import sys; from headstart.cli import run; code = run(sys.argv[1:]); print(*sys.modules); sys.exit(code)"


def test_a_probe_loads_no_library_that_it_does_not_need(pictures: Callable[..., Any], tmp_path: Path) -> None:
    values, labels = pictures(36)
    for index, (value, label) in enumerate(zip(values, labels, strict=True)):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(folder / f"{index}.png")
    command = ["fit", str(tmp_path / "photos"), "--plan", "probe", "--backbone", "builtin/tiny", "image_size=32"]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command, "--output-dir", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        env={**os.environ, "HEADSTART_CACHE": str(tmp_path / "cache")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "torch" in loaded
    assert sorted(loaded & NEEDLESS) == []
    assert (tmp_path / "runs" / "photos" / "report.html").is_file()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many training rows each check of the normalisation was given; it finds fault."""
    calls: list[int] = []

    def check(backbone: Any, examples: Any) -> Mismatch:
        assert backbone.compute == torch.float32
        calls.append(len(examples))
        first, second = candidates((0.5,) * 3, (0.5,) * 3)[:2]
        difference = Difference(-1.0, -2.0, -0.5, 0.001, 24)
        return Mismatch(first, second, difference, (0.5, 0.9), "another one is better", "look it up")

    monkeypatch.setattr(normalisation, "check", check)
    return calls


def told(fit: Any) -> list[tuple[str, str]]:
    return [(each.message, each.remedy) for each in fit.said(Notice) if each.kind == "normalisation"]


def test_the_normalisation_is_checked_once_for_the_same_rows_and_network(
    fit: Any, pictures: Callable[..., Any], asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    data = {"train": pictures(30), "val": pictures(12, 1)}
    finding = [("another one is better", "look it up")]
    fit(data, normalisation_check=True, name="first")
    assert told(fit) == finding
    fit(data, normalisation_check=True, name="again")
    assert told(fit) == finding, "the warning is given by every run"
    assert asked == [30]
    assert not [each for each in fit.said(Decision) if each.topic == "feature pass"], "no copy was made for nothing"
    values, labels = data["train"]
    fit({**data, "train": (values, np.roll(labels, 1))}, normalisation_check=True, name="labels")
    fit({**data, "train": (255 - values, labels)}, normalisation_check=True, name="rows")
    fit(data, normalisation_check=True, name="weights", seed=7)
    assert asked == [30] * 4, "other labels, other rows or other weights are another question"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_feature_pass_is_told_once(
    fit: Any, pictures: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """The check, and features to judge by, are in fp32 always: of a run in fp32 one copy of the network serves all."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    made: list[str] = []
    for name in ("_exact", "_lowered"):
        make = getattr(inference.Copies, name)
        monkeypatch.setattr(inference.Copies, name, lambda *a, n=name, make=make: made.append(n) or make(*a))
    fit({"train": pictures(30), "val": pictures(12, 1)}, normalisation_check=True, precision=precision)
    assert sorted(made) == ["_exact", "_lowered"][: 1 + (precision == "bf16")]
    (told,) = [each for each in fit.said(Decision) if each.topic == "feature pass"]
    assert told.choice == {"fp32": "float32", "bf16": "bfloat16"}[precision]
    assert "normalisation" in [each.name for each in fit.said(Phase)]


def test_the_test_rows_of_a_probe_are_found_by_a_later_run(
    fit: Any, pictures: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are answered from features as the head was fitted on; where blocks have trained, by the network."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    data = {"train": pictures(30), "val": pictures(12, 1), "test": pictures(14, 2)}
    found = []
    for name in ("first", "again"):
        run = fit(data, ["probe"], name=name, precision="bf16")
        passed = {each.note for each in fit.said(Progress) if each.task == "features"}
        assert passed == ({"train", "val", "test"} if name == "first" else set())
        found.append(Evaluation.load(run.path / "predictions-test.npz"))
        assert run.test_reads == 1
    assert np.array_equal(found[0].logits, found[1].logits)
    again = headstart.evaluate(run, data=data["test"])
    calibrated = found[0].with_temperature(run.read("result.json")["temperature"])
    assert again.logits == pytest.approx(calibrated.logits, abs=1e-3)
    fit(data, ["probe", {"thaw": {**VIEWS, "blocks": 1, "gate": {"on_fail": "warn"}}}], name="trained")
    assert "test" not in {each.note for each in fit.said(Progress) if each.task == "features"}


VIEWS: dict[str, Any] = {"views": 2, "augment": "light", "epochs": 1}


class Restless(nn.Module):
    """A network that draws even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(32, 32), resize=32)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.conv(images), training=True)


@pytest.mark.parametrize(("plan", "proven"), [("probe", False), (["probe", {"thaw": {"blocks": 1, **VIEWS}}], True)])
def test_blocks_are_proven_where_a_stage_may_thaw_them(
    fit: Any, pictures: Callable[..., Any], plan: Any, proven: bool
) -> None:
    """That a network answers alike each time is seen in any case."""
    run = fit(pictures(36), plan)
    assert [each.topic for each in fit.said(Decision)].count("blocks") == proven
    assert (run.path / "report.html").is_file()
    assert headstart.load(run).predict([pictures(1)[0][0]])
    with pytest.raises(BackboneError, match="answers differently each time"):
        fit(pictures(36), plan, backbone=Restless(), name="restless")


DEEPER: list[Any] = [
    "probe",
    *(
        {"thaw": {**VIEWS, "name": name, "blocks": blocks, "gate": {"on_fail": fail}}}
        for name, blocks, fail in (("first", 1, "warn"), ("second", 2, "revert"), ("third", 3, "warn"))
    ),
]


def passed(fit: Any) -> list[tuple[str, int]]:
    """The passes through frozen blocks: of which split, and how many rows."""
    told = [each for each in fit.said(Progress) if each.task == "frozen blocks" and each.done == each.total]
    return [(each.note, each.total) for each in told]


def test_the_frozen_blocks_are_passed_once_for_all_stages(fit: Any, pictures: Callable[..., Any]) -> None:
    rows = {"train": pictures(36), "val": pictures(18, 1)}
    whole = fit(rows, DEEPER, force=True)
    assert passed(fit) == [("train", 36), ("train", 36), ("val", 18)]
    told = [each.reason for each in fit.said(Decision) if each.topic == "frontier cache"]
    assert ["recorded with an earlier stage's" in each for each in told] == [False, True, True]

    def stop(event: Any) -> None:
        if isinstance(event, StageDone) and event.name == "first":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(rows, DEEPER, force=True, listen=stop, name="again")
    resumed = fit(rows, DEEPER, force=True, resume=True, name="again")
    assert passed(fit) == [("train", 36), ("train", 36), ("val", 18)], "what was held is gone: recorded again"
    assert fit.same(fit.weights(whole), fit.weights(resumed))


def test_stages_that_change_the_frozen_blocks_end_what_can_be_recorded_ahead(
    fit: Any, pictures: Callable[..., Any]
) -> None:
    plan = [DEEPER[1], {"scratch": {"epochs": 1, "gate": {"on_fail": "warn"}}}, DEEPER[2]]
    fit({"train": pictures(36), "val": pictures(18, 1)}, plan, force=True)
    assert passed(fit) == [("train", 36), ("train", 36), ("val", 18)] * 2


def test_a_plan_charges_the_frozen_blocks_once(pictures: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laying, "_forward_seconds", lambda model, inputs, frontier: 1 - frontier / 10)
    rows = {"train": pictures(36), "val": pictures(18, 1)}
    options: dict[str, Any] = {"backbone": "builtin/tiny", "image_size": 32, "force": True, "device": "cpu"}
    other = {"thaw": {**VIEWS, "name": "other", "blocks": 3, "views": 3}}
    told = headstart.plan(rows, plan=[*DEEPER, other], precision="fp32", **options)
    kept = {"first": 2 * 36 + 18, "second": 0, "third": 0, "other": 3 * 36 + 18}  # rows that pass for this stage
    for stage in told.stages[1:]:
        above = 1 - stage.frozen_blocks / 10
        assert stage.cached
        assert stage.seconds == pytest.approx(kept[stage.title] * (1 - above) + 36 * 3 * above + 18 * above)
