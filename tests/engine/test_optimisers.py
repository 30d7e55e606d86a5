"""Optimizers: a step as in the papers, clipping by the global norm, state without pickle, bit-equal continuation."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from headstart.core.errors import ArtefactError, ConfigError
from headstart.engine import optimisers, schedules
from headstart.engine.groups import groups


def network(channels_last=True):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    return made.to(memory_format=torch.channels_last) if channels_last else made


def build(name, model, weight_decay=0.05):
    made = groups(model.named_parameters(), {}, 0, lr=1e-2, weight_decay=weight_decay)
    return optimisers.build(name, made)


def train(model, optimizer, steps, schedule=None):
    for step in steps:
        torch.manual_seed(step)
        inputs, labels = torch.randn(6, 3, 8, 8), torch.randint(0, 3, (6,))
        schedules.apply(optimizer, schedule or schedules.Schedule("constant"), step, 100)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", optimisers.NAMES)
def test_saved_state_continues_bit_equal(name, tmp_path):
    schedule = schedules.Schedule("one_cycle")
    straight = network()
    optimizer = build(name, straight)
    expected = train(straight, optimizer, range(8), schedule)

    model = network()
    optimizer = build(name, model)
    train(model, optimizer, range(5), schedule)
    tensors, settings = optimisers.state_tensors(optimizer)
    save_file(tensors, tmp_path / "optimizer.safetensors")
    settings = json.loads(json.dumps(settings))

    fresh = network()
    fresh.load_state_dict(model.state_dict())
    resumed = build(name, fresh)
    optimisers.load_state(resumed, load_file(tmp_path / "optimizer.safetensors"), settings)
    actual = train(fresh, resumed, range(5, 8), schedule)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))

    forgot = network()
    forgot.load_state_dict(model.state_dict())
    without = train(forgot, build(name, forgot), range(5, 8), schedule)
    assert not all(torch.equal(a, b) for a, b in zip(without, expected, strict=True)), "the check sees a lost state"


def test_settings_of_the_groups_come_back_too():
    optimizer = build("adamw", network())
    for group in optimizer.param_groups:
        group.update(lr=0.123, betas=(0.5, 0.6), base_lr=0.456)
    fresh = build("adamw", network())
    tensors, settings = optimisers.state_tensors(optimizer)
    optimisers.load_state(fresh, tensors, json.loads(json.dumps(settings)))
    for group in fresh.param_groups:
        assert (group["lr"], group["betas"], group["base_lr"]) == (0.123, (0.5, 0.6), 0.456)


def test_the_saved_state_is_a_copy():
    model = network()
    optimizer = build("adamw", model)
    train(model, optimizer, range(2))
    tensors, _ = optimisers.state_tensors(optimizer)
    before = {key: value.clone() for key, value in tensors.items()}
    train(model, optimizer, range(2, 4))
    assert all(torch.equal(before[key], tensors[key]) for key in before)


def test_a_foreign_state_is_refused_and_changes_nothing():
    model = network()
    optimizer = build("adamw", model)
    train(model, optimizer, range(2))
    tensors, settings = optimisers.state_tensors(optimizer)
    fresh = build("adamw", network())
    wrong_shape = {**tensors, "exp_avg/0.weight": torch.zeros(3)}
    unknown = {**tensors, "exp_avg/9.weight": torch.zeros(3)}
    for bad in (wrong_shape, unknown):
        with pytest.raises(ArtefactError):
            optimisers.load_state(fresh, bad, settings)
    with pytest.raises(ArtefactError, match="AdamW's, not SGD's"):
        optimisers.load_state(build("sgd", network()), tensors, settings)
    with pytest.raises(ArtefactError, match="other parameter groups"):
        optimisers.load_state(build("adamw", network(), weight_decay=0.0), tensors, settings)
    assert not fresh.state


def test_adamw_takes_the_step_of_the_paper():
    """Loshchilov & Hutter 2019, algorithm 2, two steps by hand; the bias does not decay."""
    model = nn.Linear(3, 2).double()
    optimizer = build("adamw", model, weight_decay=0.1)
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    moments = {name: [torch.zeros_like(value), torch.zeros_like(value)] for name, value in expected.items()}
    for step in (1, 2):
        for name, parameter in model.named_parameters():
            grad = torch.full_like(parameter, 0.3 * step)
            parameter.grad = grad.clone()
            first, second = moments[name]
            first.mul_(0.9).add_(0.1 * grad)
            second.mul_(0.999).add_(0.001 * grad**2)
            decay = 0.1 if name == "weight" else 0.0
            rise = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            expected[name] = expected[name] * (1 - 1e-2 * decay) - 1e-2 * rise
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-12)


def test_weight_decay_shrinks_what_has_no_gradient_signal():
    decayed, free = (nn.Linear(4, 4) for _ in range(2))
    free.load_state_dict(decayed.state_dict())
    for model, decay in ((decayed, 0.5), (free, 0.0)):
        optimizer = build("adamw", model, weight_decay=decay)
        for _ in range(20):
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
    ratio = decayed.weight / free.weight
    torch.testing.assert_close(ratio, torch.full_like(ratio, (1 - 1e-2 * 0.5) ** 20))
    assert torch.equal(decayed.bias, free.bias)


def test_clipping_is_by_the_global_norm():
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 10
    flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert optimisers.clip(model.parameters(), None).item() == pytest.approx(flat.norm().item())
    unclipped = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert torch.equal(unclipped, flat)
    assert optimisers.clip(model.parameters(), 1.0).item() == pytest.approx(flat.norm().item())
    clipped = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(clipped, flat / flat.norm(), rtol=1e-4, atol=1e-6)
    optimisers.clip(model.parameters(), 5.0)
    assert torch.equal(clipped, torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))


def test_a_gradient_that_is_not_finite_shows_in_the_norm():
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.bias.grad[0] = float("nan")
    assert not torch.isfinite(optimisers.clip(model.parameters(), 1.0))


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'adamw'"):
        build("adamww", network())
