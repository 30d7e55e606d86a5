"""Texts the whole way: fit, predict, evaluate, report; stages on tiny random networks that read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.core.errors import DataError
from headstart.core.events import Notice
from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation

from .. import words

THAW = {"thaw": {"blocks": "all", "epochs": 4, "lr": 2e-3, "batch_size": 16}}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT in a folder."""
    return words.network(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def well_read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that knows more words than the texts name."""
    return words.network(tmp_path_factory.mktemp("reader"), seed=1, vocab_size=200)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 420 reviews without a header, with a pair of copies, a text that is cut, and one that is nothing."""
    texts, labels = words.reviews(420, seed=2)
    texts[9] = texts[4] = "the soup was good and the room was fine and the book was superb"
    texts[8] = "the usual chair was common and " * 20
    texts[11] = "  "
    file = tmp_path_factory.mktemp("table") / "reviews.tsv"
    rows = [f"{text}\t{label}" for text, label in zip(texts, labels, strict=True)]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def fitted(folder: Path, data: Any, reader: Path, plan: Any, **own: Any) -> Run:
    quick = {"device": "cpu", "precision": "fp32", "output_dir": str(folder), "force": True, "baseline": False}
    return headstart.fit(data, backbone=str(reader), plan=plan, **{**quick, **own})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: Path, well_read: Path) -> Run:
    return fitted(tmp_path_factory.mktemp("runs"), table, well_read, ["probe", THAW], max_length=40)


def test_a_run_learns_what_words_tell(run: Run) -> None:
    result = run.read("result.json")
    assert result["metrics"]["test"]["accuracy"]["value"] >= 0.9
    stages = [json.loads(file.read_text()) for file in sorted(run.path.glob("stages/*/result.json"))]
    assert [stage["name"] for stage in stages] == ["probe", "thaw-all"]
    assert stages[0]["metrics"]["val"]["accuracy"]["value"] >= 0.8


def test_a_network_of_two_blocks_is_thawed_by_half_and_whole(table: Path, tmp_path: Path) -> None:
    small = words.network(tmp_path / "small", num_hidden_layers=2)
    run = fitted(tmp_path / "runs", table, small, "gradual", max_length=8, epochs=1)
    stages = [folder.name for folder in sorted(run.path.glob("stages/*"))]
    assert stages == ["00-probe", "01-thaw-half", "02-thaw-all"]
    (told,) = (each for each in run.read("decisions.json") if each["topic"] == "thaw-quarter")
    assert told["choice"] == "left out"
    assert "of 2 blocks" in told["reason"]
    quick = {"backbone": str(small), "device": "cpu", "precision": "fp32", "force": True, "max_length": 8}
    laid = headstart.plan(table, plan="gradual", **quick)
    assert [stage.title for stage in laid.stages] == ["probe", "thaw-half", "thaw-all"]
    mine = ["probe", {"thaw": {"blocks": 0.25, "lr": 1e-3}}, {"thaw": {"blocks": 0.5, "lr": 1e-4}}]
    assert len(headstart.plan(table, plan=mine, **quick).stages) == 3


def test_what_the_audit_calls_an_error_is_told_once(reader: Path, tmp_path: Path) -> None:
    texts, labels = words.reviews(40, seed=2)
    events: list[Any] = []
    with pytest.raises(DataError, match="cannot be read") as caught:
        fitted(tmp_path, ([" ", *texts[1:20], *[" "] * 20], labels), reader, "probe", on_event=events.append)
    told = [event.message for event in events if isinstance(event, Notice)]
    assert not {problem.what for problem in caught.value.problems} & set(told)


def test_words_that_no_text_names_stay_as_pretrained(run: Run, well_read: Path) -> None:
    from safetensors.numpy import load_file

    (said,) = [each for each in run.read("decisions.json") if each["topic"] == "words"]
    named, known = (int(part) for part in said["choice"].removesuffix(" train").split(" of "))
    assert known == 200
    (before,), (after,) = (
        [value for name, value in load_file(folder / "model.safetensors").items() if "word_embeddings" in name]
        for folder in (well_read, run.model_folder)
    )
    changed = (before != after).any(1)
    assert 40 < changed.sum() <= named < 70
    words_known = len(json.loads(words.tokenizer())["model"]["vocab"])
    assert not changed[words_known:].any()


