"""Rows with several labels: how they are read and told, shared out, and audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import DataError
from headstart.data import audit, sources
from headstart.data.modalities.text import TextSpec
from headstart.data.reading import splitting
from headstart.data.reading.collection import Collection
from headstart.data.settings import DataSettings, SplitSettings
from headstart.data.splits import Rows, counted, strata
from headstart.data.store import Store

from .. import words
from .grammar import disagrees


def collected(source: Any, **settings: Any) -> Collection:
    return sources.collect(source, DataSettings(**settings))


def told(collection: Collection) -> list[list[str]]:
    """The labels of every row by name."""
    labels = collection.rows.labels
    return [[collection.classes[index] for index in np.flatnonzero(row)] for row in labels]


def csv(folder: Path, *labels: str) -> str:
    lines = [f'"text number {row}","{label}"' for row, label in enumerate(labels)]
    file = folder / "reviews.csv"
    file.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return str(file)


WANTED = [["food", "room"], ["food"], [], ["price"]]


def test_lists_say_that_there_are_several(tmp_path: Path) -> None:
    file = tmp_path / "reviews.jsonl"
    lines = [{"text": f"text number {row}", "label": labels} for row, labels in enumerate(WANTED)]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = collected(str(file))
    assert told(found) == WANTED
    assert any("several labels" in note for note in found.notes), "it was not said aloud"
    assert found.rows.labels.dtype == np.uint8


def test_a_separator_parts_them(tmp_path: Path) -> None:
    for own in ({"label_separator": "|"}, {"task": "multilabel"}):
        found = collected(csv(tmp_path, "food|room", "food", "", "price"), **own)
        assert told(found) == WANTED
        assert found.classes == ("food", "price", "room")
        assert any("'|' parts them" in note for note in found.notes) == ("task" in own), "what is guessed is said aloud"


def test_strings_stay_strings(tmp_path: Path) -> None:
    found = collected(csv(tmp_path, "food|room", "food", "room", "price"))
    assert found.classes == ("food", "food|room", "price", "room")
    assert any("task=multilabel" in note for note in found.notes), "nothing hints at several labels"
    plain = collected(csv(tmp_path, "a|b", "c", "c"))
    assert not any("task=multilabel" in note for note in plain.notes)
    whole = collected(csv(tmp_path, "bad|film", "bad|long|film", "long|bad"))  # no part stands by itself
    assert any("task=multilabel" in note for note in whole.notes)
    assert not any("task=multilabel" in note for note in collected(csv(tmp_path, "a|b", "c|d", "e")).notes)


def test_one_of_several_signs_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="what parts the labels") as caught:
        collected(csv(tmp_path, "food|room", "food,room", "price"), task="multilabel")
    assert "label_separator='" in caught.value.problems[0].remedy


def test_columns_of_marks(tmp_path: Path) -> None:
    file = tmp_path / "marks.csv"
    file.write_text("text,food,price,room\na b c,1,0,1\nd e f,1,0,0\ng h i,0,0,0\nj k l,0,1,0\n", encoding="utf-8")
    assert told(collected(str(file), label_column=("food", "price", "room"))) == WANTED
    with pytest.raises(DataError, match=r"no column .rooms..*room"):
        collected(str(file), label_column=("food", "rooms"))
    file.write_text("text,food,price\na b c,1,0\nd e f,2,yes\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        collected(str(file), label_column=("food", "price"))
    assert [problem.what for problem in caught.value.problems] == [
        "column 'food': '2' is neither 0 nor 1: line 3",
        "column 'price': 'yes' is neither 0 nor 1: line 3",
    ]


def test_a_matrix_of_marks() -> None:
    texts = [f"text number {row}" for row in range(4)]
    marks = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
    found = collected((texts, marks))
    assert told(found) == [["0", "2"], ["0"], [], ["1"]]
    with pytest.raises(DataError, match="single 1 in every row"):
        collected((texts, np.eye(4)))
    assert told(collected((texts, np.eye(4)), task="multilabel")) == [["0"], ["1"], ["2"], ["3"]]
    with pytest.raises(DataError, match="besides 0 and 1"):
        collected((texts, marks * 2))
    pairs = [(text, row) for text, row in zip(texts, marks, strict=True)]
    assert told(collected(pairs)) == [["0", "2"], ["0"], [], ["1"]]


def test_frames_hold_lists_and_name_their_marks() -> None:
    pandas = pytest.importorskip("pandas")
    texts = [f"text number {row}" for row in range(4)]
    assert told(collected(pandas.DataFrame({"text": texts, "labels": WANTED}))) == WANTED
    marks = pandas.DataFrame([[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]], columns=["food", "price", "room"])
    assert told(collected((texts, marks))) == WANTED


def test_lists_beside_single_labels_are_a_mistake() -> None:
    rows = [{"text": "a b", "label": ["x", "y"]}, {"text": "c d", "label": "x|y"}]
    with pytest.raises(DataError, match="a list is not a class name: row 0"):
        collected(rows)
    assert told(collected(rows, task="multilabel")) == [["x", "y"], ["x|y"]]


def test_empty_cells_beside_several_labels_name_the_task() -> None:
    rows = [{"text": "a b", "label": "food|price"}, {"text": "c d", "label": ""}, {"text": "e f", "label": "price"}]
    with pytest.raises(
        DataError, match=r"1 row has no label[\s\S]*if 'food\|price' is several labels, task=multilabel"
    ):
        collected(rows)
    assert told(collected(rows, task="multilabel")) == [["food", "price"], [], ["price"]]
    with pytest.raises(DataError, match="label them, or remove them"):
        collected([{"text": "a b", "label": "x"}, {"text": "c d", "label": ""}, {"text": "e f", "label": "y"}])


def test_what_nobody_labelled_is_no_row_without_labels() -> None:
    rows = [{"text": "a b", "label": ["x"]}, {"text": "c d", "label": None}, {"text": "e f", "label": []}]
    with pytest.raises(DataError, match="1 row has no label: row 1"):
        collected(rows)


def test_folders_have_one_label_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").write_text("a text")
    with pytest.raises(DataError, match="one folder of classes"):
        collected(str(tmp_path), task="multilabel")


def test_settings_that_contradict_each_other() -> None:
    for own in ({"task": "classify", "label_separator": "|"}, {"label_separator": "|", "label_column": ("a", "b")}):
        with pytest.raises(ValueError, match="label_separator"):
            DataSettings(**own)  # type: ignore[arg-type]


# --- shared out -------------------------------------------------------------------------------------------------------


def marks(n: int, seed: int = 0) -> np.ndarray:
    """Labels (N, 8), the last ones rare, that hang together."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])
    found = (rng.random((n, 8)) < shares).astype(np.uint8)
    found[:, 1] |= found[:, 6]  # a label that comes beside a rarer one
    return found


