"""What holds for every method in ``stages/methods``: each is found by its file and put through the same checks.

The checks are functions, so that planted faults can show that each of them would notice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core import registry
from headstart.core.errors import TrainingError
from headstart.core.events import Progress
from headstart.core.run import Run
from headstart.engine import features, groups, loop
from headstart.engine.cache import FrontierCache
from headstart.engine.frontier import Frontiers
from headstart.engine.loop import Loop
from headstart.engine.runtime import Runtime
from headstart.models.model import Model
from headstart.stages.base import Stage, Training
from headstart.stages.learner import Learner
from headstart.workflows.course import Course

# what prepares a backbone learns no classes: its invariants stand in workflows/test_pretraining.py
METHODS = [
    name
    for name in registry.names("headstart.stages.methods")
    if not registry.find("headstart.stages.methods", name).Settings().prepares
]
TRAINED = [name for name in METHODS if issubclass(registry.find("headstart.stages.methods", name).Settings, Training)]
# these train the head by the loss of classes; the others solve it
CLASSIFYING = [name for name in TRAINED if not registry.find("headstart.stages.methods", name).Settings().solves]
REDRAWN = {"scratch"}  # these start from new weights, whatever came before
ROWS, CLASSES = 24, 3

EASY = {"epochs": 2, "batch_size": 8, "blocks": 1, "augment": "none", "views": 1, "pairs": 2}
EASY["gate"] = {"on_fail": "warn"}


def settings(method: str, **own: Any) -> Stage:
    """Settings of a method; those that it does not have are left out."""
    kind = registry.find("headstart.stages.methods", method).Settings
    known = {item.name for item in fields(kind) if item.init}
    return kind(**{key: value for key, value in {**EASY, **own}.items() if key in known})


@pytest.fixture
def course(examples, model, tmp_path) -> Callable[..., Course]:
    """A course over toys: ``course(rows=8, budget=0)``; with budget 0 nothing is cached."""

    def make(
        net: Model | None = None,
        *,
        rows: int = ROWS,
        budget: int = 10**9,
        folder: Path | None = None,
        emit: Callable[[Any], None] = lambda event: None,
    ) -> Course:
        net, runtime = net or model(), Runtime("cpu")
        run = Run(folder or tmp_path / f"run-{np.random.default_rng().integers(2**60)}")
        frontiers = Frontiers(net, runtime, emit, 7, budget, None)
        return Course(run, runtime, net, examples(rows), examples(12, "val", seed=1), frontiers, emit, 7, "accuracy")

    return make


def tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train_loss(course: Course) -> float:
    """Mean loss on the training rows, through the whole network."""
    return float(features.evaluate(course.model, course.train, course.runtime, batch_size=32).losses.mean())


@contextmanager
def watching() -> Iterator[list[Any]]:
    """The loops that run meanwhile, and the loss of their first update."""
    seen: list[Any] = []
    original = Loop._update

    def update(self: Loop, batch: Any) -> float:
        loss = original(self, batch)
        if not seen or seen[-1][0] is not self:
            seen.append((self, loss))
        return loss

    Loop._update = update  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Loop._update = original  # type: ignore[method-assign]


# --- the checks -------------------------------------------------------------------------------------------------------


def frozen_stays(course: Course, stage: Stage) -> None:
    """Parameters without gradient, and buffers where nothing trains, are what they were, bit for bit."""
    before = tensors(course.model)
    course.take(0, stage)
    model = course.model
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved & trains, "nothing was learned"
    owners = {name.rpartition(".")[0] for name in trains}
    allowed = {name for name in before if name in trains or name.rpartition(".")[0] in owners}
    assert moved <= allowed, f"frozen, yet moved: {sorted(moved - allowed)}"


def cached_equals_live(course: Callable[..., Course], model: Callable[..., Model], stage: Stage) -> None:
    """Training from the cached frontier gives the weights that training through the whole network gives."""
    cached, live = course(model()), course(model(), budget=0)
    cached.take(0, stage)
    live.take(0, stage)
    assert same(tensors(cached.model), tensors(live.model)), "the cache gives other weights"
    told = cached.run.stages()[0]["cache"], live.run.stages()[0]["cache"]
    assert (told[0]["used"], told[1]["used"]) == (cached.model.frozen_prefix > 0, False)


def evaluation_is_live(course: Course, index: int, stage: Stage) -> None:
    """What the stage was judged by is what the model answers through the whole network."""
    course.take(index, stage)
    assert course.incumbent is not None
    live = features.evaluate(course.model, course.val, course.runtime, batch_size=5)
    assert np.allclose(course.incumbent.evaluation.logits, live.logits, atol=1e-3, rtol=1e-3), "judged by other logits"


# --- every method -----------------------------------------------------------------------------------------------------


def test_every_method_is_walked():
    assert set(METHODS) >= {"probe", "thaw", "scratch"}
    assert set(TRAINED) == set(METHODS) - {"probe"}


@pytest.mark.parametrize("method", CLASSIFYING)
def test_the_first_loss_is_what_theory_says(course, model, method):
    """ln K from a zero head; about ln K where all is drawn anew, also after a stage that had learned."""
    whole = {"batch_size": ROWS, "epochs": 1}
    with watching() as seen:
        course(model(init="zero")).take(0, settings(method, **whole))
    assert seen[0][1] == pytest.approx(math.log(CLASSES), abs=0.5 if method in REDRAWN else 1e-5)

    after = course()
    after.take(0, settings("probe"))
    handed_over = train_loss(after)
    assert handed_over < 0.1
    with watching() as seen:
        after.take(1, settings(method, **whole))
    if method in REDRAWN:
        assert seen[0][1] == pytest.approx(math.log(CLASSES), abs=0.5)
    else:
        assert seen[0][1] == pytest.approx(handed_over, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_it_overfits_eight_rows(course, method):
    steps = {"epochs": 20, "schedule": "constant", "warmup": 0.0}
    small = course(rows=8)
    small.take(0, settings(method, **steps, metric="log_loss", lr=1e-3))
    found = features.evaluate(small.model, small.train, small.runtime, batch_size=8)
    assert found.metric("accuracy").value == 1.0
    assert found.losses.mean() < 0.3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bn", ["frozen_eval", "eval"])
def test_frozen_things_do_not_move(course, method, bn):
    frozen_stays(course(), settings(method, bn=bn))


@pytest.mark.parametrize("method", METHODS)
def test_bn_that_may_move_moves_only_statistics(course, method):
    """The policy ``train`` lets the statistics of frozen BatchNorm move, and no parameter."""
    one = course()
    before = tensors(one.model)
    one.take(0, settings(method, bn="train"))
    trains = {name for name, parameter in one.model.named_parameters() if parameter.requires_grad}
    moved = {name for name, value in one.model.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert {name.rpartition(".")[2] for name in moved - trains} <= statistics


@pytest.mark.parametrize("method", CLASSIFYING)
def test_the_optimizer_holds_what_trains_and_nothing_else(course, method):
    one = course()
    with watching() as seen:
        one.take(0, settings(method))
    held = [id(parameter) for group in seen[0][0].optimizer.param_groups for parameter in group["params"]]
    trains = [id(parameter) for parameter in seen[0][0].job.learner.parameters() if parameter.requires_grad]
    assert sorted(held) == sorted(trains)
    assert len(set(held)) == len(held)


@pytest.mark.parametrize("method", CLASSIFYING)
@pytest.mark.parametrize("blocks", [1, 2])
def test_cached_and_live_give_the_same_weights(course, model, method, blocks):
    cached_equals_live(course, model, settings(method, blocks=blocks))


@pytest.mark.parametrize("method", METHODS)
def test_a_stage_is_judged_by_what_its_model_answers(course, method):
    evaluation_is_live(course(), 0, settings(method))


def test_a_probe_after_training_sees_the_new_backbone(course):
    one = course()
    one.take(0, settings("probe"))
    one.take(1, settings("thaw", blocks="all", lr=1e-2))
    evaluation_is_live(one, 2, settings("probe", name="again"))


class Interrupted(BaseException):
    """As Ctrl-C."""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_an_interrupted_stage_ends_as_if_it_had_not_been(course, method, after, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    stage = settings(method, ema=0.9, mixup=0.2, epochs=2)
    whole = course()
    whole.take(0, stage)

    def interrupt(event: Any) -> None:
        if isinstance(event, Progress) and event.task in ("train", "features") and event.done >= after:
            raise Interrupted

    with pytest.raises(Interrupted):
        course(folder=tmp_path / "run", emit=interrupt).take(0, stage)
    resumed = course(folder=tmp_path / "run")
    resumed.take(0, stage)
    assert same(tensors(whole.model), tensors(resumed.model))
    replayed = course(folder=tmp_path / "run")
    replayed.take(0, stage)
    assert same(tensors(whole.model), tensors(replayed.model))
    assert np.array_equal(whole.incumbent.evaluation.logits, replayed.incumbent.evaluation.logits)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_left_is_a_plain_model(course, method, tmp_path):
    one = course()
    before = [(name, type(part)) for name, part in one.model.named_modules()]
    names = list(one.model.state_dict())
    one.take(0, settings(method, ema=0.9, mixup=0.2))
    model = one.model.eval()
    assert type(model) is Model
    assert [(name, type(part)) for name, part in model.named_modules()] == before
    assert list(model.state_dict()) == names
    hooks = [part for part in model.modules() if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks]
    assert not hooks
    inputs = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    model.save(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(Model.load(tmp_path / "model").eval()(inputs), model(inputs))


@pytest.mark.parametrize("method", CLASSIFYING)
def test_a_stage_ends_with_what_its_learner_finishes(course, method, monkeypatch):
    finished = []
    original = Learner.finish
    monkeypatch.setattr(Learner, "finish", lambda self: finished.append(original(self)) or finished[-1])
    one = course()
    one.take(0, settings(method))
    assert finished == [one.model]


# --- planted faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["buffer", "weight"])
@pytest.mark.parametrize("method", sorted(set(CLASSIFYING) - REDRAWN))
def test_a_frozen_thing_that_moves_is_caught(course, model, method, what):
    net = model()
    stem = net.backbone.module.stem

    def nudge(part: Any, inputs: Any) -> None:
        with torch.no_grad():
            value = stem[1].running_var if what == "buffer" else stem[0].weight
            value.view(-1)[0].add_(1e-6)

    net.head.register_forward_pre_hook(nudge)
    one = course(net)
    with pytest.raises(TrainingError, match="frozen weights or buffers have moved"):
        one.take(0, settings(method))
    assert one.run.stages() == [], "the stage counts as done"


@pytest.mark.parametrize("method", sorted(set(TRAINED) - REDRAWN))
def test_a_frozen_parameter_smuggled_into_the_optimizer_is_caught(course, method, monkeypatch):
    original = groups.groups

    def smuggling(named: Any, *others: Any, **own: Any) -> Any:
        named = list(named)
        chosen = original(named, *others, **own)
        name, parameter = named[0]
        assert not parameter.requires_grad
        chosen[0]["params"].append(parameter)
        chosen[0]["names"].append(name)
        return chosen

    monkeypatch.setattr(groups, "groups", smuggling)
    with pytest.raises(TrainingError, match="is frozen, yet in the optimizer"):
        course().take(0, settings(method))


@pytest.mark.parametrize("fault", ["rows swapped", "one value off"])
def test_a_wrong_cache_would_be_noticed(course, model, fault, monkeypatch):
    original = FrontierCache.take

    def wrong(self: FrontierCache, view: int, rows: np.ndarray, device: Any = "cpu") -> Any:
        if fault == "rows swapped":
            return original(self, view, rows[::-1].copy(), device)
        value = original(self, view, rows, device)
        value[0] += 1e-4
        return value

    monkeypatch.setattr(FrontierCache, "take", wrong)
    with pytest.raises(AssertionError, match="the cache gives other weights"):
        cached_equals_live(course, model, settings("thaw"))


def test_features_of_a_backbone_that_is_no_more_would_be_noticed(course, monkeypatch):
    monkeypatch.setattr(Frontiers, "renew", lambda self: None)
    one = course()
    one.take(0, settings("probe"))
    one.take(1, settings("thaw", blocks="all", lr=1e-2))
    with pytest.raises(AssertionError, match="judged by other logits"):
        evaluation_is_live(one, 2, settings("probe", name="again"))


def test_a_model_that_learns_behind_its_back_would_be_noticed(course, monkeypatch):
    """The check on frozen things does not rest on the check inside the product."""
    from headstart.models.model import Model as Kind

    one = course()
    one.model.head.register_forward_pre_hook(lambda part, inputs: _nudged(one.model))
    monkeypatch.setattr(Kind, "frozen_hash", lambda self: "")
    with pytest.raises(AssertionError, match="frozen, yet moved"):
        frozen_stays(one, settings("thaw"))


def _nudged(model: Model) -> None:
    with torch.no_grad():
        model.backbone.module.stem[0].weight.view(-1)[0].add_(1e-6)
