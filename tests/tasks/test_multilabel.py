"""The loss of several labels: torch's, theory's at the start, additive over any split."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from headstart.core.errors import ConfigError, TrainingError
from headstart.engine import mixing
from headstart.engine.balance import class_weights, row_weights
from headstart.engine.memory import split
from headstart.tasks.base import RowLoss
from headstart.tasks.multilabel import Loss

ROWS, LABELS = 10, 4
WEIGHTS = [0.5, 1.0, 2.0, 3.0]


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, LABELS, generator=rng) * 2
    return logits, torch.randint(0, 2, (ROWS, LABELS), generator=rng, dtype=torch.uint8)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_the_formula(batch, smoothing, weights):
    logits, targets = batch
    made = Loss(label_smoothing=smoothing, class_weights=weights)
    assert isinstance(made, RowLoss)
    soft = (1 - smoothing) * targets.double() + smoothing / 2
    each = torch.ones(LABELS) if weights is None else torch.tensor(weights)
    yes, no = -functional.logsigmoid(logits.double()), -functional.logsigmoid(-logits.double())
    expected = (each * soft * yes + (1 - soft) * no).sum()
    assert made(logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_zero_head_starts_at_k_ln_2(batch):
    _, targets = batch
    assert (Loss()(torch.zeros(ROWS, LABELS), targets) / ROWS).item() == pytest.approx(LABELS * math.log(2))


@pytest.mark.parametrize("micro", [1, 3, 10])
def test_accumulation_is_the_large_batch(batch, micro):
    logits, targets = batch
    made = Loss(label_smoothing=0.1, class_weights=WEIGHTS)
    parts = sum(made(logits[cut], targets[cut]) for cut in split(ROWS, micro))
    torch.testing.assert_close(parts, made(logits, targets))


def test_mixed_rows_have_shares_of_both(batch):
    _, targets = batch
    inputs = torch.rand(ROWS, 3, 8, 8)
    _, mixed = mixing.apply(mixing.Draw("mixup", 0.7), inputs, targets, LABELS)
    torch.testing.assert_close(mixed, 0.7 * targets.float() + 0.3 * targets.float().roll(1, 0))


def test_balanced_weights_make_both_sides_weigh_the_same():
    labels = np.zeros((20, 2), dtype=np.uint8)
    labels[:4, 0] = labels[:15, 1] = 1
    weights = class_weights(labels, ("rare", "frequent"), "balanced")
    assert weights == (16 / 4, 5 / 15)
    made = Loss(class_weights=weights)
    logits = torch.zeros(20, 2, requires_grad=True)
    made(logits, torch.as_tensor(labels)).backward()
    assert logits.grad.sum(0).abs().max() < 1e-5, "a constant answer is pulled to one side"
    assert class_weights(labels, ("rare", "frequent"), {"rare": 3.0}) == (3.0, 1.0)


def test_what_cannot_be_is_refused(batch):
    logits, targets = batch
    with pytest.raises(TrainingError, match="do not fit"):
        Loss()(logits, targets[:, 0])
    with pytest.raises(ConfigError, match="positive"):
        Loss(class_weights=[1.0, 0.0])
    with pytest.raises(ConfigError, match="nothing to balance"):
        class_weights(np.ones((3, 1), dtype=np.uint8), ("all",), "balanced")
    with pytest.raises(ConfigError, match="cannot be drawn"):
        row_weights(np.ones((3, 2), dtype=np.uint8), 2)
