"""Class weights and balanced orders, and that they bring rare classes back."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch import nn

from headstart.core import keyed
from headstart.core.errors import ConfigError
from headstart.engine.balance import class_weights, row_weights
from headstart.tasks.classify import loss

LABELS = np.array([0] * 60 + [1] * 30 + [2] * 10)
CLASSES = ("ant", "bee", "cat")


def test_balanced_weights_are_scikit_learns():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert class_weights(LABELS, CLASSES) == pytest.approx(expected)
    assert row_weights(LABELS, 3) == pytest.approx(compute_sample_weight("balanced", LABELS))
    assert row_weights(LABELS, 5) == pytest.approx(compute_sample_weight("balanced", LABELS))


def test_given_weights_keep_their_ratios_and_a_mean_of_one_over_rows():
    found = np.array(class_weights(LABELS, CLASSES, {"cat": 5.0, "ant": 2}))
    assert found / found[1] == pytest.approx([2, 1, 5])
    assert found[LABELS].mean() == pytest.approx(1)
    assert np.array(class_weights(LABELS, CLASSES))[LABELS].mean() == pytest.approx(1)
    assert class_weights(LABELS, CLASSES, "none") is None


def test_all_mistakes_are_said_at_once():
    with pytest.raises(ConfigError) as caught:
        class_weights(LABELS, CLASSES, {"beee": 1.0, "cat": -1.0})
    assert "did you mean 'bee'" in str(caught.value)
    assert "-1.0 is no positive weight" in str(caught.value)
    with pytest.raises(ConfigError, match="no training rows to balance: dog"):
        class_weights(LABELS, (*CLASSES, "dog"))
    with pytest.raises(ConfigError, match="unknown choice"):
        class_weights(LABELS, CLASSES, "balance")


def test_a_balanced_order_has_every_class_equally_often():
    for epoch in range(5):
        order = keyed.weighted_order(0, 0, epoch, row_weights(LABELS, 3))
        counts = np.bincount(LABELS[order], minlength=3)
        assert counts.sum() == 100
        assert counts.max() - counts.min() <= 2
        times = np.bincount(order, minlength=100)
        rare = times[LABELS == 2]
        assert rare.min() >= 3
        assert rare.max() <= 4
        assert times[LABELS == 0].max() <= 1
    other = keyed.weighted_order(0, 0, 1, row_weights(LABELS, 3))
    assert not np.array_equal(np.sort(order), np.sort(other)), "another epoch takes other rows of the common class"


def recall_of_the_rare(weights=None, order=None, seed=0):
    """Recall of a rare, overlapping class (30 of 330 rows) by a linear classifier on fresh rows."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * 300 + [1] * 30)
    inputs = torch.randn(330, 2, generator=rng) + labels[:, None] * 1.2
    if order is not None:
        inputs, labels = inputs[order], labels[order]
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss(model(inputs), labels, class_weights=weights).backward()
        optimizer.step()
    fresh = torch.randn(2000, 2, generator=rng) + 1.2
    return (model(fresh).argmax(1) == 1).float().mean().item()


def test_weights_and_balanced_order_raise_the_recall_of_a_rare_class():
    labels = np.array([0] * 300 + [1] * 30)
    plain = recall_of_the_rare()
    weighted = recall_of_the_rare(weights=torch.tensor(class_weights(labels, ("common", "rare"))))
    order = keyed.weighted_order(0, 0, 0, row_weights(labels, 2))
    sampled = recall_of_the_rare(order=torch.as_tensor(order))
    assert plain < 0.5
    assert weighted > plain + 0.25
    assert sampled > plain + 0.25


def test_even_weights_change_nothing():
    assert recall_of_the_rare(weights=torch.ones(2)) == recall_of_the_rare()
