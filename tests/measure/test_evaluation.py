"""Evaluations: proven complete, saved without pickle, paired on rows."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import ArtefactError, HeadstartError
from headstart.measure.evaluation import Evaluation

CLASSES = ("ant", "bée\udcff", "<b>=cmd</b>")


def make(n: int = 60, seed: int = 0, strength: float = 2.0, classes: tuple[str, ...] = CLASSES) -> Evaluation:
    rng, k = np.random.default_rng(seed), len(classes)
    labels = np.arange(n) % k
    return Evaluation("val", np.arange(n), rng.normal(size=(n, k)) + strength * np.eye(k)[labels], labels, classes)


def test_parts_may_come_in_any_order_and_padded() -> None:
    whole = make()
    order = np.random.default_rng(1).permutation(60)
    parts = [(rows, whole.logits[rows]) for rows in np.array_split(order, 7)]
    parts.append((order[:3], whole.logits[order[:3]] + 9))  # a sampler's padding repeats rows
    found = Evaluation.gather("val", parts, whole.labels, CLASSES)
    assert (found.rows == whole.rows).all()
    assert (found.logits == whole.logits).all()


def test_missing_and_foreign_rows_are_refused() -> None:
    whole = make()
    with pytest.raises(HeadstartError, match=r"1 rows .* never evaluated: rows 59"):
        Evaluation.gather("val", [(np.arange(59), whole.logits[:59])], whole.labels, CLASSES)
    with pytest.raises(HeadstartError, match="unexpected rows 60"):
        Evaluation.gather("val", [(np.arange(1, 61), whole.logits)], whole.labels, CLASSES)
    with pytest.raises(HeadstartError, match="unexpected rows 1"):
        Evaluation.gather("val", [(np.array([0, 1]), whole.logits[:2])], whole.labels, CLASSES, expected=np.array([0]))


def test_a_subset_keeps_its_row_indices() -> None:
    whole = make()
    rows = np.array([5, 2, 40])
    found = Evaluation.gather("val", [(rows, whole.logits[rows])], whole.labels, CLASSES, expected=rows)
    assert found.rows.tolist() == [2, 5, 40]
    assert (found.labels == whole.labels[[2, 5, 40]]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.zeros(60)}, "more than once"),
        ({"labels": np.full(60, -1)}, "unlabelled"),
        ({"labels": np.full(60, 3)}, "labels must lie"),
        ({"logits": np.full((60, 3), np.nan)}, "not finite"),
        ({"logits": np.zeros((60, 2))}, "shapes disagree"),
    ],
)
def test_unsound_values_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    whole = make()
    fields = {"rows": whole.rows, "logits": whole.logits, "labels": whole.labels, **change}
    with pytest.raises(HeadstartError, match=message):
        Evaluation("val", classes=CLASSES, **fields)


def test_saved_and_loaded_equal_and_without_pickle(tmp_path: Path) -> None:
    whole, path = make(), tmp_path / "predictions.npz"
    whole.save(path)
    found = Evaluation.load(path, expected=np.arange(60)[::-1])
    assert found.split == "val"
    assert found.classes == CLASSES
    for name in ("rows", "logits", "labels"):
        assert (getattr(found, name) == getattr(whole, name)).all()
    with np.load(path, allow_pickle=False) as stored:
        assert all(stored[key].dtype != object for key in stored.files)
    with pytest.raises(ArtefactError, match="exactly the rows"):
        Evaluation.load(path, expected=np.arange(61))
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.npz"]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    with pytest.raises(ArtefactError, match=r"predictions\.npz"):
        Evaluation.load(path)
    make().save(path)
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-40], b"junk" * 50):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError):
            Evaluation.load(path)
    np.savez(path, rows=np.array([object()], dtype=object))
    with pytest.raises(ArtefactError):
        Evaluation.load(path)


def test_a_doubled_row_in_a_file_is_found(tmp_path: Path) -> None:
    path, whole = tmp_path / "predictions.npz", make()
    whole.save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["rows"] = np.where(arrays["rows"] == 7, 8, arrays["rows"])
    np.savez(path, **arrays)
    assert zipfile.is_zipfile(path)
    with pytest.raises(ArtefactError, match="more than once"):
        Evaluation.load(path)


def test_comparing_is_paired_on_rows_whatever_their_order() -> None:
    a, b = make(300, seed=1, strength=3), make(300, seed=2, strength=1)
    shuffled = np.random.default_rng(0).permutation(300)
    c = Evaluation("val", b.rows[shuffled], b.logits[shuffled], b.labels[shuffled], CLASSES)
    assert a.compare(b) == a.compare(c)
    assert a.compare(b).value == pytest.approx(a.correct.mean() - b.correct.mean())
    assert b.compare(a).value == pytest.approx(-a.compare(b).value)
    with pytest.raises(HeadstartError, match="do not pair"):
        a.compare(make(299))


def test_per_class_matches_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    whole = make(200, strength=1)
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(whole.labels, whole.predicted)
    for index, score in enumerate(whole.per_class()):
        assert score.precision.value == pytest.approx(precision[index])
        assert score.recall.value == pytest.approx(recall[index])
        assert score.f1.value == pytest.approx(f1[index])
        assert score.recall.n == support[index]
        assert score.f1.low < score.f1.value < score.f1.high
    assert (whole.confusion() == sklearn.confusion_matrix(whole.labels, whole.predicted)).all()


def test_mistakes_are_ordered() -> None:
    labels = np.array([0, 0, 0, 1, 2])
    predicted = np.array([1, 1, 0, 0, 2])
    logits = 5.0 * np.eye(3)[predicted]
    logits[3, 0] = 50.0  # the most certain mistake
    found = Evaluation("val", np.arange(5) + 10, logits, labels, CLASSES)
    assert found.most_confused() == [("ant", CLASSES[1], 2), (CLASSES[1], "ant", 1)]
    assert found.worst(1).tolist() == [13]
    assert found.losses[3] == pytest.approx(50)


def test_temperature_scales_and_top5_needs_more_than_five_classes() -> None:
    whole = make(200)
    cooler = whole.with_temperature(2.0)
    assert (cooler.predicted == whole.predicted).all()
    assert cooler.probabilities.max() < whole.probabilities.max()
    assert "top5" not in whole.metrics()
    assert "top5" in make(200, classes=tuple("abcdef")).metrics()


def test_arrays_are_frozen() -> None:
    with pytest.raises(ValueError, match="read-only"):
        make().logits[0, 0] = 1


def test_frame_and_html() -> None:
    pytest.importorskip("pandas")
    whole = make(9)
    frame = whole.frame(names=[f"{i}.jpg" for i in range(9)])
    assert list(frame.columns) == ["row", "name", "label", "predicted", "confidence", "correct", "loss"]
    assert frame["label"].tolist()[:3] == list(CLASSES)
    hostile = Evaluation("<script>", whole.rows, whole.logits, whole.labels, CLASSES)._repr_html_()
    assert "<script>" not in hostile
    assert "accuracy" in hostile
    assert hostile.count("<tr>") == 1 + len(whole.metrics())


def test_measure_imports_nothing_heavy() -> None:
    code = (
        "import sys, headstart.measure.evaluation\n"
        "print([m for m in ('torch', 'scipy', 'sklearn', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
