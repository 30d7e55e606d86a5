"""Plans, their updates, and the choice of ``auto``."""

from __future__ import annotations

import math

import pytest

from headstart.core.errors import ConfigError
from headstart.stages import auto, budget, plans
from headstart.stages.base import Training
from headstart.stages.methods import probe, thaw


def test_every_named_plan_parses_and_starts_or_trains_something():
    for name in plans.PLANS:
        assert plans.parse(name), name


def test_gradual_thaws_more_and_more_at_falling_rates():
    stages = plans.parse("gradual")
    assert [stage.method for stage in stages] == ["probe", "thaw", "thaw", "thaw"]
    assert [stage.blocks for stage in stages[1:]] == [0.25, 0.5, "all"]
    rates = [stage.lr for stage in stages[1:]]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("blocks", "left"),
    [
        (1, ["probe", "thaw-all"]),
        (2, ["probe", "thaw-half", "thaw-all"]),
        (3, ["probe", "thaw-quarter", "thaw-half", "thaw-all"]),
    ],
)
def test_a_share_that_is_rounded_to_the_next_one_is_no_stage_of_its_own(blocks, left):
    opened = lambda stage: math.ceil(blocks * (1 if stage.blocks == "all" else stage.blocks))  # noqa: E731
    assert [stage.title for stage in plans.distinct(plans.parse("gradual"), opened)] == left


@pytest.mark.parametrize("blocks", [[1, 1], [0.5, 0.5], [0.5, 1], [1, "all"], ["all", "all"]])
def test_stages_that_are_meant_to_open_the_same_stay(blocks):
    stages = plans.parse(["probe", *({"thaw": {"blocks": each}} for each in blocks)])
    assert plans.distinct(stages, lambda stage: 1) == stages


def test_all_mistakes_of_a_plan_come_at_once():
    with pytest.raises(ConfigError) as caught:
        plans.parse(["probe", {"thaw": {"blcks": 4, "lr": -1}}, {"thow": {}}, {"thaw": {"blocks": 1}, "probe": {}}])
    text = str(caught.value)
    assert "did you mean 'blocks'" in text
    assert "plan[1].thaw.lr" in text
    assert "did you mean 'thaw'" in text
    assert "plan[3]" in text


def test_settings_for_the_whole_plan_reach_the_stages_that_have_them():
    stages = plans.override(plans.parse("gradual"), {"lr": 1e-5, "mixup": 0.2})
    assert isinstance(stages[0], probe.Settings)
    assert all(stage.lr == 1e-5 and stage.mixup == 0.2 for stage in stages[1:])
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        plans.override(stages, {"lrr": 1})


@pytest.mark.parametrize(("rows", "batch", "updates"), [(244, 32, 8), (32, 32, 1), (33, 32, 2), (5, 32, 1)])
def test_updates_are_counted_with_the_uneven_last_batch(rows, batch, updates):
    assert Training(batch_size=batch, epochs=3).updates(rows) == 3 * updates


def test_the_starved_recipe_of_the_well_known_guide_is_refused():
    """450 recordings, batches of 32 x 4, 10 epochs from a random head: about 40 updates, and a model at chance."""
    guide = thaw.Settings(blocks="all", epochs=10, lr=3e-5, batch_size=128)
    problems = budget.starved([guide], 450)
    assert len(problems) == 1
    assert "40 updates are too few" in problems[0].what
    assert "epochs=25" in problems[0].remedy
    assert not budget.starved(budget.repaired([guide], 450), 450)


def test_a_stage_after_a_probe_needs_fewer_updates():
    stages = [probe.Settings(), thaw.Settings(epochs=5)]
    assert not budget.starved(stages, 244)
    assert budget.starved(stages[1:], 244)


def test_early_stopping_waits_for_the_updates_that_learning_needs():
    (longer,) = budget.repaired([thaw.Settings(epochs=12, patience=5)], 64)
    assert (longer.epochs, longer.patience) == (50, 50)
    (without,) = budget.repaired([thaw.Settings(epochs=12)], 64)
    assert (without.epochs, without.patience) == (50, None)
    (enough,) = budget.repaired([thaw.Settings(epochs=60, patience=5)], 64)  # epochs suffice, patience would not
    assert (enough.epochs, enough.patience) == (60, 50)
    after_a_probe = budget.repaired([probe.Settings(), thaw.Settings(epochs=12, patience=5)], 64)[1]
    assert (after_a_probe.epochs, after_a_probe.patience) == (12, 10)


@pytest.mark.parametrize(("kept", "left"), [({"epochs"}, (12, 12)), ({"patience"}, (50, 5)), ({"lr"}, (50, 50))])
def test_repair_leaves_what_somebody_has_set(kept, left):
    (stage,) = budget.repaired([thaw.Settings(epochs=12, patience=5)], 64, [kept])
    assert (stage.epochs, stage.patience) == left


def test_repair_leaves_what_is_enough_as_it_is():
    stages = plans.parse("gradual")
    assert budget.repaired(stages, 5000) == stages


@pytest.mark.parametrize(
    ("rows", "level", "plan"),
    [
        (200, "near", "probe"),
        (200, "far", "gradual"),
        (200, "unknown", "gradual"),
        (auto.SMALL - 1, "near", "probe"),
        (auto.SMALL, "near", "gradual"),
        (5000, "near", "gradual"),
        (auto.LARGE - 1, "near", "gradual"),
        (auto.LARGE, "near", "full"),
        (50_000, "far", "full"),
    ],
)
def test_auto_follows_the_table(rows, level, plan):
    name, reason = auto.choose(rows, level)
    assert name == plan
    assert str(rows) in reason
