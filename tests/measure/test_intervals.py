"""Intervals: known values, coverage by exact sums and by simulation, paired comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headstart.measure import intervals, metrics


def binomial(n: int, p: float) -> np.ndarray:
    return np.array([math.comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(n + 1)])


def test_wilson_matches_published_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), table I, method 3.
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = intervals.wilson(successes, n)
        assert found == pytest.approx((low, high), abs=6e-5)


def test_wilson_of_nothing_says_nothing() -> None:
    assert intervals.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("n", [30, 100, 500])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.97])
def test_wilson_coverage_is_exact_enough(n: int, p: float) -> None:
    weights = binomial(n, p)
    hits = [low <= p <= high for low, high in (intervals.wilson(x, n) for x in range(n + 1))]
    assert 0.93 <= float(weights[np.array(hits)].sum()) <= 0.975


def test_the_wald_interval_would_fail_the_coverage_check() -> None:
    n, p = 30, 0.97
    x = np.arange(n + 1) / n
    half = intervals.Z95 * np.sqrt(x * (1 - x) / n)
    assert binomial(n, p)[np.abs(x - p) <= half].sum() < 0.7


def _simulate(rng: np.random.Generator, n: int, p: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % k
    predicted = np.where(rng.random(n) < p, labels, (labels + rng.integers(1, k, n)) % k)
    return labels, np.eye(k)[predicted]


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
@pytest.mark.parametrize(("n", "p"), [(n, p) for n in (30, 100, 500) for p in (0.5, 0.9, 0.97)])
def test_coverage_of_class_weighted_metrics(metric: str, n: int, p: float) -> None:
    k, draws, rng = 3, 800, np.random.default_rng(n)
    true = p  # balanced classes with symmetric errors: macro F1 and balanced accuracy equal the accuracy
    hits = 0
    for _ in range(draws):
        measured = metrics.measure(metric, *_simulate(rng, n, p, k))
        hits += measured.low <= true <= measured.high
    noise = 2.5 * math.sqrt(0.05 * 0.95 / draws)
    assert 0.93 - noise <= hits / draws <= 0.975 + noise


def test_coverage_of_balanced_accuracy_with_rare_classes() -> None:
    rng, hits, draws = np.random.default_rng(0), 0, 500
    labels = np.repeat(np.arange(3), [80, 10, 10])
    for _ in range(draws):
        right = rng.random(100) < 0.9
        predicted = np.where(right, labels, (labels + 1) % 3)
        measured = metrics.measure("balanced_accuracy", labels, np.eye(3)[predicted])
        hits += measured.low <= 0.9 <= measured.high
    assert hits / draws >= 0.91


def test_macro_f1_interval_agrees_with_the_bootstrap_when_rows_are_many() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(4, 3000, p=[0.6, 0.2, 0.1, 0.1])
    predicted = np.where(rng.random(3000) < 0.8, labels, rng.integers(0, 4, 3000))
    answers = np.eye(4)[predicted]
    measured = metrics.measure("macro_f1", labels, answers)

    def statistic(rows: np.ndarray) -> float:
        return metrics.f1(metrics.confusion(labels[rows], predicted[rows], 4))[0]

    low, high = intervals.bootstrap(statistic, 3000, draws=800)
    assert measured.high - measured.low == pytest.approx(high - low, rel=0.12)


@pytest.mark.parametrize("n", [30, 100, 500])
def test_coverage_of_a_skewed_mean(n: int) -> None:
    rng, draws = np.random.default_rng(n), 2000
    losses = rng.gamma(0.5, 2.0, (draws, n))  # mean 1, skewness 2.8, as log-losses are
    found = [intervals.mean(row) for row in losses]
    assert 0.92 <= np.mean([low <= 1.0 <= high for low, high in found]) <= 0.975


def test_mean_of_equal_values_and_of_one_row() -> None:
    assert intervals.mean(np.full(10, 0.3)) == pytest.approx((0.3, 0.3))
    assert intervals.mean(np.array([0.3])) == (0.3, math.inf)


def test_bootstrap_is_seeded_and_keeps_strata() -> None:
    labels = np.array([0] * 50 + [1])
    found = intervals.resamples(lambda rows: float((labels[rows] == 1).sum()), 51, strata=labels, draws=50)
    assert (found == 1).all()
    values = np.arange(51.0)
    first = intervals.bootstrap(lambda rows: float(values[rows].mean()), 51, seed=3)
    assert first == intervals.bootstrap(lambda rows: float(values[rows].mean()), 51, seed=3)
    assert first != intervals.bootstrap(lambda rows: float(values[rows].mean()), 51, seed=4)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (6, 0), (2, 9), (30, 55), (700, 500)])
def test_mcnemar_is_the_exact_binomial_test_less_half_of_what_was_seen(only_a: int, only_b: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    total = only_a + only_b
    wanted = stats.binomtest(only_a, total, 0.5).pvalue - stats.binom.pmf(only_a, total, 0.5) if total else 1.0
    assert intervals.mcnemar(only_a, only_b) == pytest.approx(wanted, rel=1e-9)


def test_the_p_value_and_the_interval_say_the_same() -> None:
    """Nearly: they are made of different approximations."""
    apart = [
        (only_a, only_b, n)
        for n in (18, 40, 153)
        for only_a in range(0, 13)
        for only_b in range(0, min(13, n - only_a + 1))
        if (found := pair_of(only_a, only_b, n)).significant != (found.p < 0.05)
    ]
    assert intervals.paired(*correct(5, 0, 18)).p == pytest.approx(2 / 2**5 - 1 / 2**5)
    assert len(apart) <= 0.03 * 3 * 13 * 13, apart


def correct(only_a: int, only_b: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that were right in A alone, in B alone, and in both."""
    both = [True] * (n - only_a - only_b)
    return np.array([True] * only_a + [False] * only_b + both), np.array([False] * only_a + [True] * only_b + both)


