"""The loop: it learns, accumulates exactly, restores the best epoch, stops, resumes bit for bit, refuses NaN."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from headstart.core.errors import TrainingError
from headstart.core.events import EpochDone, Notice
from headstart.engine import blame, streams
from headstart.engine import loop as loops
from headstart.engine.mixing import Mixer
from headstart.engine.runtime import Runtime
from headstart.measure.evaluation import Evaluation
from headstart.stages.base import Training


def settings(**own) -> Training:
    return Training(
        **{"epochs": 2, "lr": 1e-3, "batch_size": 8, "schedule": "constant", "warmup": 0.0, "clip": None, **own}
    )


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_the_toy(loop):
    training = loop(settings(epochs=6, lr=3e-3))
    events = [event for event in training.run() if isinstance(event, EpochDone)]
    assert events[-1].val_loss < 0.5 * events[0].val_loss or events[-1].val_loss < 0.1
    assert max(event.val_metrics["accuracy"] for event in events) == 1.0


def test_the_first_loss_of_a_zero_head_is_ln_k(loop, model):
    net = model(init="zero")
    training = loop(settings(epochs=1, batch_size=24), net=net)
    update = next(training.job.stream.epoch(0))
    assert training._backward(update, 24) == pytest.approx(math.log(3), abs=1e-6)


def test_one_step_equals_plain_torch(loop, model):
    """AdamW on the whole batch, written out by hand."""
    net = model()
    twin = copy.deepcopy(net)
    training = loop(settings(epochs=1, batch_size=24, weight_decay=0.0, head_multiple=1.0, layer_decay=1.0), net=net)
    update = next(training.job.stream.epoch(0))
    training._update(update)
    twin.thaw("all")
    twin.train()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, weight_decay=0.0)
    torch.nn.functional.cross_entropy(twin(update.inputs), update.targets).backward()
    optimizer.step()
    for (name, ours), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-6), name


@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_accumulation_equals_the_large_batch(loop, model, accumulate):
    """With BatchNorm in eval mode, parts of a batch give the gradients of the whole, however uneven they are."""
    net = model()
    whole = loop(settings(batch_size=22, bn="eval"), net=copy.deepcopy(net), rows=22)
    parts = loop(settings(batch_size=22, accumulate=accumulate, bn="eval"), net=copy.deepcopy(net), rows=22)
    for training in (whole, parts):
        training.job.learner.model.bn = "eval"
        training.job.learner.train()
        update = next(training.job.stream.epoch(0))
        training._backward(update, training.state.micro_batch)
    for a, b in zip(whole.job.learner.parameters(), parts.job.learner.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


@pytest.mark.parametrize("blocks", [1, "all"])
@pytest.mark.parametrize("bn", ["frozen_eval", "train", "eval"])
def test_the_best_epoch_is_restored(loop, model, bn, blocks):
    """Validation says that the second of four epochs was the best: its weights and statistics are what is left."""
    net = model()
    net.bn = bn
    training = loop(settings(epochs=4), net=net, blocks=blocks)
    sure = iter([1.0, 3.0, 2.0, 0.5])
    training.job.validate = lambda: Evaluation(
        "val", np.arange(3), np.eye(3) * next(sure), np.arange(3), ("a", "b", "c")
    )
    seen = []
    for event in training.run():
        if isinstance(event, EpochDone):
            seen.append((event.improved, weights(training.job.learner.model)))
    assert [improved for improved, _ in seen] == [True, True, False, False]
    assert same(weights(training.job.learner.model), seen[1][1])
    assert not same(seen[1][1], seen[3][1])


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("bn", ["frozen_eval", "train", "eval"])
def test_with_some_blocks_frozen_a_resumed_stage_ends_bit_for_bit_too(loop, model, tmp_path, monkeypatch, bn, ema):
    """Statistics of frozen BatchNorm that move (``bn: train``) are saved, kept with the best epoch, and averaged."""

    def net():
        one = model()
        one.bn = bn
        return one

    recipe = settings(epochs=3, ema=ema)
    whole = loop(recipe, net=net(), blocks=1)
    list(whole.run())
    monkeypatch.setattr(loops, "CHECKPOINT_SECONDS", -1.0)
    broken = loop(recipe, net=net(), blocks=1, folder=tmp_path)
    for event in broken.run():
        if getattr(event, "done", 0) == 6:
            break
    resumed = loop(recipe, net=net(), blocks=1, folder=tmp_path)
    list(resumed.run())
    assert same(weights(resumed.job.learner.model), weights(whole.job.learner.model))


def test_patience_stops_and_says_so(loop):
    training = loop(settings(epochs=50, lr=1e-9, patience=2, metric="accuracy"))
    events = list(training.run())
    assert training.state.epoch == 3  # one best, two without improvement
    assert any(isinstance(event, Notice) and event.kind == "stopped-early" for event in events)


def test_the_time_limit_ends_a_stage_after_its_epoch(loop):
    training = loop(settings(epochs=50, time_limit=1e-6))
    list(training.run())
    assert training.state.epoch == 1


@pytest.mark.parametrize("own", [{}, {"ema": 0.9}, {"optimizer": "sgd"}, {"mixup": 0.4}, {"sampler": "balanced"}])
# Updates before the interruption: mid-epoch, end of the epoch, mid-epoch.
@pytest.mark.parametrize("after", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_an_interrupted_stage_ends_bit_for_bit_like_an_uninterrupted_one(
    loop, model, tmp_path, monkeypatch, own, after
):
    recipe = settings(epochs=3, schedule="one_cycle", **{k: v for k, v in own.items() if k != "mixup"})
    mixing = {"mixer": Mixer(own["mixup"], 0.0, 1.0, 3)} if "mixup" in own else {}
    whole = loop(recipe, net=model(dropout=0.2), **mixing)
    list(whole.run())

    monkeypatch.setattr(loops, "CHECKPOINT_SECONDS", -1.0)  # a checkpoint after every update
    broken = loop(recipe, net=model(dropout=0.2), folder=tmp_path / "state", **mixing)
    for event in broken.run():
        if getattr(event, "done", 0) == after + 1:
            break  # what a kill leaves: the checkpoint of the update before
    resumed = loop(recipe, net=model(dropout=0.2), folder=tmp_path / "state", **mixing)
    events = list(resumed.run())
    assert any(isinstance(event, Notice) and event.kind == "resumed" for event in events)
    assert same(weights(resumed.job.learner.model), weights(whole.job.learner.model))
    assert [e["train_loss"] for e in resumed.state.history] == [e["train_loss"] for e in whole.state.history]


def test_a_finished_stage_is_not_trained_again(loop, model, tmp_path, monkeypatch):
    monkeypatch.setattr(loops, "CHECKPOINT_SECONDS", -1.0)
    first = loop(settings(), folder=tmp_path)
    list(first.run())
    again = loop(settings(), net=model(), folder=tmp_path)
    assert not [event for event in again.run() if isinstance(event, EpochDone)]
    assert same(weights(first.job.learner.model), weights(again.job.learner.model))


def test_checkpoints_follow_the_clock_and_not_the_epochs(loop, tmp_path):
    training = loop(settings(epochs=4), folder=tmp_path / "state")
    list(training.run())
    assert not (tmp_path / "state").exists(), "a minute has not passed"


def test_nan_stops_before_the_step_and_names_the_rows(loop, model):
    training = loop(settings())
    head = training.job.learner.model.head
    original = head.forward
    before = weights(training.job.learner.model)

    def poisoned(features: torch.Tensor) -> torch.Tensor:
        logits = original(features)
        bad = features.sum(dim=1) == marked
        return torch.where(bad[:, None], torch.full_like(logits, torch.nan), logits)

    update = next(training.job.stream.epoch(0))
    # In eval mode of BatchNorm a row alone gives what it gives in its batch, so the culprit can be found again.
    training.job.learner.model.bn = "eval"
    training.job.learner.train()
    with torch.no_grad():
        marked = training.job.learner.model.backbone.features(update.inputs[3:4]).sum(dim=1)[0]
    head.forward = poisoned
    training.job.learner.model.bn = "eval"
    batch = copy.copy(update)
    rows = batch.rows[3]
    found = blame.of(training.job.learner, batch, float("nan"), training.job.names, "stage 0")
    assert "not finite" in str(found)
    assert f"picture {rows}" in str(found)
    assert same(before, weights(training.job.learner.model))


def test_a_poisoned_loss_never_reaches_the_weights_or_the_disk(loop, tmp_path):
    training = loop(settings(), folder=tmp_path)
    training.job.learner.loss = _Poisoned()
    before = weights(training.job.learner.model)
    with pytest.raises(TrainingError, match="not finite"):
        list(training.run())
    after = weights(training.job.learner.model)
    trained = [name for name, _ in training.job.learner.model.named_parameters()]
    assert all(torch.equal(before[name], after[name]) for name in trained)
    assert not list(tmp_path.glob("step-*"))


def test_weights_that_are_not_finite_are_no_best_epoch_though_their_answers_are(loop, tmp_path):
    training = loop(settings(), folder=tmp_path)
    answer = training.job.validate

    def validate():
        found = answer()
        with torch.no_grad():
            next(iter(training.job.learner.model.head.parameters())).fill_(torch.nan)
        return found

    training.job.validate = validate
    with pytest.raises(TrainingError, match=r"weights or buffers are not finite themselves: model\.head"):
        list(training.run())


class _Poisoned(torch.nn.Module):
    def forward(self, outputs, targets):
        return outputs.sum() * torch.nan


def test_exhausted_memory_halves_the_parts_and_changes_nothing_else(loop, model):
    net = model()
    small = loop(settings(accumulate=4, bn="eval"), net=copy.deepcopy(net))
    tight = loop(settings(bn="eval"), net=copy.deepcopy(net))
    learner = tight.job.learner
    original = learner.model.forward

    def narrow(inputs):
        if len(inputs) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory (planted)")
        return original(inputs)

    learner.model.forward = narrow
    for each in (small, tight):
        each.job.learner.model.bn = "eval"
    list(small.run())
    events = list(tight.run())
    learner.model.__dict__.pop("forward")
    assert any(isinstance(event, Notice) and event.kind == "memory" for event in events)
    assert same(weights(tight.job.learner.model), weights(small.job.learner.model))


def test_ema_evaluates_and_keeps_the_average(loop):
    training = loop(settings(epochs=1, ema=0.5))
    list(training.run())
    averages = training.ema.averages
    kept = dict(training.job.learner.named_parameters())
    assert all(torch.equal(kept[name], averages[name]) for name in kept if name in averages)


def test_a_row_drawn_on_two_ranks_is_seen_in_two_views(examples, monkeypatch):
    """Two ranks together see what one process sees, view by view: repeats are counted before they are shared out."""
    rows = examples(9)
    weights = np.r_[8.0, np.ones(8)]  # the first row comes many times

    def seen(world):
        found = []
        for rank in range(world):
            monkeypatch.setenv("RANK", str(rank))
            runtime = Runtime("cpu")
            runtime.world = world
            order = streams.Order(7, 0, rows.rows, 4, weights)
            stream = streams.LiveStream(runtime, order, rows, streams.augmentation("standard"))
            for update in stream.epoch(0):
                found += [
                    (int(row), value.numpy().tobytes()) for row, value in zip(update.rows, update.inputs, strict=True)
                ]
        return sorted(found)

    alone, together = seen(1), seen(2)
    assert alone == together
    first = [value for row, value in together if row == 0]
    assert len(first) == len(set(first)) > 2


def test_every_row_comes_once_an_epoch_in_an_order_that_changes(loop):
    stream = loop(settings(batch_size=7)).job.stream
    epochs = [np.concatenate([update.rows for update in stream.epoch(epoch)]) for epoch in (0, 1)]
    assert all(sorted(rows) == list(range(24)) for rows in epochs)
    assert not np.array_equal(*epochs)
