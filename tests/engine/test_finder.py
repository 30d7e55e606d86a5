"""The rate finder: what it suggests learns, and afterwards nothing has happened."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from headstart.core import keyed
from headstart.core.errors import ConfigError, TrainingError
from headstart.engine import finder
from headstart.stages.base import Training

LABELS = torch.arange(3).repeat(60)
INPUTS = torch.tensor([[0.0, 2.0], [2.0, 0.0], [-2.0, -1.0]])[LABELS] + torch.randn(
    180, 2, generator=torch.Generator().manual_seed(0)
)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def stepper(model, optimizer, labels=LABELS):
    def step(rate, batch):
        rows = torch.as_tensor(keyed.order(0, "finder", batch, len(labels))[:32])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(INPUTS[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def everything(model, optimizer):
    """All that a sweep could change, as plain values."""
    states = [
        {key: value.tolist() if torch.is_tensor(value) else value for key, value in state.items()}
        for state in optimizer.state.values()
    ]
    return (
        {name: value.tolist() for name, value in model.state_dict().items()},
        [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        states,
        [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups],
        [part.training for part in model.modules()],
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
    )


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_everything_is_as_it_was(fresh, kind):
    model, optimizer = network()
    if kind == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    step = stepper(model, optimizer)
    if not fresh:
        for batch in range(3):
            step(0.01, 1000 + batch)
    addresses = [value.data_ptr() for value in model.state_dict().values()]
    before = everything(model, optimizer)

    def careless(rate, batch):
        model.train(batch % 2 == 0)
        np.random.rand()
        random.random()
        return step(rate, batch)

    found = finder.find(careless, lambda: finder.remember(model, optimizer))
    assert len(found.sweeps) == 3
    assert everything(model, optimizer) == before
    assert [value.data_ptr() for value in model.state_dict().values()] == addresses


def test_training_goes_on_as_if_there_had_been_no_finder():
    ends = []
    for finds in (False, True):
        model, optimizer = network()
        step = stepper(model, optimizer)
        for batch in range(10):
            if finds and batch == 5:
                finder.find(step, lambda m=model, o=optimizer: finder.remember(m, o), repeats=1)
            step(0.05, batch)
        ends.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_step_that_raises_is_undone_too():
    model, optimizer = network()
    step = stepper(model, optimizer)
    before = everything(model, optimizer)

    def failing(rate, batch):
        if batch == 30:
            raise KeyboardInterrupt
        return step(rate, batch)

    with pytest.raises(KeyboardInterrupt):
        finder.find(failing, lambda: finder.remember(model, optimizer))
    assert everything(model, optimizer) == before


def final_loss(rate):
    model, optimizer = network()
    step = stepper(model, optimizer)
    for batch in range(60):
        step(rate, batch)
    model.eval()
    return functional.cross_entropy(model(INPUTS), LABELS).item()


def test_the_suggestion_learns_and_its_range_is_safe():
    model, optimizer = network()
    found = finder.find(stepper(model, optimizer), lambda: finder.remember(model, optimizer))
    assert 1e-7 < found.low <= found.lr <= found.high <= 10
    at_lr = final_loss(found.lr)
    assert at_lr < 0.35
    assert found.valley < found.high
    assert final_loss(found.lr / 1000) > 2 * at_lr
    assert final_loss(found.high) < 0.6
    assert found.to_json()["sweeps"] == 3
    assert all(rate > 0 and loss > 0 for rate, loss in found.curve)


def quadratic(curvatures, noise=0.0):
    """Gradient descent on sum(c x^2) / 2, which diverges above the rate 2 / max(c)."""
    state = {"x": np.ones(len(curvatures))}
    curvatures = np.asarray(curvatures)

    def step(rate, batch):
        loss = float((curvatures * state["x"] ** 2).sum() / 2)
        loss *= 1 + noise * keyed.generator(0, batch).standard_normal()
        state["x"] = state["x"] - rate * curvatures * state["x"]
        return loss

    def snapshot():
        saved = state["x"].copy()
        return lambda: state.update(x=saved.copy())

    return step, snapshot, state


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_it_knows_where_a_quadratic_diverges(scale):
    step, snapshot, state = quadratic([scale, scale / 3, scale / 10])
    found = finder.find(step, snapshot, repeats=1, end=1e4)
    assert found.sweeps[0].diverged
    assert 0.01 / scale < found.low <= found.lr <= found.high < 2 / scale
    assert state["x"].tolist() == [1, 1, 1]


def test_a_sweep_stops_at_divergence_and_reads_each_batch_once():
    asked = []
    step, snapshot, _ = quadratic([100.0])

    def counting(rate, batch):
        asked.append((rate, batch))
        return step(rate, batch)

    found = finder.find(counting, snapshot, repeats=2, steps=80)
    batches = [batch for _, batch in asked]
    assert len(set(batches)) == len(batches)
    assert max(batch for batch in batches if batch < 80) < 79
    assert min(batch for batch in batches if batch >= 80) == 80
    assert len(found.sweeps) == 2
    rates = [rate for rate, batch in asked if batch < 80]
    assert rates[0] == pytest.approx(1e-7)
    assert rates[1] / rates[0] == pytest.approx((10 / 1e-7) ** (1 / 79))


def test_repeats_settle_a_noisy_witness():
    """The median of several sweeps moves less between seeds than a single one."""
    suggestions = {}
    for repeats in (1, 5):
        rates = []
        for trial in range(12):
            step, snapshot, _ = quadratic([1.0, 0.5, 0.2], noise=0.15)
            shifted = lambda rate, batch, step=step, trial=trial: step(rate, batch + 10_000 * trial)  # noqa: E731
            rates.append(finder.find(shifted, snapshot, repeats=repeats).lr)
        suggestions[repeats] = np.log(rates).std()
    assert suggestions[5] < suggestions[1]


def test_a_loss_that_never_falls_is_said():
    flat = lambda rate, batch: 1.0 + 0.01 * keyed.generator(1, batch).standard_normal()  # noqa: E731
    with pytest.raises(TrainingError, match="falls in only 0 of 3"):
        finder.find(flat, lambda: lambda: None)
    with pytest.raises(TrainingError):
        finder.find(lambda rate, batch: float("nan"), lambda: lambda: None)
    with pytest.raises(ConfigError):
        finder.find(flat, lambda: lambda: None, steps=3)


def test_sweeps_of_which_most_do_not_fall_are_no_witnesses():
    falling, snapshot, _ = quadratic([1.0])

    def step(rate, batch):
        return falling(rate, batch) if batch < 60 else 1.0

    with pytest.raises(TrainingError, match="falls in only 1 of 3"):
        finder.find(step, snapshot, steps=60)


def test_the_explosion_at_the_end_does_not_spread_backwards():
    losses = (*np.linspace(1.0, 0.5, 30), 1e6)
    smoothed = finder.Sweep(tuple(np.geomspace(1e-6, 1, 31)), losses, diverged=False).smoothed()
    assert smoothed.max() < 1.1


def test_a_sweep_takes_rows_in_orders_that_no_epoch_of_the_training_has(loop):
    made = loop(Training(epochs=2, batch_size=7, lr=1e-3))
    stream, asked = made.job.stream, []
    visit = stream.epoch
    stream.epoch = lambda epoch, start=0: asked.append((epoch - finder.BEYOND, start)) or visit(epoch, start)
    finder.sweep(made, start=1e-5, end=1e-1, steps=10, repeats=1)
    assert stream.per_epoch == 4
    assert asked == [divmod(step, 4) for step in range(10)]


def fastais_valley(losses):
    """fastai.callback.schedule.valley, line for line."""
    n = len(losses)
    max_start, max_end = 0, 0
    lds = [1] * n
    for i in range(1, n):
        for j in range(0, i):
            if (losses[i] < losses[j]) and (lds[i] < lds[j] + 1):
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    sections = (max_end - max_start) / 3
    return max_start + int(sections) + int(sections / 2)


@pytest.mark.parametrize("seed", range(20))
def test_the_valley_is_fastais(seed):
    rng = np.random.default_rng(seed)
    falling = np.concatenate([np.ones(20), np.linspace(1, 0.2, 40), np.linspace(0.2, 3, 20)])
    losses = falling + rng.normal(0, 0.05, 80)
    assert finder.valley(losses) == max(0, fastais_valley(losses.tolist()))
