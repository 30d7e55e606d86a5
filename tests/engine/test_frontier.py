"""The frozen frontier: cached and live give the same logits and gradients; the cache says why it is used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.core.events import Decision, Notice
from headstart.engine import cache, features
from headstart.engine.cache import FeatureStore, FrontierCache
from headstart.engine.frontier import Frontiers
from headstart.engine.recorded import Wanted
from headstart.engine.runtime import Runtime
from headstart.models import backbone, heads
from headstart.models.model import Model
from headstart.stages.base import Training
from headstart.stages.learner import POOLED


@pytest.fixture
def frontiers(model):
    def make(net=None, budget=10**9, kept=None, said=None):
        net = net or model()
        emit = (said if said is not None else []).append
        return Frontiers(net, Runtime("cpu"), emit, 7, budget, kept)

    return make


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_cached_logits_are_the_live_ones_bit_for_bit(frontiers, examples, model, blocks):
    net = model()
    net.thaw(blocks)
    val = examples(12, "val")
    found = frontiers(net).of_stage(Wanted.by(Training(augment="none", views=1), net), examples(), val)
    assert found.decision.used
    assert found.val.frontier == 4 - blocks
    live = features.evaluate(net, val, Runtime("cpu"), batch_size=32)
    cached = features.evaluate(net, val, Runtime("cpu"), batch_size=32, cache=found.val)
    assert np.array_equal(live.logits, cached.logits)


@pytest.mark.parametrize("blocks", [1, 2])
def test_training_from_the_cache_gives_the_same_weights(loop, model, frontiers, examples, blocks):
    recipe = Training(epochs=2, batch_size=8, lr=1e-3, augment="none", views=1, head_multiple=1.0)
    live = loop(recipe, net=model(), blocks=blocks)
    list(live.run())
    net = model()
    net.thaw(blocks)
    found = frontiers(net).of_stage(Wanted.by(recipe, net), examples(), examples(12, "val", seed=1))
    cached = loop(recipe, net=net, blocks=blocks, cache=found.train)
    list(cached.run())
    pairs = zip(live.job.learner.state_dict().items(), cached.job.learner.state_dict().values(), strict=True)
    for (name, a), b in pairs:
        assert torch.equal(a, b), name


def test_views_differ_and_are_drawn_once(frontiers, examples, model):
    net = model()
    net.thaw(1)
    train = examples()
    found = frontiers(net).of_stage(Wanted.by(Training(augment="standard", views=3), net), train, examples(12, "val"))
    again = frontiers(net).of_stage(Wanted.by(Training(augment="standard", views=3), net), train, examples(12, "val"))
    rows = np.arange(24)
    views = [found.train.take(view, rows) for view in range(3)]
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[1], views[2])
    assert all(torch.equal(views[view], again.train.take(view, rows)) for view in range(3))


def wanted(net, blocks, **settings):
    net.thaw(blocks)
    return Wanted.by(Training(**{"augment": "standard", "views": 2, **settings}), net)


def leaves(found):
    """What is kept of a frontier, bit for bit."""
    train, val = found.train, found.val
    rows = np.arange(train.rows)
    return [*(train.take(view, rows) for view in range(train.views)), val.take(0, np.arange(val.rows))]


def test_one_pass_records_what_later_stages_want_too(frontiers, examples, model):
    """What a stage takes is what it would have recorded alone; the deepest frontier is passed once."""
    net, train, val, said = model(), examples(), examples(12, "val"), []
    stages = [wanted(net, blocks) for blocks in (1, 2, 3)]
    found = frontiers(net, said=said)
    taken = [found.of_stage(stage, train, val, stages[i + 1 :]) for i, stage in enumerate(stages)]
    assert [(each.rows, each.frontier) for each in found.passed] == [(24, 3), (24, 3), (12, 3)]
    for stage, joint in zip(stages, taken, strict=True):
        alone = frontiers(net).of_stage(stage, train, val)
        assert joint.train.frontier == joint.val.frontier == stage.frontier
        assert all(torch.equal(a, b) for a, b in zip(leaves(joint), leaves(alone), strict=True))
    told = ["recorded with an earlier stage's" in event.reason for event in said if isinstance(event, Decision)]
    assert told == [False, True, True]


def nbytes(found):
    return found.train.nbytes + found.val.nbytes


@pytest.mark.parametrize(
    "change", [{"views": 3}, {"augment": "light"}, {"blocks": 1}, {"weights": True}, {"budget": True}]
)
def test_what_a_later_stage_cannot_use_it_records_itself(frontiers, examples, model, change):
    """Other views, a deeper frontier, other weights below, or no room: then it is not taken from the earlier pass."""
    net, train, val = model(), examples(), examples(12, "val")
    first = wanted(net, 2)
    sizes = [nbytes(frontiers(net).of_stage(each, train, val)) for each in (first, wanted(net, 3))]
    found = frontiers(net, budget=max(sizes) + 1000 if change.pop("budget", False) else 10**9)
    moved = change.pop("weights", False)
    later = wanted(net, change.pop("blocks", 3), **change)
    found.of_stage(first, train, val, [later])
    if moved:
        with torch.no_grad():
            next(net.backbone.block(0).parameters()).mul_(2)
        later = wanted(net, 3)
    before = len(found.passed)
    again = found.of_stage(later, train, val)
    assert len(found.passed) - before == later.views + 1
    alone = frontiers(net).of_stage(later, train, val)
    assert all(torch.equal(a, b) for a, b in zip(leaves(again), leaves(alone), strict=True))


def test_what_is_held_and_what_is_wanted_now_stay_within_the_budget(frontiers, examples, model):
    """A stage that opens fewer blocks than the one before needs room: what waits for later ones goes."""
    net, train, val = model(), examples(), examples(12, "val")
    plan = [wanted(net, blocks, views=1) for blocks in (2, 1, 3)]  # frontiers of two, three and one blocks
    sizes = [nbytes(frontiers(net).of_stage(each, train, val)) for each in plan]
    found = frontiers(net, budget=sizes[0] + sizes[2] + 1000)
    found.of_stage(plan[0], train, val, plan[1:])
    assert [held.wanted for held in found._held] == [plan[2]]
    found.budget = sizes[2] + sizes[1] - 1
    assert found.of_stage(plan[1], train, val, plan[2:]).decision.used
    assert not found._held


def test_what_nobody_wants_any_more_is_let_go(frontiers, examples, model):
    net, train, val = model(), examples(), examples(12, "val")
    first, second = wanted(net, 1), wanted(net, 2)
    found = frontiers(net)
    found.of_stage(first, train, val, [second])
    assert [held.wanted for held in found._held] == [second], "the stage's own is its own"
    net.thaw("all")
    found.of_stage(Wanted.by(Training(augment="none"), net), train, val)
    assert not found._held
    found.of_stage(first, train, val, [second])
    found.let_go()
    assert not found._held


def test_validation_rows_pass_the_frozen_blocks_in_fp32(frontiers, examples, model):
    """Their frontier serves the answers that count: those of the model as it is saved."""
    net, val = model(), examples(12, "val")
    stage = wanted(net, 1)
    found = frontiers(net)
    found.runtime.precision = "bf16"
    kept = found.of_stage(stage, examples(), val)
    assert kept.train.take(0, np.arange(24)).dtype == torch.bfloat16
    exact = features.evaluate(net, val, Runtime("cpu"), batch_size=16)
    cached = features.evaluate(net, val, Runtime("cpu"), batch_size=16, cache=kept.val)
    assert np.array_equal(exact.logits, cached.logits)
    assert [each.precision for each in found.passed] == ["bf16", "bf16", "fp32"]


@pytest.mark.parametrize(
    ("settings", "blocks", "budget", "reason"),
    [
        (Training(augment="none"), "all", 10**9, "no block is frozen"),
        (Training(augment="standard"), 1, 10**9, "freshly augmented"),
        (Training(augment="none"), 1, 10, "exceeds the budget"),
        (Training(augment="none", mixup=0.2), 1, 10**9, "mixup blends the pictures"),
        (Training(views=2, mixup=0.2, cutmix=1.0), 1, 10**9, "mixup and cutmix blend the pictures"),
    ],
)
def test_why_nothing_is_cached_is_said(frontiers, examples, model, settings, blocks, budget, reason):
    net = model()
    net.thaw(blocks)
    said: list = []
    found = frontiers(net, budget, said=said).of_stage(Wanted.by(settings, net), examples(), examples(12, "val"))
    assert found.train is None
    decision = next(event for event in said if isinstance(event, Decision))
    assert (decision.choice, reason in decision.reason) == ("not used", True)


def test_ranks_use_kept_features_together_or_compute_them_together(frontiers, examples, tmp_path):
    """A rank that lacks them would wait for the others' share of the work for ever."""
    kept, said = FeatureStore(tmp_path, 10**9), []
    first = frontiers(kept=kept).pooled(examples())
    again = frontiers(kept=kept, said=said)
    asked = []
    again.runtime.agree = lambda missing: asked.append(missing) or True  # another rank has none
    assert torch.equal(again.pooled(examples()), first)
    assert asked == [False]
    assert not any(isinstance(event, Notice) for event in said), "taken, while another rank computes"