def pair_of(only_a: int, only_b: int, n: int) -> intervals.Difference:
    return intervals.paired(*correct(only_a, only_b, n))


def test_bonett_price_by_hand() -> None:
    # 21 children before and after: discordant 1 and 7 (the airway data of Fagerland, Lydersen & Laake 2014).
    a = np.array([True] * 1 + [False] * 7 + [True] * 1 + [False] * 12)
    b = np.array([False] * 1 + [True] * 7 + [True] * 1 + [False] * 12)
    found = intervals.paired(a, b)
    only_a, only_b = 2 / 23, 8 / 23
    half = intervals.Z95 * math.sqrt((only_a + only_b - (only_a - only_b) ** 2) / 23)
    assert (found.low, found.high) == pytest.approx((only_a - only_b - half, only_a - only_b + half))
    assert found.value == pytest.approx(-6 / 21)
    assert found.p == pytest.approx((2 * (1 + 8) - 8) / 2**8)
    assert found.n == 21


def test_two_equal_models_differ_by_nothing_but_not_with_certainty() -> None:
    right = np.ones(50, dtype=bool)
    found = intervals.paired(right, right)
    assert found.value == 0
    assert found.p == 1
    assert found.low < 0 < found.high
    assert not found.significant


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "balanced_accuracy", "log_loss", "brier"])
def test_equals_are_told_apart_in_at_most_one_case_of_twenty(metric: str) -> None:
    rng, claims, draws, k = np.random.default_rng(7), 0, 600, 4
    for _ in range(draws):
        labels = rng.integers(0, k, 150)
        shared = rng.normal(size=(150, k)) + 2.0 * np.eye(k)[labels]
        a, b = (metrics.softmax(shared + 0.7 * rng.normal(size=(150, k))) for _ in range(2))
        claims += metrics.compare(metric, labels, a, b).significant
    assert claims / draws <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize("metric", [*metrics.METRICS, "ece"])
def test_a_planted_difference_is_found(metric: str) -> None:
    rng, k = np.random.default_rng(5), 8
    labels = rng.integers(0, k, 800)
    good = metrics.softmax(rng.normal(size=(800, k)) + 4 * np.eye(k)[labels])
    bad = metrics.softmax(4 * (rng.normal(size=(800, k)) + 0.8 * np.eye(k)[labels]))
    found = metrics.compare(metric, labels, good, bad)
    assert found.significant
    assert (found.value > 0) == metrics.higher_is_better(metric)
    assert found.p < 0.05
