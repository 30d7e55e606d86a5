"""Several labels the whole way, once for each modality: fit, predict, evaluate, report, export."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import headstart
from headstart import predictions
from headstart.core.errors import ConfigError, DataError
from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation
from headstart.workflows.push import push

from .. import sounds, words

QUICK: dict[str, Any] = {"device": "cpu", "precision": "fp32", "force": True, "normalisation_check": False}
THAW = {"thaw": {"blocks": "all", "epochs": 2, "lr": 1e-3, "batch_size": 16, "mixup": 0.2}}


def marked(n: int = 72, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 32, 32, 3) that are dark, red or striped, all of it or nothing, and their marks (N, 3)."""
    rng = np.random.default_rng(seed)
    marks = (rng.random((n, 3)) < [0.5, 0.4, 0.3]).astype(np.uint8)
    values = rng.integers(90, 160, (n, 32, 32, 3)).astype(np.float64)
    values[marks[:, 0] > 0] -= 70
    values[marks[:, 1] > 0, :, :, 0] += 90
    values[marks[:, 2] > 0, :, ::4] += 90
    return values.clip(0, 255).astype(np.uint8), marks


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    own = {"backbone": "builtin/tiny", "image_size": 32, "output_dir": str(folder), "test": 0.25, "threshold": 0.4}
    return headstart.fit(marked(), plan=["probe", THAW], on_event=lambda event: None, **QUICK | own)


def test_pictures_are_judged_by_map(run: Run) -> None:
    result = run.read("result.json")
    assert result["metric"] == "mAP"
    assert result["metrics"]["test"]["mAP"]["value"] > 0.8
    assert "accuracy" not in result["metrics"]["test"]
    assert [stage["verdict"]["metric"] for stage in run.stages()] == ["mAP", "mAP"]
    baselines = {entry["name"] for entry in run.read("baseline/result.json")}
    assert baselines == {"majority", "pixels"}


def test_stages_are_judged_as_the_model_decides(tmp_path: Path) -> None:
    """Its threshold is for probabilities at its temperature, which labels that nobody can tell make a large one."""
    pictures, marks = marked(200, seed=3)
    rng = np.random.default_rng(4)
    noisy = np.where(rng.random(marks.shape) < 0.3, 1 - marks, marks)
    own = {"backbone": "builtin/tiny", "image_size": 32, "output_dir": str(tmp_path), "val": 0.4, "threshold": 0.3}
    own |= {"metric": "macro_f1", "baseline": False, "on_event": lambda event: None}
    thaw = {"thaw": {**THAW["thaw"], "epochs": 12, "mixup": 0, "augment": "none", "gate": {"on_fail": "warn"}}}
    run = headstart.fit((pictures, noisy), plan=["probe", thaw], **QUICK | own)
    result = run.read("result.json")
    best = next(stage for stage in run.stages() if stage["name"] == result["best"])
    stored = Evaluation.load(run.path / best["folder"] / "predictions.npz")
    assert abs(result["temperature"] - 1) > 0.1, "the toy fits its rows too well"
    assert stored.metric("macro_f1").value != stored.with_temperature(result["temperature"]).metric("macro_f1").value
    assert best["metrics"]["val"]["macro_f1"]["value"] == pytest.approx(result["metrics"]["val"]["macro_f1"]["value"])
    probe, thawed = run.stages()
    gain = thawed["metrics"]["val"]["macro_f1"]["value"] - probe["metrics"]["val"]["macro_f1"]["value"]
    assert thawed["verdict"]["difference"]["value"] == pytest.approx(gain), "gates compare the same"