def test_pooled_features_are_not_copied_out_of_the_cache():
    kept = FrontierCache(POOLED, 3)
    with pytest.raises(AssertionError, match="before it was filled"):
        kept.features(0)
    kept.put(0, np.arange(3), torch.rand(3, 2))
    assert torch.equal(kept.features(0), kept.take(0, np.arange(3)))
    kept.features(0).zero_()
    assert not kept.take(0, np.arange(3)).any(), "a copy was given"


def test_an_unfilled_cache_refuses_to_answer():
    kept = FrontierCache(POOLED, 4)
    kept.put(0, np.array([0, 1]), torch.ones(2, 3))
    assert not kept.complete
    with pytest.raises(AssertionError, match="before it was filled"):
        kept.take(0, np.array([1, 2]))


def test_rows_come_back_in_the_order_asked_for_whatever_order_they_came_in():
    kept = FrontierCache(1, 6)
    values = torch.arange(12.0).reshape(6, 2)
    for rows in (np.array([4, 1]), np.array([0, 5, 3]), np.array([2])):
        kept.put(0, rows, {"maps": values[rows], "none": None})
    taken = kept.take(0, np.array([5, 0]))
    assert torch.equal(taken["maps"], values[[5, 0]])
    assert taken["none"] is None


def test_features_of_an_earlier_run_are_kept_and_checked(frontiers, examples, tmp_path):
    kept = FeatureStore(tmp_path, 10**9)
    said: list = []
    first = frontiers(kept=kept).pooled(examples())
    again = frontiers(kept=kept, said=said).pooled(examples())
    assert torch.equal(first, again)
    assert any(isinstance(event, Notice) and event.kind == "features-kept" for event in said)
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    said.clear()
    assert torch.equal(frontiers(kept=kept, said=said).pooled(examples()), first)
    assert not any(isinstance(event, Notice) for event in said), "a damaged file was taken"


