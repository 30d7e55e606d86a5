"""Schedules against torch's and transformers' own, and what they do to an optimizer."""

import math

import pytest
import torch

from headstart.core.errors import ConfigError, TrainingError
from headstart.engine.schedules import SCHEDULES, Schedule, apply


def optimizer(kind=torch.optim.SGD, **settings):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": lr, "base_lr": lr, "names": [str(lr)]}
        for lr in (1e-3, 1e-1)
    ]
    return kind(groups, lr=1.0, **settings)


@pytest.mark.parametrize("total", [4, 7, 10, 33, 100])
@pytest.mark.parametrize("share", [0.15, 0.3])
def test_one_cycle_is_torchs(total, share):
    ours, theirs = optimizer(momentum=0.9), optimizer(momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        theirs, max_lr=[1e-3, 1e-1], total_steps=total, pct_start=share, cycle_momentum=False
    )
    for step in range(total):
        apply(ours, Schedule("one_cycle", pct_start=share), step, total)
        for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert mine["lr"] == pytest.approx(other["lr"], rel=1e-9)
            assert mine["momentum"] == 0.9
        theirs.step()
        if step + 1 < total:
            scheduler.step()


def test_cosine_and_linear_fall_as_in_transformers():
    """After the warm-up: 0.5 (1 + cos(pi p)) and 1 - p, with p = (step - warmup) / (total - warmup)."""
    for step in range(10, 100):
        share = (step - 10) / 90
        assert Schedule("cosine", warmup=0.1).factor(step, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * share)))
        assert Schedule("linear", warmup=0.1).factor(step, 100) == pytest.approx(1 - share)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_the_warm_up_rises_evenly_from_above_zero_to_one(name):
    factors = [Schedule(name, warmup=0.2).factor(step, 50) for step in range(11)]
    assert factors == pytest.approx([(step + 1) / 11 for step in range(11)])


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("total", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_factors_stay_in_range_and_never_stop_learning(name, total, warmup):
    factors = [Schedule(name, warmup=warmup).factor(step, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    if name != "one_cycle":
        assert max(factors) == 1.0


def test_every_group_keeps_its_ratio_and_a_second_pass_changes_nothing():
    made = optimizer()
    for step in (3, 7, 3):
        factor = apply(made, Schedule("cosine", warmup=0.5), step, 10)
        assert [group["lr"] for group in made.param_groups] == [1e-3 * factor, 1e-1 * factor]


def test_a_step_outside_the_schedule_is_an_error():
    for step in (-1, 10):
        with pytest.raises(TrainingError, match="outside a schedule"):
            Schedule("cosine").factor(step, 10)


@pytest.mark.parametrize(
    "settings",
    [{"name": "cosin"}, {"warmup": -0.1}, {"warmup": 5}, {"pct_start": 0.0}],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        Schedule(**settings)
    if "name" in settings:
        with pytest.raises(ConfigError, match="did you mean 'cosine'"):
            Schedule(**settings)
