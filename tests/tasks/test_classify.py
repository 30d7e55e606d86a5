"""The loss of classification: torch's where torch has it, theory's at the start, additive over any split."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from headstart.core.errors import ConfigError, TrainingError
from headstart.engine.balance import class_weights
from headstart.engine.memory import split
from headstart.tasks.base import RowLoss
from headstart.tasks.classify import Loss, loss

ROWS, CLASSES = 10, 4
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 3.0])


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, CLASSES, generator=rng) * 2
    return logits, torch.randint(0, CLASSES, (ROWS,), generator=rng)


def one_hot(targets):
    return functional.one_hot(targets, CLASSES).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_is_torchs(batch, smoothing):
    logits, targets = batch
    expected = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    assert loss(logits, targets, label_smoothing=smoothing) == pytest.approx(expected.item(), rel=1e-6)
    assert loss(logits, one_hot(targets), label_smoothing=smoothing) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_indices_one_hot_and_the_formula_agree(batch, smoothing, weights):
    logits, targets = batch
    smoothed = (1 - smoothing) * one_hot(targets) + smoothing / CLASSES
    each = torch.ones(CLASSES) if weights is None else weights
    expected = (each * smoothed * -logits.log_softmax(1)).sum() / ROWS
    for form in (targets, one_hot(targets)):
        torch.testing.assert_close(loss(logits, form, label_smoothing=smoothing, class_weights=weights), expected)


def test_soft_targets_are_torchs(batch):
    logits, _ = batch
    soft = torch.rand(ROWS, CLASSES).softmax(1)
    expected = functional.cross_entropy(logits, soft, WEIGHTS, label_smoothing=0.1)
    torch.testing.assert_close(loss(logits, soft, label_smoothing=0.1, class_weights=WEIGHTS), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS.tolist()])
@pytest.mark.parametrize("soft", [False, True])
def test_a_zero_head_starts_at_ln_k(batch, smoothing, weights, soft):
    _, targets = batch
    targets = one_hot(targets).roll(1, 0) * 0.3 + one_hot(targets) * 0.7 if soft else targets
    made = Loss(label_smoothing=smoothing, class_weights=weights)
    mean = made(torch.zeros(ROWS, CLASSES), targets) / ROWS
    shares = (1 - smoothing) * (targets if soft else one_hot(targets)) + smoothing / CLASSES
    weighed = 1.0 if weights is None else (shares @ WEIGHTS).mean().item()  # every class has -log p = ln K
    assert mean.item() == pytest.approx(math.log(CLASSES) * weighed, rel=1e-6)


def test_balanced_weights_start_at_ln_k_over_the_training_rows():
    labels = np.array([0] * 9 + [1] * 3 + [2] * 2)
    made = Loss(class_weights=class_weights(labels, ("a", "b", "c")))
    mean = made(torch.zeros(14, 3), torch.as_tensor(labels)) / 14
    assert mean.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("micro", [1, 3, 4, 10])
@pytest.mark.parametrize("soft", [False, True])
def test_accumulation_is_the_large_batch(micro, soft):
    """Gradients of micro-batches, the last one smaller, divided by the effective batch's rows, against plain torch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    inputs, targets = torch.randn(ROWS, 5).double(), torch.randint(0, CLASSES, (ROWS,))
    if soft:
        targets = torch.rand(ROWS, CLASSES).softmax(1).double()
    expected = torch.autograd.grad(
        functional.cross_entropy(model(inputs), targets, label_smoothing=0.1), list(model.parameters())
    )
    total = 0.0
    for start in range(0, ROWS, micro):
        rows = slice(start, start + micro)
        part = loss(model(inputs[rows]), targets[rows], label_smoothing=0.1, total=ROWS)
        part.backward()
        total += part.item()
    assert total == pytest.approx(functional.cross_entropy(model(inputs), targets, label_smoothing=0.1).item())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)


def test_a_mean_of_uneven_means_is_not_the_large_batch(batch):
    """The planted fault: averaging the parts' own means, as trainers long did, weighs rows of the last part more."""
    logits, targets = batch
    means = [loss(logits[start : start + 4], targets[start : start + 4]) for start in range(0, ROWS, 4)]
    assert torch.stack(means).mean() != pytest.approx(loss(logits, targets).item(), rel=1e-3)
    parts = [loss(logits[rows], targets[rows], total=ROWS) for rows in split(ROWS, 4)]
    assert torch.stack(parts).sum().item() == pytest.approx(loss(logits, targets).item(), rel=1e-6)


def test_bad_targets_are_refused(batch):
    logits, targets = batch
    for wrong in (targets[:-1], one_hot(targets)[:, :-1], targets.float()):
        with pytest.raises(TrainingError):
            loss(logits, wrong)
    with pytest.raises(TrainingError, match="class weights"):
        loss(logits, targets, class_weights=WEIGHTS[:-1])
    for settings in ({"label_smoothing": 1.0}, {"class_weights": [1.0, 0.0]}, {"class_weights": [float("nan")]}):
        with pytest.raises(ConfigError):
            Loss(**settings)


def test_the_loss_is_a_row_loss_in_float32_with_nothing_to_save():
    made = Loss(class_weights=[1.0, 2.0])
    assert isinstance(made, RowLoss)
    assert made.state_dict() == {}
    assert made(torch.zeros(3, 2, dtype=torch.bfloat16), torch.tensor([0, 1, 1])).dtype == torch.float32


def trained(smoothing, weights=None):
    """A small network trained on three overlapping clouds, and its test logits."""
    torch.manual_seed(0)
    labels = torch.arange(3).repeat(40)
    centres = torch.tensor([[0.0, 2.0], [2.0, 0.0], [-2.0, 0.0]])
    inputs = centres[labels] + torch.randn(120, 2)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        loss(model(inputs), labels, label_smoothing=smoothing, class_weights=weights).backward()
        optimizer.step()
    return model(inputs).detach(), labels


def test_smoothing_makes_the_network_less_sure():
    """Szegedy et al. 2016, Müller et al. 2019: lower top probabilities, higher entropy, and about as accurate."""
    hard, smooth = (trained(smoothing)[0].softmax(1) for smoothing in (0.0, 0.2))
    labels = trained(0.0)[1]

    def entropy(shares):
        return -(shares * shares.clamp_min(1e-12).log()).sum(1).mean()

    assert smooth.max(1).values.mean() < hard.max(1).values.mean() - 0.05
    assert smooth.max() < 0.97 < hard.max()
    assert entropy(smooth) > entropy(hard) + 0.1
    assert (smooth.argmax(1) == labels).float().mean() > (hard.argmax(1) == labels).float().mean() - 0.05


def test_with_smoothing_the_best_answer_is_the_smoothed_target():
    """The loss is least at p = 1 - s + s/K for the true class, by gradient descent on free logits."""
    logits = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        loss(logits, torch.tensor([1]), label_smoothing=0.3).backward()
        optimizer.step()
    torch.testing.assert_close(logits.detach().softmax(1), torch.tensor([[0.1, 0.8, 0.1]]), atol=1e-4, rtol=0)
