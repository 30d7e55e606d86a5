"""The runs that make the built-in weights: a killed run goes on as if nothing had happened, and packs its averages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from headstart.core import manifest
from headstart.core.errors import TrainingError
from pretraining.runtime import Settings, Training, pack


class Regression(nn.Module):
    """A backbone with BatchNorm (state that no optimizer knows) and a head; its output is the loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 1)

    def forward(self, rows: Tensor) -> Tensor:
        return (self.head(self.backbone(rows)) - rows.sum(1, keepdim=True)).square().mean()


def run(folder: Path, settings: Settings, stop: int | None = None) -> Training:
    """Train; leave without a word at step ``stop``, as a killed process does."""
    training = Training(Regression(), folder, settings)
    for step in training:
        if step == stop:
            return training
        training.update(training.module(torch.randn(16, 4)))
        if step == 3:
            training.save()
    return training


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    settings = Settings(steps=12, lr=0.05, optimizer=optimizer, log_every=5)
    whole = run(tmp_path / "whole", settings)
    run(tmp_path / "cut", settings, stop=7)
    again = run(tmp_path / "cut", settings)
    assert again.step == whole.step == 12
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name
    for name, value in whole.averages().items():
        assert torch.equal(value, again.averages()[name]), name
    lines = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    once = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if line["step"] == 10] == [once[-1]["loss"]]


def test_a_run_learns_and_another_seed_is_another_run(tmp_path: Path) -> None:
    first, second = (run(tmp_path / str(seed), Settings(seed=seed, steps=60, lr=0.05)) for seed in (0, 1))
    rows = torch.randn(64, 4)
    with torch.no_grad():
        before, after = Regression().eval()(rows), first.module.eval()(rows)
    assert after < before / 2
    assert not torch.equal(first.module.head.weight, second.module.head.weight)


def test_minutes_end_a_run(tmp_path: Path) -> None:
    training = run(tmp_path, Settings(minutes=0.002))
    assert training.progress == 1
    assert training.step > 1
    assert 0.12 <= training.seconds < 2
    assert training.optimizer.param_groups[0]["lr"] < 1e-4  # the schedule came to its end with the clock


def test_matrices_decay_and_vectors_do_not(tmp_path: Path) -> None:
    decaying, other = Training(Regression(), tmp_path, Settings(steps=1)).optimizer.param_groups
    assert decaying["names"] == ["backbone.0.weight", "head.weight"]
    assert other["weight_decay"] == 0


def test_a_loss_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    training = Training(Regression(), tmp_path, Settings(steps=2))
    weight = training.module.head.weight.clone()
    next(iter(training))
    training.update(training.module(torch.full((4, 4), float("nan"))))
    assert training.skipped == 1
    assert torch.equal(weight, training.module.head.weight)


def test_a_run_needs_an_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps"):
        Training(Regression(), tmp_path, Settings())


def test_packing_keeps_the_backbone_and_says_what_it_is(tmp_path: Path) -> None:
    training = run(tmp_path / "run", Settings(steps=5))
    pack(tmp_path / "out", training.averages("backbone."), {"name": "toy", **training.facts()})
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert set(state) == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert all(value.dtype == torch.float16 for value in state.values())
    torch.testing.assert_close(state["0.weight"].float(), training.ema.averages["backbone.0.weight"], atol=1e-3, rtol=0)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["sha256"] == manifest.sha256(tmp_path / "out" / "model.safetensors")
    assert (card["parameters"], card["steps"], card["licence"]) == (72, 5, "Apache-2.0")


def test_what_half_precision_cannot_hold_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        pack(tmp_path, {"weight": torch.tensor([1e6])}, {})
