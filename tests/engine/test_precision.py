"""Precision is chosen by the clock, here a clock of our own."""

import math

import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError
from headstart.engine import precision
from headstart.engine.precision import CANDIDATES, HOPELESS, PATIENCE, Precision, choose
from headstart.models import threads


def machine(seconds, fails=(), losses=None):
    """A step and a clock on which every candidate takes the time that the table gives it."""
    now = [0.0]
    taken = []

    def step(candidate):
        taken.append(str(candidate))
        if str(candidate) in fails:
            raise RuntimeError("bf16 is not supported on this device\nlong story")
        now[0] += seconds[str(candidate)]
        return (losses or {}).get(str(candidate), 0.7)

    return step, lambda: now[0], taken


def table(fp32, fp32_last, bf16, bf16_last):
    return dict(zip(map(str, CANDIDATES), (fp32, fp32_last, bf16, bf16_last), strict=True))


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        (table(1.0, 0.95, 0.92, 0.95), "fp32"),
        (table(1.0, 0.9, 0.95, 2.0), "fp32, channels last"),
        (table(1.0, 1.2, 0.5, 0.48), "bf16"),
        (table(1.0, 0.8, 0.7, 0.3), "bf16, channels last"),
        (table(1.0, 0.8, 5.0, 6.0), "fp32, channels last"),
        (table(1.0, 3.0, 4.0, 5.0), "fp32"),
    ],
)
def test_a_richer_candidate_is_taken_only_where_it_is_clearly_faster(seconds, chosen):
    step, clock, _ = machine(seconds)
    choice, decision = choose(step, clock=clock)
    assert str(choice) == decision.choice == chosen
    assert decision.facts["seconds"] == pytest.approx(seconds)


def test_candidates_run_in_turns_after_a_warm_up():
    step, clock, taken = machine(table(1.0, 1.0, 1.0, 1.0))
    choose(step, clock=clock, rounds=3)
    assert taken == [str(candidate) for candidate in CANDIDATES] * 4


def test_a_round_that_decides_is_the_last():
    for bf16, rounds in ((0.6, 1), (0.7, 3)):
        step, clock, taken = machine(table(1.0, 1.0, bf16, 1.0))
        assert str(choose(step, clock=clock, rounds=3)[0]) == "bf16"
        assert taken.count("bf16") == 1 + rounds


@pytest.mark.parametrize("slowed", [[4.0], [4.0, 2.6], [2.2, 4.0, 1.7]])
def test_a_burst_of_other_work_does_not_turn_the_choice(slowed):
    """It holds up the steps in bf16, after the first of each, which warms up."""
    now, held = [0.0], [1.0, *slowed]

    def step(candidate):
        low = candidate.name == "bf16"
        now[0] += 0.5 * (held.pop(0) if held else 1.0) if low else 1.0
        return 0.7

    candidates = [Precision("fp32", True), Precision("bf16", True)]
    choice, _ = choose(step, candidates=candidates, rounds=2, clock=lambda: now[0])
    assert choice.name == "bf16"


def test_a_restless_machine_has_an_end():
    now, taken = [0.0], [1.0]

    def step(candidate):
        taken.append(taken[-1] / 1.3)
        now[0] += taken[-1]
        return 0.7

    choose(step, candidates=CANDIDATES[:2], rounds=2, clock=lambda: now[0])
    assert len(taken) == 1 + 2 + 2 * PATIENCE * 2


def test_a_candidate_that_fails_or_breaks_the_loss_is_out():
    fast = table(1.0, 0.9, 0.1, 0.1)
    step, clock, taken = machine(fast, fails=("bf16",), losses={"bf16, channels last": math.nan})
    choice, decision = choose(step, clock=clock)
    assert str(choice) == "fp32, channels last"
    assert decision.facts["failed"] == {
        "bf16": "bf16 is not supported on this device",
        "bf16, channels last": "loss nan",
    }
    assert taken.count("bf16") == 1


def test_the_users_word_counts():
    step, clock, taken = machine(table(1.0, 0.95, 9.0, 10.0))
    choice, decision = choose(step, wanted="bf16", clock=clock)
    assert str(choice) == "bf16"
    assert "bf16 was asked for" in decision.reason
    step, clock, _ = machine(table(1.0, 0.95, 9.0, 10.0))
    _, decision = choose(step, candidates=[Precision("fp32")], wanted="fp32", clock=clock)
    assert decision.reason == "fp32 was asked for"
    assert not any("fp32" in name for name in taken)
    step, clock, _ = machine(table(1.0, 0.95, 0.1, 0.1))
    assert choose(step, wanted="fp32", clock=clock)[0].name == "fp32"
    with pytest.raises(ConfigError, match="unknown precision"):
        choose(step, wanted="fp8", clock=clock)
    step, clock, _ = machine(table(1.0, 1.0, 1.0, 1.0), fails=("bf16", "bf16, channels last"))
    with pytest.raises(ConfigError, match="does not run here"):
        choose(step, wanted="bf16", clock=clock)


