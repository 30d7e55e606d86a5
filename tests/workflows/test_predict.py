"""What one does with a finished run: load, predict, evaluate, embed; the answers are the run's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart import cli, options
from headstart.core.errors import ArtefactError, ConfigError, DataError
from headstart.core.events import Notice
from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation
from headstart.measure.metrics import softmax
from headstart.measure.prediction import NO_NUMBER, Predictions
from headstart.workflows import classifier
from headstart.workflows import predict as workflow

THAW: dict[str, Any] = {"thaw": {"epochs": 2, "batch_size": 16, "blocks": 1, "gate": {"on_fail": "warn"}}}


@pytest.fixture(scope="module")
def run(fit_once, pictures) -> Run:
    return fit_once({"train": pictures(30), "val": pictures(12, 1), "test": pictures(15, 2)}, ["probe", THAW])


def test_predictions_are_the_logits_of_the_run(run, pictures):
    stored = Evaluation.load(run.path / "predictions-test.npz")
    temperature = run.read("result.json")["temperature"]
    wanted = softmax(stored.logits / temperature)
    found = headstart.predict(run, pictures(15, 2)[0])
    for row, probabilities in zip(found, wanted, strict=True):
        by_name = dict(row.scores)
        assert np.allclose([by_name[name] for name in stored.classes], probabilities, atol=1e-6)
        assert sum(by_name.values()) == pytest.approx(1.0)
        assert row.score == max(by_name.values())


def test_evaluating_the_same_rows_gives_the_same_logits(run, pictures):
    stored = headstart.evaluate(run)
    again = headstart.evaluate(run, pictures(15, 2))
    assert np.allclose(stored.logits, again.logits, atol=1e-5)
    assert np.array_equal(stored.labels, again.labels)
    assert list(stored.frame()["name"]) == run.read("rows.json")["test"]
    assert len(again.frame()["name"]) == 15


def test_classes_may_come_in_another_order_or_be_missing(run, pictures):
    inputs, labels = pictures(15, 2)
    chosen = np.flatnonzero(labels != "red")[::-1]
    found = headstart.evaluate(run, (inputs[chosen], labels[chosen]))
    assert found.classes == ("dark", "red", "stripes")
    assert found.metric("accuracy").value == 1.0


@pytest.mark.filterwarnings("ignore:of .* rows the model has learned")
def test_classes_that_the_model_does_not_know_are_named(run, pictures, tmp_path):
    inputs, labels = pictures(6)
    with pytest.raises(DataError, match=f"blue: {np.sum(labels == 'red')} of 6 rows have them"):
        headstart.evaluate(run, (inputs, np.where(labels == "red", "blue", labels)))
    for name in ("dark", "blue"):
        (tmp_path / "other" / name).mkdir(parents=True)
        Image.fromarray(inputs[0]).save(tmp_path / "other" / name / "x.png")
    with pytest.raises(DataError) as caught:
        headstart.evaluate(run, str(tmp_path / "other"))
    assert caught.value.problems[0].where == str(tmp_path / "other")


def test_embeddings_are_what_the_head_sees(run, pictures):
    import torch

    features, names = headstart.embed(run, pictures(15, 2)[0])
    model = headstart.load(run).model
    with torch.inference_mode():
        logits = model.head(torch.from_numpy(features)).numpy()
    assert np.allclose(logits, Evaluation.load(run.path / "predictions-test.npz").logits, atol=1e-5)
    assert len(names) == len(features) == 15


def test_a_folder_of_files_with_a_bad_one_among_them(run, pictures, tmp_path):
    for index, value in enumerate(pictures(4, 5)[0]):
        Image.fromarray(value).save(tmp_path / f"{index}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    found = headstart.predict(run, tmp_path)
    assert [row.label for row in found] == ["dark", "red", "", "dark"]
    assert "[" in found[2].problem
    frame = found.frame()
    assert list(frame["label"]) == ["dark", "red", "", "dark"]
    said = []
    features, names = workflow.embed(run, tmp_path, on_event=said.append)
    assert [event.message for event in said if isinstance(event, Notice) and "2.png" in event.message]
    assert (len(features), [name[-5:] for name in names]) == (3, ["0.png", "1.png", "3.png"])


def test_batches_and_order_do_not_matter(run, pictures):
    inputs = pictures(40, 6)[0]
    whole = headstart.predict(run, inputs)
    turned = headstart.predict(run, inputs[::-1])
    for a, b in zip(whole, reversed(turned), strict=True):
        assert a.label == b.label
        assert a.score == pytest.approx(b.score, abs=1e-6)


def test_rows_that_come_in_chunks_keep_their_places(run, pictures, tmp_path, monkeypatch):
    """Twenty files in chunks of sixteen, one in each unreadable."""
    for index, value in enumerate(pictures(20, 6)[0]):
        Image.fromarray(value).save(tmp_path / f"{index:02d}.png")
    for index in (3, 18):
        (tmp_path / f"{index:02d}.png").write_bytes(b"no picture")
    whole = headstart.predict(run, tmp_path)
    monkeypatch.setattr(classifier, "BATCH", 1)
    parts = headstart.predict(run, tmp_path)
    wanted = ["" if index in (3, 18) else ("dark", "red", "stripes")[index % 3] for index in range(20)]
    for found in (whole, parts):
        assert [row.label for row in found] == wanted
        assert [bool(row.problem) for row in found] == [not label for label in wanted]
    assert [row.score for row in parts] == pytest.approx([row.score for row in whole], abs=1e-5, nan_ok=True)
    assert workflow.embed(run, tmp_path)[1] == tuple(row.name for row in whole if row.label)


def test_a_model_has_the_shape_of_a_pipeline_and_shows_itself(run, pictures):
    model = headstart.load(run)
    found = model.predict(pictures(2)[0], top_k=2)
    assert [len(row.as_pipeline()) for row in found] == [2, 2]
    assert set(found[0].as_pipeline()[0]) == {"label", "score"}
    assert "<table>" in found._repr_html_()
    assert "3 classes" in repr(model)


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "2", True])
def test_top_k_counts_labels(run, pictures, top_k):
    with pytest.raises(ConfigError, match="top_k is"):
        headstart.predict(run, pictures(1)[0], top_k=top_k)


@pytest.mark.parametrize("place", [None, 3, "", " "])
def test_what_names_no_run_is_said(place):
    for ask in (headstart.load, lambda given: headstart.predict(given, "x.png"), headstart.evaluate):
        with pytest.raises(ConfigError, match="a run is named by its folder"):
            ask(place)


def test_a_model_folder_alone_is_enough(run, tmp_path, pictures):
    import shutil

    shutil.copytree(run.model_folder, tmp_path / "model")
    assert headstart.predict(tmp_path / "model", pictures(1)[0])[0].label == "dark"


def test_what_is_missing_is_said(fit, pictures, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("nothing", "photos"):
        with pytest.raises(ArtefactError, match="no model here"):
            headstart.load(tmp_path / name)
    (tmp_path / "photos" / "experiment.yaml").write_text("")
    with pytest.raises(ArtefactError, match="did not finish"):
        headstart.load(tmp_path / "photos")
    (tmp_path / "photos" / "result.json").write_text("{}")
    with pytest.raises(ArtefactError, match="the model of this run is gone"):
        headstart.load(tmp_path / "photos")
    (tmp_path / "photos" / "folds.json").write_text("{}")
    with pytest.raises(ArtefactError, match="fold-1"):
        headstart.load(tmp_path / "photos")
    run = fit(pictures(30))
    with pytest.raises(ArtefactError, match="no test rows"):
        headstart.evaluate(run)


def test_a_flipped_bit_in_the_weights_is_noticed(fit, pictures):
    run = fit(pictures(30))
    file = run.model_folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ArtefactError, match="damaged"):
        headstart.load(run)


def test_an_answer_that_is_no_number_is_a_problem():
    shares = np.array([[0.25, 0.75], [np.nan, np.nan], [np.inf, 0.0]])
    found = Predictions.gather(["a", "b", "c"], ("x", "y"), [(np.arange(3), shares, {})])
    assert [row.problem for row in found] == ["", NO_NUMBER, NO_NUMBER]
    assert [row.label for row in found] == ["y", "", ""]
    assert [len(row.scores) for row in found] == [2, 0, 0]


@pytest.mark.filterwarnings("ignore:of .* rows the model has learned")
def test_columns_are_those_that_are_named_or_else_the_runs(fit_once, pictures, tmp_path, capsys):
    inputs, labels = pictures(12)
    for number, (picture, label) in enumerate(zip(inputs, labels, strict=True)):
        (tmp_path / "folder" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        Image.fromarray(picture).save(tmp_path / "folder" / label / f"{number}.png")

    def table(name: str, *columns: str) -> str:
        """``columns`` of paths but for the last, of labels; of the paths only those of 'shot' and 'where' are right."""
        lines = [",".join(columns)]
        for number, label in enumerate(labels):
            right = [f"{number if column in ('shot', 'where') else 0}.png" for column in columns[:-1]]
            lines.append(",".join([*right, label]))
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return str(tmp_path / name)

    columns = {"input_column": "shot", "label_column": "seen"}
    trained = fit_once(table("a.csv", "shot", "seen"), ["probe"], **columns)
    own = headstart.evaluate(trained, table("b.csv", "path", "shot", "seen"))
    assert len(own) == len(labels)
    assert [row.label for row in headstart.predict(trained, table("b.csv", "path", "shot", "seen"))] == list(labels)
    other = table("c.csv", "path", "where", "what")
    named = headstart.evaluate(trained, other, input_column="where", label_column="what")
    assert np.array_equal(named.logits, own.logits)
    familiar = headstart.evaluate(trained, table("d.csv", "path", "label"))
    assert len({*map(tuple, familiar.logits)}) == 1, "the run's columns are no must"
    assert len(headstart.evaluate(trained, tmp_path / "folder")) == len(labels)
    with pytest.raises(ConfigError, match="columns or a rate are told, and no data"):
        headstart.evaluate(trained, input_column="shot")
    with pytest.raises(ConfigError, match="no table is given"):
        headstart.predict(trained, tmp_path / "folder", input_column="shot")

    words = [str(trained.path), other, "data.input_column=where", "-o", str(tmp_path / "found.csv")]
    assert cli.run(["predict", *words]) == 0
    assert len((tmp_path / "found.csv").read_text().splitlines()) == len(labels) + 1
    assert cli.run(["predict", str(trained.path), other, "data.input_colum=where"]) == 1
    assert "did you mean 'input_column'" in capsys.readouterr().err
    named_too = ["input_column=where", "data.label_column=what"]
    assert cli.run(["evaluate", str(trained.path), *named_too, "--data", other]) == 0
    assert cli.run(["evaluate", str(trained.path), other]) == 1
    assert "--data" in capsys.readouterr().err
    words = [str(trained.path), other, "data.input_column=where", "-o", str(tmp_path / "features.npz")]
    assert cli.run(["embed", *words]) == 0
    assert len(np.load(tmp_path / "features.npz")["features"]) == len(labels)


def test_settings_on_the_line_are_told_from_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.v2=final.csv").write_text("text\na\n")
    words = ["data.v2=final.csv", "a=b.csv", "data.label_column=[cat, dog]", "input_column=body"]
    assert options.places(words) == [Path("data.v2=final.csv"), "a=b.csv"], "what is there is a place"
    known = ("input_column", "label_column")
    assert options.columns(words, *known) == {"label_column": ("cat", "dog"), "input_column": "body"}
    with pytest.raises(ConfigError) as told:
        options.columns(["data.input_column=", "data.split=x"], *known)
    assert [problem.what for problem in told.value.problems] == ["names no column", "unknown setting"]


def test_a_run_is_loaded_whatever_its_settings_name(run, tmp_path):
    """A stage of the user's own, say, that is not on this machine."""
    place = Path(shutil.copytree(run.path, tmp_path / "run"))
    (place / "experiment.yaml").write_text("plan: [own.stage]\ndata: {input_column: shot}\n")
    assert headstart.load(place).usual.input_column == "shot"


def test_a_device_that_is_not_there_and_a_column_that_is_no_name(run, tmp_path):
    with pytest.raises(ConfigError, match="no device 'banana'"):
        headstart.load(run, device="banana")
    with pytest.raises(ConfigError, match="the name of a column, not 0"):
        headstart.predict(run, tmp_path / "t.csv", input_column=0)


def test_features_are_written_over_nothing(run, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pictures(1)[0][0]).save("a.png")
    for name in ("features.npz", "features-2.npz"):
        assert cli.run(["embed", str(run.path), "a.png"]) == 0
        assert len(np.load(name)["features"]) == 1


def test_a_rate_is_of_sounds(fit, pictures):
    run = fit(pictures(30))
    for asked in (headstart.predict, headstart.evaluate, headstart.embed):
        with pytest.raises(ConfigError, match="setting of sounds, and these rows are pictures"):
            asked(run, pictures(6, 1), sampling_rate=8_000)
