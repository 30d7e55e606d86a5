"""Several labels a row: scikit-learn's values, influences that are derivatives, intervals, and what is not asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference

from headstart.core.errors import ConfigError, HeadstartError
from headstart.measure import calibration, metrics, multilabel
from headstart.measure.evaluation import Evaluation

LABELS = ("a", "b", "c", "d", "e")


def drawn(n: int, seed: int = 0, skill: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 5), rounded so that many are equal, and labels (N, 5) of which a row may have none."""
    rng = np.random.default_rng(seed)
    together = rng.normal(size=(n, 1))
    labels = (rng.normal(size=(n, 5)) + 0.7 * together > [0, 0.5, 1.3, 0.8, 1.6]).astype(np.uint8)
    logits = (2.0 * labels - 1) * skill + rng.normal(size=(n, 5)) * 1.2 - 0.5
    return np.round(logits, 1), labels


def answers(n: int = 300, seed: int = 0, **own: float) -> Evaluation:
    logits, labels = drawn(n, seed, **own)
    return Evaluation("val", np.arange(n), logits, labels, LABELS)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_values_are_scikit_learns(threshold: float) -> None:
    logits, labels = drawn(300)
    found = Evaluation("val", np.arange(300), logits, labels, LABELS, threshold=threshold)
    given = found.probabilities >= threshold
    wanted = {
        "mAP": reference.average_precision_score(labels, found.probabilities, average="macro"),
        "macro_f1": reference.f1_score(labels, given, average="macro"),
        "micro_f1": reference.f1_score(labels, given, average="micro"),
        "subset_accuracy": reference.accuracy_score(labels, given),
        "hamming_loss": reference.hamming_loss(labels, given),
        "log_loss": sum(reference.log_loss(labels[:, k], found.probabilities[:, k]) for k in range(5)),
    }
    for name, value in wanted.items():
        measured = found.metric(name)
        assert measured.value == pytest.approx(value, abs=1e-9), name
        assert measured.low < value < measured.high, name
    assert found.losses.mean() == pytest.approx(wanted["log_loss"])
    assert list(found.metrics()) == [*metrics.MULTILABEL, "ece"]


def test_labels_are_measured_one_by_one() -> None:
    found = answers()
    for index, each in enumerate(found.per_class()):
        true, given = found.labels[:, index], found.predicted[:, index]
        value = reference.average_precision_score(true, found.probabilities[:, index])
        assert each.average_precision is not None
        assert each.average_precision.value == pytest.approx(value)
        assert each.f1.value == pytest.approx(reference.f1_score(true, given))
        assert each.recall.n == true.sum()


@pytest.mark.parametrize("name", ["mAP", "macro_f1", "micro_f1"])
def test_what_a_row_contributes_is_its_influence(name: str) -> None:
    """The mean of the rows is the metric, and a row that counts a little more moves it by that much."""
    found, entry = answers(120), metrics.MULTILABEL[name]
    seen = found.predicted if entry.decides else found.probabilities
    rows = entry.rows(found.labels, seen)
    assert rows.mean() == pytest.approx(found.metric(name).value)
    for row in (0, 7, 50):
        times = np.ones(120, dtype=int) * 400
        times[row] += 4  # one percent more of it
        many = np.repeat(np.arange(120), times)
        moved = entry.rows(found.labels[many], seen[many]).mean() - rows.mean()
        assert moved == pytest.approx((rows[row] - rows.mean()) * 4 / len(many), rel=0.05, abs=1e-9)


def test_equal_scores_are_ranked_together() -> None:
    labels, scores = np.array([1, 0, 1, 0, 0, 1]) > 0, np.array([0.5, 0.5, 0.5, 0.2, 0.9, 0.2])
    wanted = reference.average_precision_score(labels, scores)
    assert multilabel.average_precision(labels, scores).mean() == pytest.approx(wanted)
    order = np.array([2, 4, 0, 5, 1, 3])
    assert multilabel.average_precision(labels[order], scores[order]).mean() == pytest.approx(wanted)


def test_labels_without_rows_do_not_count() -> None:
    logits, labels = drawn(80)
    labels[:, 4] = 0
    found = Evaluation("val", np.arange(80), logits, labels, LABELS)
    wanted = reference.average_precision_score(labels[:, :4], found.probabilities[:, :4], average="macro")
    assert found.metric("mAP").value == pytest.approx(wanted)
    nothing = Evaluation("val", np.arange(80), logits, np.zeros_like(labels), LABELS)
    assert np.isnan(nothing.metric("mAP").value)
    assert nothing.metric("macro_f1").value == 0.0