def test_one_epoch_is_judged_once_by_the_answers_that_count(
    table: Path, well_read: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.engine import features

    judged: list[str] = []
    evaluate = features.evaluate

    def counting(model: Any, examples: Any, runtime: Any, **own: Any) -> Any:
        judged.append(runtime.precision)
        return evaluate(model, examples, runtime, **own)

    monkeypatch.setattr(features, "evaluate", counting)
    once = {"thaw": {"blocks": "all", "epochs": 1, "lr": 2e-3}}
    run = fitted(tmp_path, table, well_read, [once], precision="bf16", max_length=40)
    (stage,) = run.path.glob("stages/*")
    assert judged[0] == "fp32"
    assert judged.count("fp32") == len(judged) == 2, "validation rows once, test rows once"
    stored = Evaluation.load(stage / "predictions.npz")
    texts = [line.rsplit("\t", 1)[0] for line in table.read_text(encoding="utf-8").splitlines()]
    asked = [texts[int(name.split()[1])] for name in run.read("rows.json")["val"]]
    model = headstart.load(run)
    wanted = stored.with_temperature(model.model.temperature).probabilities.max(1)
    found = [prediction.score for prediction in model.predict(asked)]
    assert np.allclose(found, wanted, atol=1e-6)


def test_the_metric_that_was_asked_for_chooses_the_epoch(
    run: Run, table: Path, well_read: Path, tmp_path: Path
) -> None:
    """Planted: a metric that falls whenever it is asked for makes the first epoch the best."""
    calls: list[float] = []

    def falling(labels: np.ndarray, probabilities: np.ndarray) -> float:
        calls.append(1 / (2 + len(calls)))
        return calls[-1]

    other = fitted(tmp_path, table, well_read, [THAW], max_length=40, metric=falling)
    best = [
        json.loads(next(each.path.glob("stages/*thaw*/result.json")).read_text())["best_epoch"] for each in (run, other)
    ]
    assert best[0] > 1
    assert best[1] == 1


def test_what_the_audit_says(run: Run) -> None:
    kinds = {finding["kind"]: finding["names"] for finding in run.read("data.json")["audit"]["findings"]}
    assert kinds["unreadable"] == ["row 11"]
    assert kinds["conflicting-labels"] == ["row 4", "row 9"]
    assert kinds["truncated"] == ["row 8"]


def test_one_model_for_texts_lists_tables_and_folders(run: Run, tmp_path: Path) -> None:
    model = headstart.load(run)
    texts = ["the film was superb and lovely", "it was awful and dull", "the usual room was normal"]
    answers = model.predict(texts)
    wanted, scores = [row.label for row in answers], [row.score for row in answers]
    assert wanted == ["good", "bad", "plain"]
    assert model.predict(texts[0])[0].score == pytest.approx(scores[0], abs=1e-6)
    (tmp_path / "new.csv").write_text("text,other\n" + "".join(f"{text},1\n" for text in texts))
    (tmp_path / "new").mkdir()
    for row, text in enumerate(texts):
        (tmp_path / "new" / f"{row}.txt").write_text(text)
    for source in (tmp_path / "new.csv", tmp_path / "new"):
        assert [row.label for row in model.predict(source)] == wanted
        assert [row.score for row in model.predict(source)] == pytest.approx(scores, abs=1e-6)
        assert [row.texts for row in model.predict(source)] == [(text,) if source.suffix else () for text in texts]
    assert list(answers.frame()["text"]) == texts
    assert "the film was superb" in answers._repr_html_()
    nothing, something = model.predict(["", texts[0]])
    assert nothing.scores == ()
    assert "empty" in nothing.problem
    assert something.label == "good"


def test_evaluation_on_given_rows_and_on_the_test_rows(run: Run, tmp_path: Path) -> None:
    texts, labels = words.reviews(60, seed=9)
    (tmp_path / "more.csv").write_text(
        "text,label\n" + "".join(f"{a},{b}\n" for a, b in zip(texts, labels, strict=True))
    )
    assert headstart.evaluate(run, tmp_path / "more.csv").metric("accuracy").value >= 0.8
    assert headstart.evaluate(run).metric("macro_f1").value >= 0.85


def test_rows_that_the_run_has_seen_are_told(run: Run, table: Path, tmp_path: Path) -> None:
    from headstart.core.events import Notice
    from headstart.workflows.evaluate import evaluate

    def told(data: Path) -> list[str]:
        said: list[Any] = []
        evaluate(run, data, on_event=said.append)
        return [event.message for event in said if isinstance(event, Notice) and event.kind == "seen-rows"]

    lines = table.read_text(encoding="utf-8").splitlines()
    rows = run.read("rows.json")
    of = {split: [lines[int(name.split()[1])] for name in rows[split]] for split in ("train", "val", "test")}
    file = tmp_path / "under another name.tsv"
    file.write_text("\n".join(["text\tlabel", *of["train"][:30], *of["val"][:20], *of["test"][:10]]) + "\n")
    (message,) = told(file)
    with pytest.warns(UserWarning, match="the model has learned 30") as warned:
        headstart.evaluate(run, file)
    assert warned[0].filename == __file__, "the line that asked, not one of ours"
    assert message.startswith("of 60 rows the model has learned 30 and was chosen by 20")
    file.write_text("\n".join(["text\tlabel", *of["test"]]) + "\n")
    assert told(file) == []
    (run.path / "seen.npz").rename(tmp_path / "seen.npz")
    file.write_text("\n".join(["text\tlabel", *of["train"]]) + "\n")
    assert told(file) == [], "a run of before, without the file, is evaluated all the same"
    (tmp_path / "seen.npz").rename(run.path / "seen.npz")


def test_the_report_shows_texts_escaped(table: Path, reader: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()[:120]
    lines = [f"<b onclick=x>{line}" for line in lines]
    (tmp_path / "odd.tsv").write_text("\n".join(lines))
    fitted(tmp_path, tmp_path / "odd.tsv", reader, "probe", baseline=True)
    page = (tmp_path / "odd" / "report.html").read_text(encoding="utf-8")
    assert "tf-idf" in page
    assert "&lt;b onclick=x&gt;" in page
    assert "<b onclick" not in page


def test_an_interrupted_stage_goes_on_bit_for_bit(
    run: Run, table: Path, well_read: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.core.events import Progress
    from headstart.engine import loop

    class Stop(Exception):
        pass

    def stop(event: Any) -> None:
        if isinstance(event, Progress) and event.task == "train" and event.done == 17:
            raise Stop

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Stop):
        fitted(tmp_path, table, well_read, ["probe", THAW], max_length=40, on_event=stop)
    again = fitted(tmp_path, table, well_read, ["probe", THAW], max_length=40, resume=True)
    first, second = ((each.model_folder / "model.safetensors").read_bytes() for each in (run, again))
    assert first == second


def test_pairs_pass_the_bar_that_no_words_can(reader: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["premise,hypothesis,label"]
    for row in range(400):
        pair = [rng.choice(words.GOOD), rng.choice(words.BAD)][:: 1 if row % 2 else -1]
        lines.append(f"it was {pair[0]} then,it was {pair[1]} then,{'down' if row % 2 else 'up'}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    found = fitted(tmp_path / "runs", tmp_path / "pairs.csv", reader, ["probe"], baseline=True)
    result = found.read("result.json")
    assert result["metrics"]["test"]["accuracy"]["value"] >= 0.9
    tf_idf = next(each for each in found.read("baseline/result.json") if each["name"] == "tf-idf")
    assert tf_idf["metrics"]["accuracy"]["value"] <= 0.65
    model = headstart.load(found)
    answer, alone = model.predict([("it was good then", "it was awful then"), "it was good then"])
    assert answer.label == "down"
    assert (alone.scores, "reads pairs of texts" in alone.problem) == ((), True)
    with pytest.raises(DataError, match="not-a-pair") as caught:
        headstart.evaluate(found, [(f"it was good then {row}", "down") for row in range(9)])
    assert len(caught.value.problems) == 6, "of a thousand rows a thousand lines would tell no more"
    assert "and 4 more rows" in str(caught.value)
