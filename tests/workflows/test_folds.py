"""Cross-validation: every row is tested once by a model that never saw it, and what comes out adds up."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import headstart
from headstart import results
from headstart.core.errors import ArtefactError, ConfigError, DataError
from headstart.core.events import Notice, StageDone
from headstart.core.run import Run
from headstart.data.settings import DataSettings, SplitSettings
from headstart.experiment import Experiment
from headstart.measure.evaluation import Evaluation
from headstart.report import page
from headstart.terminal import THEME
from headstart.workflows import folds, ship


@pytest.fixture(scope="module")
def run(fit_once, pictures) -> Run:
    return fit_once(pictures(36, hard=0.05), folds=3)


def test_every_row_is_tested_once_by_a_model_that_never_saw_it(run):
    tested: list[str] = []
    for number in (1, 2, 3):
        rows = Run(run.path / f"fold-{number}").read("rows.json")
        assert not set(rows["test"]) & {*rows["train"], *rows["val"]}
        assert sum(len(names) for names in rows.values()) == 36
        tested += rows["test"]
    assert len(tested) == len(set(tested)) == 36


def test_every_fold_has_its_report_and_the_run_none(run):
    with pytest.raises(ArtefactError, match="every fold has its report"):
        page.write(run)
    assert not (run.path / "report.html").exists()
    assert all((run.path / f"fold-{number}/report.html").is_file() for number in (1, 2, 3))


def test_the_summary_is_what_the_folds_say(run):
    summary = run.read("folds.json")
    assert [fold["name"] for fold in summary["folds"]] == ["fold-1", "fold-2", "fold-3"]
    scores = []
    for fold in summary["folds"]:
        result = Run(run.path / fold["name"]).read("result.json")
        assert fold["metrics"] == result["metrics"]["test"]
        assert (result["test_reads"], result["optimistic"]) == (1, False)
        scores.append(fold["metrics"]["accuracy"]["value"])
    mean = summary["mean"]["accuracy"]
    assert mean["value"] == pytest.approx(np.mean(scores))
    half = 4.303 * np.std(scores, ddof=1) / np.sqrt(3)
    assert mean["low"] == pytest.approx(max(0.0, np.mean(scores) - half))
    assert mean["high"] == pytest.approx(min(1.0, np.mean(scores) + half))
    pooled = summary["pooled"]["accuracy"]
    assert pooled["n"] == 36
    assert pooled["value"] == pytest.approx(
        np.average(scores, weights=[f["metrics"]["accuracy"]["n"] for f in summary["folds"]])
    )


def test_answers_stand_at_their_own_rows(run, pictures):
    """A model of a fold, asked again about its held-out pictures, gives the stored logits."""
    import headstart

    pooled = Evaluation.load(run.path / "predictions-folds.npz", expected=np.arange(36))
    inputs, labels = pictures(36, hard=0.05)
    assert [pooled.classes[label] for label in pooled.labels] == list(labels)
    fold = Run(run.path / "fold-2")
    rows = [int(name.split()[-1]) for name in fold.read("rows.json")["test"]]
    again = headstart.evaluate(fold, (inputs[rows], labels[rows]))
    assert np.allclose(again.logits, pooled.logits[rows], atol=1e-4)


def test_the_interval_of_the_mean_ends_where_the_metric_does():
    near_one = folds._over_folds("accuracy", [1.0, 0.9, 1.0], {})
    assert (near_one["high"], near_one["low"]) == (1.0, pytest.approx(0.9667 - 4.303 * 0.0577 / np.sqrt(3), abs=1e-3))
    assert folds._over_folds("macro_f1", [0.0, 0.1, 0.0], {})["low"] == 0.0
    loss = folds._over_folds("log_loss", [0.1, 2.0, 0.2], {})
    assert loss["low"] == 0.0
    assert loss["high"] > 2
    assert folds._over_folds("profit", [-1.0, 3.0], {})["low"] < -1, "of an own metric nothing is known"


def test_the_time_of_a_run_is_shared_out_among_its_folds(tmp_path):
    whole = Experiment(time_limit=90.0, data=DataSettings(split=SplitSettings(folds=3)))
    one = folds._alone(whole, Run(tmp_path / "run"), 2, 3)
    assert one.time_limit == 30.0
    assert (one.name, one.output_dir, one.data.split.folds) == ("fold-2", str(tmp_path / "run"), None)
    assert folds._alone(Experiment(), Run(tmp_path / "run"), 2, 3).time_limit is None


def test_students_quantiles():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 4, 9, 10, 19, 50):
        assert folds._t95(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


def test_a_cross_validated_run_shows_itself(run):
    frame = run.frame()
    assert list(frame["fold"]) == ["fold-1", "fold-2", "fold-3", "mean of the folds", "all rows"]
    assert run._repr_html_().count("<tr>") == 6
    out = io.StringIO()
    results.show(run, Console(file=out, theme=THEME, width=100))
    assert all(
        word in out.getvalue()
        for word in ("fold-3", "mean of the folds", "all rows", "probe", "36", "is over the folds")
    )


def test_an_interrupted_cross_validation_goes_on(fit, pictures, run):
    count = [0]

    def stop(event: Any) -> None:
        count[0] += isinstance(event, StageDone)
        if count[0] == 2:
            raise KeyboardInterrupt

    rows = pictures(36, hard=0.05)
    with pytest.raises(KeyboardInterrupt):
        fit(rows, folds=3, listen=stop)
    resumed = fit(rows, folds=3, resume=True)
    assert len(fit.said(StageDone)) <= 2, "the first fold was fitted again"
    told = [notice.message for notice in fit.said(Notice) if notice.kind == "fold"]
    assert told == [f"fold {number} of 3, rows held out: 12" for number in (1, 2, 3)]
    a, b = (Evaluation.load(each.path / "predictions-folds.npz") for each in (run, resumed))
    assert np.array_equal(a.logits, b.logits)
    fit(rows, folds=3)
    assert fit.kinds() == {"complete"}


def test_twins_stay_in_one_fold(fit, pictures):
    inputs, labels = pictures(24)
    run = fit((np.concatenate([inputs, inputs]), np.concatenate([labels, labels])), folds=2)
    rows = Run(run.path / "fold-1").read("rows.json")
    held = {int(name.split()[-1]) % 24 for name in rows["test"]}
    assert not held & {int(name.split()[-1]) % 24 for name in rows["train"] + rows["val"]}


def test_pictures_are_decoded_once_for_all_folds(fit, pictures, monkeypatch):
    from headstart.data.store import Store

    built, build = [], Store.build
    monkeypatch.setattr(
        Store, "build", lambda rows, *others, **own: built.append(len(rows)) or build(rows, *others, **own)
    )
    fit(pictures(24), folds=2)
    assert built == [24]


def test_an_unreadable_row_is_in_no_fold(fit, pictures, tmp_path):
    from PIL import Image

    inputs, labels = pictures(30)
    rows = []
    for index, (value, label) in enumerate(zip(inputs, labels, strict=True)):
        Image.fromarray(value).save(tmp_path / f"{index:02d}.png")
        rows.append((str(tmp_path / f"{index:02d}.png"), label))
    (tmp_path / "07.png").write_bytes(b"no picture")
    run = fit(rows, folds=2, max_unreadable=0.5)
    for fold in run.read("folds.json")["folds"]:
        again = Run(run.path / fold["name"])
        assert ship.rows_of(again, headstart.load(again).model, rows, lambda event: None)
    pooled = Evaluation.load(run.path / "predictions-folds.npz")
    assert sorted(pooled.rows) == [row for row in range(30) if row != 7]
    assert pooled.metric("accuracy").value == 1.0


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_a_fold_of_one_class_leaves_out_what_it_cannot_tell(fit, pictures, tmp_path, metric):
    from PIL import Image

    inputs, _ = pictures(80)
    for number in range(80):
        patient = number // 10  # the last two have it
        place = tmp_path / "scans" / ("ill" if patient > 5 else "well")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(inputs[number]).save(place / f"p{patient}_{number}.png")
    run = fit(str(tmp_path / "scans"), folds=3, group_by="(p[0-9]+)_", metric=metric, baseline=True, val=0.3)
    folded = [Run(run.path / f"fold-{number}").read("data.json")["counts"]["test"] for number in (1, 2, 3)]
    assert any(0 in counts.values() for counts in folded), "every fold has both"
    summary = run.read("folds.json")
    assert "roc_auc" not in summary["mean"]
    assert "roc_auc" in summary["pooled"]
    assert summary["mean"]["accuracy"]["n"] == 3
    assert metric in summary["pooled"]
    assert bool(summary["baselines"]) == (metric == "accuracy"), "of ranks the baselines of folds are not of one scale"
    assert "NaN" not in (run.path / "folds.json").read_text()


def test_folds_that_score_alike_have_the_interval_of_all_rows():
    pooled = {"accuracy": {"value": 1.0, "low": 0.9, "high": 1.0}}
    found = folds._over_folds("accuracy", [1.0, 1.0, 1.0], pooled)
    assert (found["value"], found["low"], found["high"]) == (1.0, 0.9, 1.0)
    found = folds._over_folds("accuracy", [0.7, 0.7, 0.7], {"accuracy": {"value": 0.7, "low": 0.6, "high": 0.8}})
    assert (found["low"], found["high"]) == (0.6, 0.8), "whatever the rounding of their mean"
    found = folds._over_folds("log_loss", [0.5, 0.5], {"log_loss": {"value": 0.6, "low": 0.55, "high": 0.7}})
    assert (found["low"], found["high"]) == (0.5, 0.7), "it holds the mean"


def test_no_fold_beats_the_baseline(fit, pictures):
    inputs, labels = pictures(30, hard=0.0)
    labels = np.random.default_rng(1).permutation(labels)
    run = fit((inputs, labels), [{"thaw": {"epochs": 1, "lr": 1e-9, "head_multiple": 1.0}}], folds=2, baseline=True)
    summary = run.read("folds.json")
    folds = summary["folds"]
    assert run.beaten_by == folds[0]["beaten_by"]
    assert [event.message.partition(" ")[0] for event in fit.said(Notice) if event.kind == "beaten"][-1] == "in"
    for each in summary["baselines"]:  # the same rows, taken together
        values = [Run(run.path / fold["name"]).read("result.json")["baselines"] for fold in folds]
        parts = [{one["name"]: one["metrics"]["accuracy"] for one in value}[each["name"]] for value in values]
        pooled = sum(part["value"] * part["n"] for part in parts) / 30
        assert (each["metrics"]["accuracy"]["value"], each["metrics"]["accuracy"]["n"]) == (pytest.approx(pooled), 30)
        ours = summary["pooled"][summary["metric"]]["value"]
        assert each["gain"]["value"] == pytest.approx(ours - each["metrics"][summary["metric"]]["value"])
    assert summary["baselines"][0]["gain"]["value"] <= summary["baselines"][1]["gain"]["value"], "the best comes first"
    assert list(run.frame()["fold"])[-2:] == [f"all rows: {each['name']}" for each in summary["baselines"]]
    out = io.StringIO()
    results.show(run, Console(file=out, theme=THEME, width=120))
    assert "all rows: majority" in out.getvalue()
    assert f"over {summary['baselines'][0]['name']}, on all rows" in out.getvalue()
    run.write("folds.json", {"folds": [folds[0], {**folds[1], "beaten_by": None}]})
    assert run.beaten_by is None, "one fold is enough"


def test_what_cannot_be_folded_is_refused(fit, pictures):
    with pytest.raises(ConfigError, match="splits of its own"):
        fit({"train": pictures(), "val": pictures(18, 1)}, folds=3)
    with pytest.raises(DataError, match="20 folds"):
        fit(pictures(12), folds=20)
    with pytest.raises(ConfigError, match="folds"):
        fit(pictures(12), folds=1)
