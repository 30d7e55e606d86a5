"""The probe of several labels: scikit-learn's regression of every column, on one path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from headstart.core.errors import TrainingError
from headstart.stages.solver import solve_path

N, D, K = 150, 12, 4
POSITIVE = (2.0, 1.0, 0.5, 3.0)


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D), correlated, and labels (N, K)."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N, D)) @ (np.eye(D) + 0.3 * rng.normal(size=(D, D)))
    told = StandardScaler().fit_transform(features) @ rng.normal(size=(D, K)) + rng.normal(size=(N, K)) * 2
    return features.astype(np.float32), (told > [0, 1, 3, -1]).astype(np.uint8)


def wanted(features: np.ndarray, labels: np.ndarray, strength: float, positive: tuple[float, ...]) -> np.ndarray:
    """Logits (N, K) of scikit-learn's regression of every column."""
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    found = []
    for index, weight in enumerate(positive):
        mass = np.where(labels[:, index] > 0, weight, 1.0)
        model = LogisticRegression(C=1 / (strength * mass.sum()), tol=1e-10, max_iter=5000)
        found.append(model.fit(standard, labels[:, index], mass).decision_function(standard))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("positive", [None, POSITIVE])
def test_every_label_is_scikit_learns(rows: tuple[np.ndarray, np.ndarray], positive: tuple[float, ...] | None) -> None:
    features, labels = rows
    strengths = (1.0, 0.1, 0.01)
    path = solve_path(features, labels, features, labels, K, strengths=strengths, positive=positive, tolerance=1e-9)
    for index, strength in enumerate(strengths):
        weight, bias = path.linear(index)
        logits = features @ weight.numpy().T + bias.numpy()
        theirs = wanted(features, labels, strength, positive or (1.0,) * K)
        assert np.abs(logits - theirs).max() < 5e-3
        losses = np.logaddexp(0, np.where(labels > 0, -theirs, theirs)).sum(1).mean()
        assert path.log_losses[index] == pytest.approx(losses, abs=1e-4)
    assert path.chosen == int(np.argmin(path.log_losses))
    torch.testing.assert_close(
        path.held_out_logits, torch.as_tensor(features) @ path.weight.T + path.bias, atol=1e-3, rtol=1e-3
    )


def test_folds_hold_every_row_out_once(rows: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = rows
    path = solve_path(features, labels, None, None, K, strengths=(0.1,), folds=3, tolerance=1e-8)
    assert path.held_out == "3 folds"
    inside = features @ path.weight.numpy().T + path.bias.numpy()
    seen = np.logaddexp(0, np.where(labels > 0, -inside, inside)).sum(1).mean()
    assert path.log_losses[0] > seen, "rows that were seen are no harder than those that were not"
    own = np.arange(N) % 2
    halves = solve_path(features, labels, None, None, K, strengths=(0.1,), folds=own, tolerance=1e-9)
    alone = solve_path(
        features[own == 1], labels[own == 1], features[own == 0], labels[own == 0], K, strengths=(0.1,), tolerance=1e-9
    )
    gap = (halves.held_out_logits[own == 0] - alone.held_out_logits).abs().median()
    assert gap < 0.2, "only the standardisation differs"


def test_views_share_the_labels_of_their_rows(rows: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = rows
    once = solve_path(features, labels, features, labels, K, strengths=(0.1,), tolerance=1e-9)
    twice = solve_path(
        np.concatenate([features, features]), labels, features, labels, K, strengths=(0.1,), views=2, tolerance=1e-9
    )
    torch.testing.assert_close(once.held_out_logits, twice.held_out_logits, atol=1e-3, rtol=1e-3)


def test_a_label_that_all_rows_have_costs_nothing(rows: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = rows
    labels = labels.copy()
    labels[:, 0] = 1
    path = solve_path(features, labels, features, labels, K)
    assert torch.isfinite(path.weight).all()
    assert (path.held_out_logits[:, 0] > 3).all()


def test_marks_beyond_one_are_refused(rows: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = rows
    with pytest.raises(TrainingError, match="labels must be 0 to 1"):
        solve_path(features, labels * 2, features, labels, K)