@pytest.mark.filterwarnings("ignore:of .* rows the model has learned")
def test_predictions_are_the_labels_that_reach_the_threshold(run: Run, tmp_path: Path) -> None:
    model, (pictures, _) = headstart.load(run), marked()
    found, every = model.predict(list(pictures)), model.predict(list(pictures), top_k=3)
    for given, all_of in zip(found, every, strict=True):
        assert given.scores == tuple(pair for pair in all_of.scores if pair[1] >= 0.4)
        assert not given.problem
    assert {len(row.scores) for row in found} >= {0, 1, 2}
    measured = headstart.evaluate(run, marked()).probabilities
    told = np.array([[dict(row.scores)[name] for name in model.classes] for row in every])
    assert np.allclose(told, measured, atol=1e-5), "what is predicted is not what is measured"
    assert list(found.frame()["labels"][:1]) == [found[0].labels]
    predictions.write(tmp_path / "new.jsonl", found, None)
    lines = [json.loads(line) for line in (tmp_path / "new.jsonl").read_text().splitlines()]
    assert [line["predictions"] for line in lines] == [row.as_pipeline() for row in found]
    predictions.write(tmp_path / "new.csv", found, None)
    widths = {line.count(",") for line in (tmp_path / "new.csv").read_text().splitlines()}
    assert widths == {1 + 2 * max(len(row.scores) for row in found)}
    assert predictions.summary(found, tmp_path / "new.csv").startswith("72 predictions"), "no label is no failure"


