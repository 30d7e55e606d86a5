"""Calibration: the temperature is the minimum, never harms, and the null band is what calibrated models show."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.measure import calibration, intervals, metrics


def calibrated(rng: np.random.Generator, n: int, k: int = 5, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth: labels are drawn from it."""
    logits = sharpness * rng.normal(size=(n, k))
    p = metrics.softmax(logits)
    return logits, (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)


def test_the_temperature_is_the_minimum_of_the_log_loss() -> None:
    logits, labels = calibrated(np.random.default_rng(0), 20_000)
    for factor in (0.5, 1.0, 3.0):
        temperature = calibration.fit_temperature(logits * factor, labels)
        assert temperature == pytest.approx(factor, rel=0.05)
        grid = np.geomspace(0.2, 6, 600)
        losses = [-metrics.log_softmax(logits[:2000] * factor / t)[np.arange(2000), labels[:2000]].mean() for t in grid]
        found = calibration.fit_temperature(logits[:2000] * factor, labels[:2000])
        assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)


def test_the_temperature_never_harms_new_rows_and_moves_no_prediction() -> None:
    worse = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        logits, labels = calibrated(rng, 3000)
        logits = (logits * rng.uniform(0.6, 2.5)).astype(np.float32)
        temperature = calibration.fit_temperature(logits[:400], labels[:400])
        scaled = logits / np.float32(temperature)
        assert (scaled.argmax(axis=1) == logits.argmax(axis=1)).all()
        rest = slice(400, None)
        before, after = (metrics.measure("log_loss", labels[rest], metrics.softmax(x[rest])) for x in (logits, scaled))
        worse.append(after.value - before.value)
    assert max(worse) <= 0.005


def test_a_flawless_validation_split_does_not_ask_for_infinite_confidence() -> None:
    labels = np.arange(60) % 3
    logits = 4.0 * np.eye(3)[labels]
    temperature = calibration.fit_temperature(logits, labels)
    confidence = metrics.softmax(logits / temperature).max()
    assert 0.9 < confidence < 0.995
    assert calibration.fit_temperature(np.zeros((5, 3)), np.array([0, 1, 2, 0, 1])) > 0
    assert calibration.fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0


def test_ece_on_hand_made_bins() -> None:
    confidence = np.array([0.6] * 10 + [0.9] * 10)
    correct = np.array([1] * 5 + [0] * 5 + [1] * 9 + [0])
    assert calibration.ece_of(confidence, correct.astype(float), bins=2) == pytest.approx(0.5 * 0.1 + 0.5 * 0.0)


def test_a_calibrated_model_stays_inside_the_null_band() -> None:
    inside, gaps = 0, []
    for seed in range(200):
        logits, labels = calibrated(np.random.default_rng(seed), 500)
        found = calibration.reliability(metrics.softmax(logits), labels, seed=seed)
        inside += found.ece <= found.ece_null[2]
        gaps.append(found.ece - found.ece_null[1])
    assert inside / 200 >= 0.93
    assert abs(np.mean(gaps)) < 0.003


def test_a_planted_overconfidence_leaves_the_band() -> None:
    logits, labels = calibrated(np.random.default_rng(1), 2000)
    found = calibration.reliability(metrics.softmax(3 * logits), labels)
    assert found.ece > found.ece_null[2]
    assert found.verdict == "overconfident"
    assert calibration.reliability(metrics.softmax(logits / 3), labels).verdict == "underconfident"
    assert calibration.reliability(metrics.softmax(logits), labels).verdict == "consistent with perfect calibration"
    assert calibration.reliability(metrics.softmax(3 * logits[:100]), labels[:100]).verdict == "too few rows"


def test_bins_have_equal_mass_and_carry_intervals() -> None:
    logits, labels = calibrated(np.random.default_rng(2), 1000)
    found = calibration.reliability(metrics.softmax(logits), labels)
    assert found.count.sum() == 1000
    assert found.count.max() - found.count.min() <= 1
    assert (np.diff(found.confidence) >= 0).all()
    assert ((found.low <= found.accuracy) & (found.accuracy <= found.high)).all()
    assert ((found.null_low <= found.confidence + 0.05) & (found.confidence - 0.05 <= found.null_high)).all()
    assert len(found.as_json()["confidence"]) == 15
    assert calibration.bins_for(60) == 3


def test_ece_interval_covers_the_true_error() -> None:
    rng = np.random.default_rng(3)
    logits, labels = calibrated(rng, 400_000)
    truth = calibration.ece(metrics.softmax(2 * logits), labels, bins=200)
    hits = 0
    for seed in range(200):
        logits, labels = calibrated(np.random.default_rng(1000 + seed), 500)
        found = calibration.ece_measured(metrics.softmax(2 * logits), labels, seed=seed)
        hits += found.low <= truth <= found.high
    assert hits / 200 >= 0.9


@pytest.mark.parametrize(("right", "off"), [(True, 0.25), (False, 0.25)])
def test_ece_has_an_interval_where_every_answer_is_right(right: bool, off: float) -> None:
    """Or wrong: 12 rows that all agree leave a share of .76 or more of such rows possible."""
    confidence = np.linspace(0.8, 0.98, 12)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    found = calibration.ece_measured(probabilities, np.zeros(12, int) if right else np.ones(12, int))
    assert found.value == pytest.approx(0.11 if right else 0.89)
    reach = 1 - intervals.wilson(12, 12)[0]
    assert reach == pytest.approx(off, abs=0.01)
    assert found.low == pytest.approx(max(0.0, found.value - reach))
    assert found.high == pytest.approx(max(found.value, reach - found.value))
    assert found.low < found.value