def test_a_perfect_answer_is_not_known_exactly() -> None:
    _, labels = drawn(40)
    found = Evaluation("val", np.arange(40), (2.0 * labels - 1) * 9, labels, LABELS)
    for name in ("mAP", "macro_f1", "micro_f1", "subset_accuracy"):
        measured = found.metric(name)
        assert measured.value == pytest.approx(1.0)
        assert measured.low < 0.95, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mAP", "macro_f1", "micro_f1", "hamming_loss"])
@pytest.mark.parametrize("n", [60, 200])
def test_intervals_hold_what_they_claim(name: str, n: int) -> None:
    truth = answers(60_000, seed=1).metric(name).value
    spans = [answers(n, seed=seed).metric(name) for seed in range(2, 302)]
    assert np.mean([span.low <= truth <= span.high for span in spans]) >= 0.92


def test_models_are_compared_on_the_same_rows() -> None:
    good, poor = answers(200, skill=2.0), answers(200, skill=0.3)
    for name in ("mAP", "macro_f1", "subset_accuracy", "log_loss"):
        difference = good.compare(poor, name)
        gain = difference.value if metrics.higher_is_better(name) else -difference.value
        assert gain > 0, name
        assert difference.significant, name
    assert good.compare(good, "mAP").value == 0
    assert good.compare(poor).value == good.compare(poor, "mAP").value, "judged by another metric unless told"


def test_a_metric_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="any number of labels"):
        answers(20).metric("accuracy")
    with pytest.raises(ConfigError, match="one class each"):
        metrics.check("mAP", np.array([0, 1]))
    with pytest.raises(HeadstartError, match="no confusion"):
        answers(20).confusion()


def test_one_temperature_mends_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 4)) * 2
    labels = (rng.random((3000, 4)) < multilabel.sigmoid(logits)).astype(np.uint8)
    assert calibration.fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.1)
    found = Evaluation("val", np.arange(3000), logits * 3, labels, LABELS[:4])
    mended = found.with_temperature(3.0)
    assert mended.metric("ece").value < 0.3 * found.metric("ece").value
    assert mended.reliability().n == 12_000
    assert np.array_equal(mended.predicted, found.predicted)


def test_large_logits_keep_their_losses() -> None:
    logits, labels = np.array([[800.0, -800.0]]), np.array([[0, 1]], dtype=np.uint8)
    assert multilabel.losses(logits, labels) == pytest.approx([1600.0])


def test_answers_are_kept_with_their_threshold(tmp_path: Path) -> None:
    logits, labels = drawn(30)
    found = Evaluation("val", np.arange(30), logits, labels, LABELS, threshold=0.25)
    found.save(tmp_path / "answers.npz")
    again = Evaluation.load(tmp_path / "answers.npz")
    assert np.array_equal(again.labels, labels)
    assert np.array_equal(again.predicted, found.predicted)
    frame = again.frame()
    assert frame["label"][0] == [LABELS[index] for index in np.flatnonzero(labels[0])]
    assert "confidence" not in frame
    with pytest.raises(HeadstartError, match="0 or 1"):
        Evaluation("val", np.arange(30), logits, labels * 2, LABELS)


def test_a_metric_that_few_rows_have_moved_is_smoothed_by_two_more() -> None:
    """Its variance is that of the rows with two beside them, as far off as the farthest is, up and down."""
    rows = np.r_[np.full(29, 0.95), 0.5]
    far = np.abs(rows - rows.mean()).max()
    wider = np.r_[rows, rows.mean() - far, rows.mean() + far]
    share = rows.mean() * (1 - rows.mean())
    assert multilabel.design_effect(rows) == pytest.approx(wider.var() / share)
    assert multilabel.design_effect(rows) > 2 * rows.var() / share


def test_each_model_is_judged_at_its_own_threshold() -> None:
    logits, labels = drawn(200)
    usual, eager = (Evaluation("val", np.arange(200), logits, labels, LABELS, threshold=t) for t in (0.5, 0.2))
    for name in ("macro_f1", "micro_f1", "subset_accuracy", "hamming_loss"):
        wanted = usual.metric(name).value - eager.metric(name).value
        assert wanted != 0
        assert usual.compare(eager, name).value == pytest.approx(wanted)
        assert eager.compare(usual, name).value == pytest.approx(-wanted)


def test_parts_are_put_together_with_their_threshold() -> None:
    logits, labels = drawn(40)
    parts = [(rows, logits[rows]) for rows in np.array_split(np.arange(40), 3)]
    found = Evaluation.gather("val", parts, labels, LABELS, threshold=0.2)
    assert np.array_equal(found.predicted, multilabel.sigmoid(found.logits) >= 0.2)
    assert not np.array_equal(found.predicted, found.probabilities >= 0.5)