def test_answers_list_labels(run: Run, tmp_path: Path) -> None:
    found = headstart.evaluate(run)
    assert found.threshold == 0.4
    predictions.write_answers(tmp_path / "answers.jsonl", found)
    first = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])
    assert first["label"] == found.told(found.labels)[0]
    assert "confidence" not in first
    wanted = dict(zip(found.classes, found.probabilities[0].tolist(), strict=True))
    assert first["probabilities"] == pytest.approx(wanted), "another threshold can be taken later"
    predictions.write_answers(tmp_path / "answers.csv", found)
    table = list(csv.DictReader((tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()))
    assert len(table) == len(found)
    assert {name: float(table[0][f"probability of {name}"]) for name in found.classes} == pytest.approx(
        wanted, abs=1e-6
    )
    assert table[0]["label"] == "|".join(first["label"])
    other = headstart.evaluate(run, marked(seed=5))
    assert other.metric("mAP").value > 0.8


def test_the_report_has_no_confusion(run: Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "mean average precision" in page
    assert "none is taken for another" in page
    assert 'class="confusion"' not in page
    assert ">AP</th>" in page


@pytest.mark.filterwarnings("ignore:of .* rows the model has learned")
def test_texts_with_a_separator(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for _ in range(120):
        good, bad = (rng.random(2) < 0.45).tolist()
        told = [*rng.choice(words.FILLERS + words.THINGS, 5), *([rng.choice(words.GOOD)] * good)]
        told += [rng.choice(words.BAD)] * bad
        rng.shuffle(told)
        lines.append(f"{' '.join(told)},{'|'.join(name for name, on in (('good', good), ('bad', bad)) if on)}")
    (tmp_path / "reviews.csv").write_text("\n".join(lines), encoding="utf-8")
    reader = words.network(tmp_path / "reader")
    own = {"backbone": str(reader), "output_dir": str(tmp_path / "runs"), "label_separator": "|", "max_length": 24}
    run = headstart.fit(
        str(tmp_path / "reviews.csv"), plan="probe", baseline=False, on_event=lambda event: None, **QUICK | own
    )
    assert run.read("result.json")["metrics"]["val"]["mAP"]["value"] > 0.6
    again = headstart.evaluate(run, str(tmp_path / "reviews.csv"))
    assert again.classes == ("bad", "good")
    with pytest.raises(ConfigError, match="not published"):
        push(run, "owner/name", dry_run=True)


def test_sounds_with_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        kinds = [kind for kind in ("chirp", "hum") if rng.random() < 0.5]
        parts = [sounds.recording(kind, rng, 0.5) for kind in kinds] or [np.zeros(4000, np.float32)]
        noise = 0.02 * rng.standard_normal(4000)
        soundfile.write(tmp_path / f"{number}.wav", (np.sum(parts, axis=0) + noise).clip(-1, 1), sounds.RATE)
        rows.append({"audio": f"{number}.wav", "labels": kinds})
    file = tmp_path / "sounds.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    own = {"output_dir": str(tmp_path / "runs"), "backbone": sounds.ear(), "baseline": False}
    run = headstart.fit(str(file), plan="probe", on_event=lambda event: None, **QUICK | own)
    assert run.read("result.json")["metrics"]["val"]["mAP"]["value"] > 0.6


def test_a_threshold_is_for_several_labels(tmp_path: Path) -> None:
    pictures, marks = marked(24)
    own = {"backbone": "builtin/tiny", "image_size": 32, "output_dir": str(tmp_path), "threshold": 0.3}
    with pytest.raises(ConfigError, match="most likely"):
        headstart.fit((pictures, marks[:, 0]), plan="probe", on_event=lambda event: None, **QUICK | own)


def test_data_of_one_label_a_row_are_no_test_of_several(run: Run) -> None:
    pictures, _ = marked(12)
    with pytest.raises(DataError, match=r"does not know"):
        headstart.evaluate(run, [(picture, "other") for picture in pictures])
    mixed = [(picture, ["other"] if row % 4 == 0 else ["left"]) for row, picture in enumerate(pictures)]
    with pytest.raises(DataError, match=r"does not know the classes .*other.*: 12 of 12 rows have them") as caught:
        headstart.evaluate(run, mixed)
    assert "row 0" in str(caught.value)


def test_a_plan_and_an_audit_are_laid_out(tmp_path: Path) -> None:
    own = {"backbone": "builtin/tiny", "image_size": 32, "device": "cpu"}
    table = headstart.plan(marked(40), plan=["probe", THAW], **own)
    assert [stage.title for stage in table.stages] == ["probe", "thaw-all"]
    first, *lines = repr(table).splitlines()
    assert first.startswith(f"PlanTable(\"the user's own\", 'builtin/tiny', {table.train_rows} training rows, about ")
    assert [line.split(":")[0] for line in lines[:2]] == ["  probe", "  thaw-all"]
    assert table.stages[1].layers[0].name not in repr(table), "the blocks are in the table that the terminal shows"
    assert table._repr_html_().count("<tr>") == 3
    with pytest.raises(ConfigError, match="says nothing of rows with any number"):
        headstart.plan(marked(40), plan=["probe", {"thaw": {"gate": {"metric": "accuracy"}}}], **own)
    splits, found = headstart.audit(marked(40), **own)
    assert splits.train.labels.ndim == 2
    assert len(repr((splits, found)).splitlines()) <= 7
    assert f"{len(splits.train)} train, {len(splits.val)} val" in repr(splits)
    assert {finding.kind for finding in found.findings} >= {"no-label"}


@pytest.mark.slow
def test_folds_test_every_row_once(tmp_path: Path) -> None:
    own = {"backbone": "builtin/tiny", "image_size": 32, "output_dir": str(tmp_path), "folds": 3, "threshold": 0.3}
    run = headstart.fit(marked(60), plan="probe", on_event=lambda event: None, **QUICK | own)
    told = run.read("folds.json")
    assert told["metric"] == "mAP"
    assert told["pooled"]["mAP"]["n"] == 60
    pooled = Evaluation.load(run.path / "predictions-folds.npz")
    assert pooled.threshold == 0.3
    assert np.array_equal(pooled.labels, marked(60)[1])


@pytest.mark.slow
def test_an_export_gives_the_same_labels(run: Run) -> None:
    from headstart.deploy import contract
    from headstart.workflows import ship

    place = ship.export(run, data=marked(), settings=ship.Settings(seconds=0.2, int8=False))
    assert "several of them, or none: those with a probability of 0.4 or more" in (place / "README.md").read_text()
    assert contract.read(place / "model.onnx").given_from == 0.4
    pictures = list(marked(20, seed=3)[0])
    ours, theirs = (headstart.load(each).predict(pictures) for each in (run, place))
    assert [row.labels for row in ours] == [row.labels for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert np.allclose([score for _, score in mine.scores], [score for _, score in other.scores], atol=1e-4)
    with pytest.raises(ConfigError, match="most likely label"):
        ship.export(run, data=marked(), settings=ship.Settings(precision=0.9))