def test_what_is_hopeless_takes_no_step():
    step, clock, taken = machine(table(1.0, 0.5, 0.1, 0.1))
    choice, decision = choose(step, without={"bf16": "a product is slow"}, clock=clock)
    left = dict.fromkeys(("bf16", "bf16, channels last"), "a product is slow")
    assert (str(choice), decision.facts["failed"]) == ("fp32, channels last", left)
    assert {*taken} == {"fp32", "fp32, channels last"}
    fp32, *_, bf16 = CANDIDATES
    alone = choose(step, candidates=[fp32, bf16], without={"bf16": "a product is slow"}, clock=clock)
    assert (str(alone[0]), alone[1].reason) == ("fp32", "a product is slow")
    asked = choose(step, candidates=[fp32, bf16], wanted="bf16", without={"bf16": "a product is slow"}, clock=clock)
    assert (asked[0].name, asked[1].facts["failed"]) == ("bf16", {}), "the user's word counts"
    assert asked[1].reason == "bf16 was asked for"
    assert decision.reason == "a training step is 2.00 times faster here than in fp32; a product is slow"


@pytest.mark.parametrize(("times", "told"), [(0.1, {}), (0.9 * HOPELESS, {}), (45, {"bf16": "45 times as long"})])
def test_products_tell_what_is_hopeless(times, told, monkeypatch):
    taken = {torch.float32: 0.25, torch.bfloat16: 0.25 * times}
    monkeypatch.setattr(precision, "product_seconds", lambda dtype, device: taken[dtype])
    found = precision.hopeless("cpu")
    assert found.keys() == told.keys()
    assert all(text in found[name] for name, text in told.items())


def test_a_moment_of_other_work_rules_nothing_out(monkeypatch):
    taken = {torch.float32: [0.25, 0.25], torch.bfloat16: [0.2, 20.0]}
    monkeypatch.setattr(precision, "product_seconds", lambda dtype, device: taken[dtype].pop())
    assert precision.hopeless("cpu") == {}


@pytest.mark.parametrize("error", [RuntimeError, TypeError])
def test_a_device_that_does_not_know_a_type_is_asked_by_a_step(error, monkeypatch):
    def refuse(dtype, device):
        if dtype != torch.float32:
            raise error("BFloat16 is not supported on this device")
        return 1.0

    monkeypatch.setattr(precision, "product_seconds", refuse)
    assert precision.hopeless("mps") == {}


@pytest.mark.parametrize(
    ("first", "each", "calls"), [(1.0, 1.0, 2), (0.001, precision.PRODUCTS / 8, 9), (1.0, precision.PRODUCTS / 8, 9)]
)
def test_products_are_few_where_they_are_slow_and_the_first_does_not_count(first, each, calls, monkeypatch):
    now, taken = [0.0], []

    def multiply(left, right):
        taken.append(first if not taken else each)
        now[0] += taken[-1]
        return left

    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(precision.torch, "mm", multiply)
    assert precision.product_seconds(torch.float32, side=2) == pytest.approx(each)
    assert len(taken) == pytest.approx(calls, abs=1)


def test_products_are_computed_by_one_thread(monkeypatch):
    seen, mm = set(), torch.mm
    monkeypatch.setattr(precision.torch, "mm", lambda *given: seen.add(torch.get_num_threads()) or mm(*given))
    with threads.set_to(2):
        precision.product_seconds(torch.float32)
        assert torch.get_num_threads() == 2
    assert seen == {1}


def test_one_candidate_is_not_timed():
    step, clock, taken = machine(table(1.0, 1.0, 1.0, 1.0))
    choice, decision = choose(step, candidates=[Precision()], clock=clock)
    assert (str(choice), len(taken)) == ("fp32", 1)
    assert decision.facts["seconds"] == {}


def test_a_real_step_in_every_candidate():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    inputs, seen = torch.randn(2, 3, 8, 8), []

    def step(candidate):
        with candidate.autocast("cpu"):
            hidden = model.to(memory_format=candidate.memory_format)(inputs.to(memory_format=candidate.memory_format))
        seen.append((candidate, hidden.dtype, model[0].weight.is_contiguous(memory_format=torch.channels_last)))
        value = hidden.float().square().mean()
        value.backward()
        return value.item()

    choice, _ = choose(step, rounds=1)
    assert choice in CANDIDATES
    for candidate, dtype, last in seen:
        assert dtype == (torch.bfloat16 if candidate.name == "bf16" else torch.float32)
        assert last == candidate.channels_last
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
