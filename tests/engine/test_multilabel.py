"""The invariants of stages where rows have several labels: start, learning, cache, resuming, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError
from headstart.core.events import Progress
from headstart.core.run import Run
from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine import baseline, features, loop
from headstart.engine.frontier import Frontiers
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples
from headstart.models.model import Model
from headstart.stages.methods import contrastive, probe, thaw
from headstart.workflows import preflight
from headstart.workflows.course import Course

CLASSES = ("dark", "red", "stripes")
SPEC = ImageSpec(size=(32, 32), resize=32)
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 8, "blocks": 1, "augment": "none", "views": 1}


def marked(n: int, split: str = "train", seed: int = 0) -> Examples:
    """Noisy pictures that are dark, red or striped, some of them all of it and some nothing."""
    rng = np.random.default_rng(seed)
    labels = np.array([[row & 1, row >> 1 & 1, row >> 2 & 1] for row in range(n)], dtype=np.uint8)
    items = []
    for dark, red, stripes in labels:
        value = rng.integers(90, 160, (32, 32, 3)) - 70 * dark
        value[:, :, 0] += 90 * red
        value[:, ::4] += 90 * stripes
        items.append(value.clip(0, 255).astype(np.uint8))
    rows = Rows(items, labels, tuple(f"picture {row}" for row in range(n)))
    return Examples(split, rows, Store.build(rows, SPEC), SPEC)


@pytest.fixture
def course(model: Callable[..., Model], tmp_path: Path) -> Callable[..., Course]:
    def make(
        folder: str = "run",
        *,
        rows: int = 24,
        budget: int = 10**9,
        emit: Callable[[Any], None] = lambda event: None,
        **head: Any,
    ) -> Course:
        net, runtime = model(**head), Runtime("cpu")
        net.task = "multilabel"
        frontiers = Frontiers(net, runtime, emit, 7, budget, None)
        sets = marked(rows), marked(16, "val", seed=1)
        return Course(Run(tmp_path / folder), runtime, net, *sets, frontiers, emit, 7, "mAP")

    return make


def tensors(course: Course) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in course.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_zero_head_starts_at_k_ln_2(course: Callable[..., Course], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    original = loop.Loop._update
    monkeypatch.setattr(loop.Loop, "_update", lambda self, batch: seen.append(original(self, batch)) or seen[-1])
    course(init="zero").take(0, thaw.Settings(**QUICK | {"batch_size": 24, "epochs": 1}))
    assert seen[0] == pytest.approx(3 * math.log(2), abs=1e-5)


def test_a_probe_tells_the_labels_apart(course: Callable[..., Course]) -> None:
    one = course()
    one.take(0, probe.Settings())
    assert one.incumbent is not None
    found = one.incumbent.evaluation
    assert found.metric("mAP").value > 0.9
    live = features.evaluate(one.model, one.val, one.runtime, batch_size=5)
    assert np.allclose(found.logits, live.logits, atol=1e-3, rtol=1e-3), "judged by other logits"


def test_a_balanced_probe_gives_a_rare_label_more_readily(course: Callable[..., Course]) -> None:
    """Of pictures that tell little, it answers as if half of the rows had the label; the plain one, as few as have."""
    told: dict[str, np.ndarray] = {}
    for weights in ("none", "balanced"):
        one = course(weights, rows=48)
        labels = one.train.rows.labels.copy()
        labels[:, 0] = np.arange(48) % 8 == 5
        one.train = replace(one.train, rows=replace(one.train.rows, labels=labels))
        one.take(0, probe.Settings(class_weights=weights, strengths=(100.0,)))
        assert one.incumbent is not None
        told[weights] = one.incumbent.evaluation.probabilities.mean(axis=0)
    assert told["none"][0] == pytest.approx(1 / 8, abs=0.05)
    assert told["balanced"][0] == pytest.approx(1 / 2, abs=0.05)
    assert told["balanced"][1:] == pytest.approx(told["none"][1:], abs=0.02)


def test_it_overfits_eight_rows(course: Callable[..., Course]) -> None:
    small = course(rows=8)
    steps = {"epochs": 25, "schedule": "constant", "warmup": 0.0, "lr": 1e-3, "gate": {"on_fail": "warn"}}
    small.take(0, thaw.Settings(**QUICK | steps))
    found = features.evaluate(small.model, small.train, small.runtime, batch_size=8)
    assert found.metric("subset_accuracy").value == 1.0


def test_cached_and_live_give_the_same_weights(course: Callable[..., Course]) -> None:
    cached, live = course("cached"), course("live", budget=0)
    for one in (cached, live):
        one.take(0, thaw.Settings(**QUICK))
    assert same(tensors(cached), tensors(live))


class Interrupted(BaseException):
    """As Ctrl-C."""


def test_an_interrupted_stage_ends_as_if_it_had_not_been(
    course: Callable[..., Course], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    stage = thaw.Settings(**QUICK, ema=0.9, mixup=0.2, label_smoothing=0.1, class_weights="balanced")
    whole = course("whole")
    whole.take(0, stage)

    def interrupt(event: Any) -> None:
        if isinstance(event, Progress) and event.task == "train" and event.done >= 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        course(emit=interrupt).take(0, stage)
    resumed, replayed = course(), course()
    resumed.take(0, stage)
    assert same(tensors(whole), tensors(resumed))
    replayed.take(0, stage)
    assert same(tensors(whole), tensors(replayed))
    assert whole.incumbent is not None
    assert replayed.incumbent is not None
    assert np.array_equal(whole.incumbent.evaluation.predicted, replayed.incumbent.evaluation.predicted)


def test_a_model_keeps_its_task_and_threshold(course: Callable[..., Course], tmp_path: Path) -> None:
    one = course()
    one.model.threshold = 0.3
    one.model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert (again.task, again.threshold, again.several) == ("multilabel", 0.3, True)


def test_baselines_answer_label_by_label() -> None:
    majority, pixels = baseline.baselines(marked(48), marked(16, "val", seed=1), CLASSES)
    assert np.abs(majority.evaluation.probabilities - 0.5).max() < 0.05, "every label is on half of the rows"
    assert pixels.evaluation.metric("mAP").value > 0.95
    for threshold, given in ((0.4, True), (0.6, False)):
        each, _ = baseline.baselines(marked(48), marked(16, "val", seed=1), CLASSES, threshold)
        for found in (each.evaluation, each.on(marked(8, "test"))):
            assert (found.predicted == given).all(), "from the threshold of the run on"


def test_what_does_not_fit_is_told_before_the_first_stage(course: Callable[..., Course]) -> None:
    one = course()
    stages = [thaw.Settings(sampler="balanced", metric="accuracy"), contrastive.Settings()]
    with pytest.raises(ConfigError) as caught:
        preflight.check(stages, one.model, one.train.rows.labels)
    told = " ".join(f"{problem.where} {problem.what}" for problem in caught.value.problems)
    for part in ("sampler", "cannot be drawn", "says nothing of rows with any number", "pairs are drawn by class"):
        assert part in told
    assert preflight.metric("auto", one.train.rows.labels) == "mAP"
    assert preflight.metric("auto", np.array([0, 1])) == "accuracy"