def rows(labels: np.ndarray, groups: tuple[str, ...] | None = None) -> Rows:
    return Rows(list(range(len(labels))), labels, tuple(map(str, range(len(labels)))), groups)


def test_every_label_has_its_share() -> None:
    labels = marks(1000)
    drawn, plain = [], []
    for seed in range(10):
        parts = splitting.split(rows(labels), {"val": 0.2}, seed)
        drawn.append(labels[parts["val"]].sum(0))
        plain.append(labels[np.random.default_rng(seed).permutation(1000)[:200]].sum(0))
    wanted = 0.2 * labels.sum(0)
    off, by_chance = (np.abs(np.array(each) - wanted).mean(0) for each in (drawn, plain))
    assert (off[-3:] <= 1).all(), "rare labels are shared out exactly"
    assert off.sum() < 0.5 * by_chance.sum()


def test_equal_seeds_give_equal_parts_and_groups_stay_whole() -> None:
    labels = marks(300)
    groups = tuple(f"group {row // 3}" for row in range(300))
    first, second = (splitting.split(rows(labels, groups), {"val": 0.2, "test": 0.2}, 3) for _ in range(2))
    for name in first:
        assert np.array_equal(first[name], second[name])
    home = {groups[row]: name for name, own in first.items() for row in own}
    assert all(home[groups[row]] == name for name, own in first.items() for row in own)


def test_every_label_stays_in_training() -> None:
    """Also one that is never the rarest of its rows."""
    labels = np.zeros((40, 5), dtype=np.uint8)
    labels[:, 0] = 1
    labels[:4, 1] = 1  # always beside one of two rarer ones
    labels[:2, 2] = labels[2:4, 3] = 1
    labels[::2, 4] = 1
    for seed in range(20):
        parts = splitting.split(rows(labels), {"val": 0.45, "test": 0.45}, seed)
        assert counted(labels[parts["train"]], 5).all()
        for train, val in splitting.folds(rows(labels), 3, seed):
            assert counted(labels[train], 5).all()
            assert not set(train) & set(val)


def test_rows_alike_are_a_stratum_where_there_are_enough() -> None:
    labels = np.array([[1, 1, 0]] * 12 + [[1, 0, 0]] * 12 + [[0, 0, 1], [1, 0, 1], [0, 0, 0]], dtype=np.uint8)
    found = strata(labels)
    assert len({*found[:12]}) == len({*found[12:24]}) == 1
    assert found[24] == found[25]
    assert len({found[0], found[12], found[24], found[26]}) == 4
    assert np.array_equal(strata(np.array([2, 0, 2])), [2, 0, 2])


def test_a_division_says_how_it_was_drawn() -> None:
    labels = marks(400)
    own = [[str(index) for index in np.flatnonzero(row)] for row in labels]
    source = [{"text": f"text number {row}", "label": each} for row, each in enumerate(own)]
    settings = DataSettings(split=SplitSettings(val=0.2, test=0.2), limit=200)
    splits = sources.read(source, settings, seed=0)
    assert {name: len(part) for name, part in splits.present().items()} == {"train": 120, "val": 40, "test": 40}
    assert any("stratified by labels" in note for note in splits.notes)
    assert splits.counts()["train"]["0"] == splits.train.labels[:, 0].sum()
    assert splits.subset(0.5, 0).train.labels.shape[0] == pytest.approx(60, abs=8)


# --- audited ----------------------------------------------------------------------------------------------------------


def test_the_audit_tells_of_labels() -> None:
    texts, _ = words.reviews(60, seed=1)
    labels = [["common"] for _ in texts]
    labels[5], labels[6], labels[7] = [], ["common", "rare"], ["rare"]
    texts[7] = texts[3]
    source = [{"text": text, "label": own} for text, own in zip(texts, labels, strict=True)]
    splits = sources.read(source, DataSettings(split=SplitSettings(val=0.2, test=0.0)), seed=0)
    spec = TextSpec(words.tokenizer(), max_length=32)
    stores = {name: Store.build(part, spec, modality="text") for name, part in splits.present().items()}
    findings = audit.audit(splits, stores).findings
    kinds = {finding.kind for finding in findings}
    assert "imbalance" not in kinds, "labels are no shares of a whole"
    assert {"small-class", "no-label"} <= kinds
    assert next(finding for finding in findings if finding.kind == "small-class").names == ("rare",)
    (unlabelled,) = [finding for finding in findings if finding.kind == "no-label"]
    assert len(unlabelled.rows) == 1
    assert not disagrees(unlabelled.message)
    torn = [finding.message for finding in findings if finding.kind == "conflicting-labels"]
    assert any("(common)" in message and "(rare)" in message for message in torn)