@pytest.mark.parametrize("change", ["weights", "rows", "spec"])
def test_kept_features_never_serve_another_question(frontiers, examples, model, tmp_path, change):
    from headstart.data.modalities.image import ImageSpec

    kept = FeatureStore(tmp_path, 10**9)
    frontiers(model(), kept=kept).pooled(examples())
    net = model(seed=1) if change == "weights" else model()
    other = examples(seed=5) if change == "rows" else examples()
    if change == "spec":
        other = examples(spec=ImageSpec(size=(32, 32), resize=40))
    said: list = []
    frontiers(net, kept=kept, said=said).pooled(other)
    assert not any(isinstance(event, Notice) for event in said)


class Pooling(torch.nn.Module):
    """One convolution, pooled in one of two ways: the weights do not tell which."""

    def __init__(self, pool):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.pool = pool

    def forward(self, inputs, scale=1.0):
        return self.pool(self.conv(inputs), dim=(2, 3)) * scale


def pooling(pool=torch.mean):
    torch.manual_seed(0)
    return Model(backbone.load(Pooling(pool), image_size=32), heads.build("linear", 8, 3), "abc")


@pytest.mark.parametrize("change", ["", "forward", "call", "architecture", "torch", "decoder"])
def test_features_are_kept_for_one_forward_by_one_version(frontiers, examples, tmp_path, monkeypatch, change):
    from headstart.data.modalities import image

    kept = FeatureStore(tmp_path, 10**9)
    frontiers(pooling(), kept=kept).pooled(examples())
    net = pooling(torch.amax if change == "forward" else torch.mean)
    assert net.backbone.weights_hash() == pooling().backbone.weights_hash()
    if change == "call":
        net.backbone.call = {"scale": 1.0}
    elif change == "architecture":
        net.backbone.architecture["name"] = "another"
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    elif change == "decoder":
        monkeypatch.setattr(image, "version", "another")
    said: list = []
    frontiers(net, kept=kept, said=said).pooled(examples())
    assert any(isinstance(event, Notice) for event in said) == (change == "")


def test_nothing_is_kept_of_a_function_of_the_users(frontiers, examples, model, tmp_path):
    class Darker:
        def __init__(self, by):
            self.by = by

        def __call__(self, canvas, _rng):
            return canvas // self.by

        def __repr__(self):
            return "Darker()"

    kept = FeatureStore(tmp_path, 10**9)
    found = [frontiers(model(), kept=kept).pooled(examples(), 1, Darker(by)) for by in (1, 4)]
    assert not torch.equal(*found)
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_oldest_features_leave_when_the_store_is_full(tmp_path):
    import os

    kept = FeatureStore(tmp_path, 5000)
    for number in range(4):
        kept.write(str(number), torch.full((256,), float(number)))
        os.utime(tmp_path / f"{number}.safetensors", (number, number))
    kept.write("4", torch.zeros(256))
    left = {path.stem for path in tmp_path.glob("*.safetensors")}
    assert "4" in left
    assert "0" not in left
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= 5000


def test_a_frontier_of_unknown_size_is_measured_by_the_row():
    assert cache.tree_bytes({"a": torch.zeros(2, 10), "b": (torch.zeros(2), torch.zeros(7))}, 2) == 40 + 4
