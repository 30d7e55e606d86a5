"""Ranking metrics against scikit-learn, and what they must not answer."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from headstart.measure import metrics
from headstart.measure.metrics import softmax
from headstart.measure.ranking import SPECIFICITY, roc_auc, sensitivity


def answers(rows: int, classes: int, seed: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1.0
    if levels is not None:  # ties
        logits = np.round(logits * levels) / levels
    return labels, softmax(logits)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [None, 2])
def test_the_area_is_scikit_learns(seed: int, levels: int | None) -> None:
    labels, shares = answers(120, 2, seed, levels)
    assert roc_auc(labels, shares).mean() == pytest.approx(roc_auc_score(labels, shares[:, 1]), abs=1e-12)
    labels, shares = answers(120, 4, seed, levels)
    assert roc_auc(labels, shares).mean() == pytest.approx(roc_auc_score(labels, shares, multi_class="ovr"), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [None, 2])
def test_sensitivity_is_read_off_the_curve(seed: int, levels: int | None) -> None:
    """Where rows tie, all of them are alarmed or none."""
    labels, shares = answers(200, 2, seed, levels)
    wrong, found, _ = roc_curve(labels, shares[:, 1], drop_intermediate=False)
    assert sensitivity(labels, shares) == pytest.approx(found[wrong <= 1 - SPECIFICITY + 1e-12].max())
    alarmed = shares[:, 1][labels == 0]
    threshold = np.sort(alarmed)[len(alarmed) - 1 - int(0.05 * len(alarmed) + 1e-9)]
    assert (alarmed > threshold).mean() <= 1 - SPECIFICITY + 1e-12


def test_what_cannot_be_ranked_has_no_value() -> None:
    _, shares = answers(20, 2, 0)
    assert math.isnan(roc_auc(np.zeros(20, int), shares).mean())
    assert math.isnan(metrics.measure("roc_auc", np.zeros(20, int), shares).low)
    assert math.isnan(sensitivity(np.ones(20, int), shares))
    assert math.isnan(sensitivity(*answers(20, 3, 0)))


def test_they_are_metrics_by_name_with_intervals_and_differences() -> None:
    labels, shares = answers(150, 2, 3)
    measured = metrics.measure("roc_auc", labels, shares)
    assert measured.low < measured.value < measured.high
    worse = np.random.default_rng(0).permuted(shares, axis=0)
    worse /= worse.sum(axis=1, keepdims=True)
    difference = metrics.compare("roc_auc", labels, shares, worse)
    assert difference.low > 0
    assert metrics.higher_is_better("roc_auc")
    assert metrics.higher_is_better("sensitivity")
    assert not metrics.problems("sensitivity")


def test_the_spread_is_delongs() -> None:
    """Var = var(V10) / positives + var(V01) / negatives, from every pair counted one by one."""
    labels, shares = answers(90, 2, 1, 2)
    ill, healthy = shares[labels == 1, 1], shares[labels == 0, 1]
    wins = (ill[:, None] > healthy).astype(float) + 0.5 * (ill[:, None] == healthy)
    expected = wins.mean(1).var() / len(ill) + wins.mean(0).var() / len(healthy)
    rows = roc_auc(labels, shares)
    assert rows.var() / len(rows) == pytest.approx(expected)


def test_the_interval_covers() -> None:
    """Of many small samples, about 95 % of the intervals hold the area of all rows."""
    labels, shares = answers(40_000, 2, 7)
    truth = roc_auc(labels, shares).mean()
    rng = np.random.default_rng(1)
    hits, seeds = 0, 300
    for _ in range(seeds):
        rows = rng.choice(len(labels), 80, replace=False)
        found = metrics.measure("roc_auc", labels[rows], shares[rows])
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / seeds <= 1.0


@pytest.mark.parametrize("apart", [1.5, 3.5, 4.5])
def test_the_interval_of_a_sensitivity_covers_where_nearly_all_are_found(apart: float) -> None:
    """Scores of two normal distributions: 44, 97 and 99.8 % of the ill lie above 95 % of the healthy."""
    normal = statistics.NormalDist()
    truth = 1 - normal.cdf(normal.inv_cdf(SPECIFICITY) - apart)
    labels = np.repeat([0, 1], (60, 30))
    hits, seeds = 0, 60
    for seed in range(seeds):
        scores = np.random.default_rng(seed).normal(apart * labels)
        ill = 1 / (1 + np.exp(-scores))
        found = metrics.measure("sensitivity", labels, np.stack([1 - ill, ill], 1))
        assert found.low < found.high, "n rows prove nothing for certain"
        hits += found.low <= truth <= found.high
    assert hits / seeds >= 0.9


def test_two_classes_are_told_their_area_and_many_are_not() -> None:
    from headstart.measure.evaluation import Evaluation

    def named(classes: int) -> set[str]:
        labels, shares = answers(60, classes, 0)
        names = tuple(f"c{index}" for index in range(classes))
        return set(Evaluation("val", np.arange(60), np.log(shares).astype(np.float32), labels, names).metrics())

    assert "roc_auc" in named(2)
    assert not {"roc_auc", "sensitivity"} & named(3)
