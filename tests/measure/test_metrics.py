"""Metrics: parity with scikit-learn, intervals around every value, own functions."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.errors import ConfigError
from headstart.measure import metrics
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import Difference, normal_p


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(9, 400, p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.0])  # class 8 never occurs
    return labels, metrics.softmax(rng.normal(size=(400, 9)) + 2 * np.eye(9)[labels])


def test_parity_with_scikit_learn(answers: tuple[np.ndarray, np.ndarray]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, p = answers
    predicted = p.argmax(axis=1)
    present = np.isin(predicted, labels)  # balanced_accuracy_score warns of classes that are predicted only
    wanted = {
        "accuracy": sklearn.accuracy_score(labels, predicted),
        "top5": sklearn.top_k_accuracy_score(labels, p, k=5, labels=range(9)),
        "macro_f1": sklearn.f1_score(labels, predicted, average="macro"),
        "log_loss": sklearn.log_loss(labels, p, labels=range(9)),
        "brier": float(((p - np.eye(9)[labels]) ** 2).sum(axis=1).mean()),
    }
    for name, value in wanted.items():
        assert metrics.measure(name, labels, p).value == pytest.approx(value, abs=1e-12), name
    found = metrics.measure("balanced_accuracy", labels[present], p[present])
    assert found.value == pytest.approx(sklearn.balanced_accuracy_score(labels[present], predicted[present]))


def test_brier_is_the_squared_distance(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels = np.array([0, 1])
    p = np.array([[1.0, 0.0], [0.8, 0.2]])
    assert metrics.measure("brier", labels, p).value == pytest.approx((0 + 0.8**2 + 0.8**2) / 2)


def test_influences_are_derivatives() -> None:
    table = np.array([[30.0, 5, 2], [4, 20, 0], [1, 3, 9]])
    for score in (metrics.f1, metrics.recall):
        value, influence = score(table)
        assert (table * influence).sum() == pytest.approx(0, abs=1e-9)
        for cell in np.ndindex(3, 3):
            more = table.copy()
            more[cell] += 1e-5
            assert (score(more)[0] - value) / 1e-5 * table.sum() == pytest.approx(influence[cell], abs=1e-3)


@pytest.mark.parametrize("name", sorted({*metrics.METRICS, "ece"} - {"roc_auc"}))
def test_every_interval_contains_its_value(name: str, answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, p = answers
    right = np.eye(9)[labels]
    for probabilities in (p, right, np.roll(right, 1, axis=1)):
        for n in (1, 2, 7, 400):
            found = metrics.measure(name, labels[:n], probabilities[:n])
            assert found.low <= found.value <= found.high
            assert found.n == n


def test_perfect_answers_keep_an_honest_lower_bound() -> None:
    labels = np.arange(30) % 3
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        found = metrics.measure(name, labels, np.eye(3)[labels])
        assert found.value == 1
        assert 0.8 < found.low < 0.93
        assert found.high == 1


def test_ties_are_settled_by_the_first_class() -> None:
    p = np.full((7, 7), 1 / 7)
    assert metrics.measure("top5", np.arange(7), p).value == pytest.approx(5 / 7)
    assert metrics.measure("accuracy", np.arange(7), p).value == pytest.approx(1 / 7)


def test_an_own_function_gets_labels_and_probabilities(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, p = answers

    def miss_rate(true: np.ndarray, probabilities: np.ndarray) -> float:
        return float((probabilities.argmax(axis=1) != true).mean())

    found = metrics.measure(miss_rate, labels, p)
    accuracy = metrics.measure("accuracy", labels, p)
    assert found.value == pytest.approx(1 - accuracy.value)
    assert found.high - found.low == pytest.approx(accuracy.high - accuracy.low, rel=0.25)
    miss_rate.higher_is_better = False  # type: ignore[attr-defined]
    assert not metrics.higher_is_better(miss_rate)
    assert metrics.higher_is_better("accuracy")
    assert not metrics.higher_is_better("ece")


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        metrics.measure("acuracy", np.array([0]), np.array([[0.6, 0.4]]))


def test_what_rows_of_one_class_cannot_tell_is_left_out() -> None:
    logits, classes = np.random.default_rng(0).normal(size=(9, 2)), ("a", "b")
    alone = Evaluation("test", np.arange(9), logits, np.zeros(9, int), classes)
    both = Evaluation("test", np.arange(9), logits, np.arange(9) % 2, classes)

    def odd(labels: np.ndarray, probabilities: np.ndarray) -> float:
        return float("nan") if labels.all() or not labels.any() else 0.5

    for own in ("roc_auc", "sensitivity", odd):
        name = metrics.name_of(own)
        assert name in both.as_json(own)
        assert name not in alone.as_json(own, partly=True)
        assert "accuracy" in alone.as_json(own, partly=True)
    with pytest.raises(ConfigError, match="gives nan on 9 rows"):
        alone.as_json(odd)  # such as of validation rows, which it decides on


def test_a_metric_of_two_classes_says_so() -> None:
    assert metrics.check("sensitivity", np.array([0, 1, 1])) == "sensitivity"
    with pytest.raises(ConfigError, match="of two classes that is found, and these are 3"):
        metrics.check("sensitivity", np.array([0, 1, 2]))


def test_softmax_survives_large_logits() -> None:
    p = metrics.softmax(np.array([[1e4, 0.0, -1e4]]))
    assert p.tolist() == [[1.0, 0.0, 0.0]]
    assert metrics.measure("log_loss", np.array([2]), p).value < 1000


def test_a_resampled_difference_is_as_unlikely_from_either_side() -> None:
    """Of two equally good models chance explains everything; which of two is the first changes no p-value."""
    rng = np.random.default_rng(0)
    labels, sure = np.zeros(60, int), rng.uniform(0.3, 0.7, 60)
    moved = rng.normal(size=60)
    moved = 0.1 * (moved - moved.mean()) / moved.std()

    def trust(true: np.ndarray, probabilities: np.ndarray) -> float:
        return float(probabilities[np.arange(len(true)), true].mean())

    def compared(gain: float) -> tuple[Difference, Difference]:
        a, b = (np.stack([each, 1 - each], axis=1) for each in (sure + moved + gain, sure))
        return metrics.compare(trust, labels, a, b), metrics.compare(trust, labels, b, a)

    assert compared(0.0)[0].p > 0.85
    better, worse = compared(0.02)
    assert better.value == pytest.approx(0.02)
    assert worse.value == pytest.approx(-0.02)
    assert better.p == pytest.approx(worse.p)
    assert better.p == pytest.approx(normal_p(0.02 / (0.1 / np.sqrt(60))), rel=0.35)


def test_an_own_function_sees_every_class_in_every_resample() -> None:
    """As often as the rows have it: a class of three rows goes missing in one of twenty draws otherwise."""
    labels = np.repeat([0, 1, 2], [30, 20, 3])
    probabilities = np.full((53, 3), 1 / 3)
    seen: set[tuple[int, ...]] = set()

    def counts(true: np.ndarray, probabilities: np.ndarray) -> float:
        seen.add(tuple(np.bincount(true, minlength=3).tolist()))
        return 0.5

    metrics.measure(counts, labels, probabilities)
    assert seen == {(30, 20, 3)}
    metrics.compare(counts, labels, probabilities, probabilities)
    assert seen == {(30, 20, 3)}
