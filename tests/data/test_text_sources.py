"""Where texts come from: tables with and without a header, split tables, pairs, lists, and what is guessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from headstart.core.errors import DataError
from headstart.data import sources
from headstart.data.reading import guess
from headstart.data.settings import DataSettings, SplitSettings
from headstart.data.texts import reading

TEXTS = ["the film was good", "the soup was bad", "it was good", "it was bad"]
LABELS = ["good", "bad", "good", "bad"]


def collected(source: Any, **settings: Any) -> sources.Collection:
    return sources.collect(source, DataSettings(**settings))


def said(found: sources.Collection) -> list[tuple[Any, str]]:
    return [(found.rows.items[row], found.classes[label]) for row, label in enumerate(found.rows.labels)]


def table(folder: Path, name: str = "reviews.tsv", header: str = "text\tlabel\n", texts: list[str] = TEXTS) -> Path:
    file = folder / name
    file.write_text(header + "".join(f"{a}\t{b}\n" for a, b in zip(texts, LABELS, strict=True)), encoding="utf-8")
    return file


FILES: dict[str, tuple[list[str], str | None]] = {
    "pictures": (["a/1.jpg", "a/2.PNG", "notes.txt"], "image"),
    "sounds": (["a/1.wav", "b/2.flac"], "audio"),
    "texts": (["pos/1.txt", "neg/2.md"], "text"),
    "others": (["a.pdf", "b"], None),
}


@pytest.mark.parametrize(("names", "kind"), FILES.values(), ids=FILES)
def test_the_kind_of_files(names: list[str], kind: str | None) -> None:
    assert guess.of_files(names) == kind


VALUES: dict[str, tuple[Any, str]] = {
    "texts": (TEXTS, "text"),
    "nothing, then texts": ([None, float("nan"), "", *TEXTS], "text"),
    "pictures' paths": (["a/1.jpg", "a/2.jpg"], "image"),
    "sounds' paths": (["a/1.wav"], "audio"),
    "paths that are paths": ([Path("a/1.flac")], "audio"),
    "a text that ends like a sound": (["look at www.shop.com.au", *TEXTS], "text"),
    "pairs of texts": ([("a b", "c d")], "text"),
    "samples with their rate": ([(np.zeros(8, np.float32), 16000)], "audio"),
    "arrays": (np.zeros((2, 8, 8, 3), np.uint8), "image"),
    "an array of strings": (np.array(TEXTS, dtype=object), "text"),
    "an array of strings of any length": (np.array(TEXTS, dtype=np.dtypes.StringDType()), "text"),
    "a number among texts": ([5, np.float32(1), True, *TEXTS], "text"),
    "a dictionary that is no file among texts": ([{"a": 1}, *TEXTS], "text"),
    "datasets' pictures without a name": ([{"bytes": b"", "path": None}], "image"),
    "datasets' sounds": ([{"array": [0.0], "sampling_rate": 16000}], "audio"),
    "datasets' pictures": ([{"bytes": b"", "path": "a.png"}], "image"),
    "nothing": ([None], "text"),
}


@pytest.mark.parametrize(("values", "kind"), VALUES.values(), ids=VALUES)
def test_the_kind_of_values(values: Any, kind: str) -> None:
    assert guess.of_values(values) == kind


COLUMNS: dict[str, tuple[dict[str, list[Any]], str | None, str]] = {
    "by name": ({"text": TEXTS, "label": LABELS}, None, "text"),
    "paths under a familiar name": ({"path": ["a.jpg"], "label": ["a"]}, None, "image"),
    "sounds under a picture's name": ({"file": ["a.wav"], "label": ["a"]}, None, "audio"),
    "texts beside paths": ({"file": ["a.jpg"], "text": ["good film"]}, None, "image"),
    "named": ({"file": ["a.jpg"], "text": ["good film"]}, "text", "text"),
    "nothing familiar": ({"x1": TEXTS, "x2": LABELS}, None, "text"),
    "paths under no familiar name": ({"x1": ["a.jpg"], "x2": ["a"]}, None, "image"),
}


@pytest.mark.parametrize(("columns", "named", "kind"), COLUMNS.values(), ids=COLUMNS)
def test_the_kind_of_columns(columns: dict[str, list[Any]], named: str | None, kind: str) -> None:
    assert guess.of_columns(columns, named, lambda name: name.lower()) == kind


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


SAME: dict[str, Callable[[Path], Path]] = {
    "a header": lambda at: table(at),
    "no header": lambda at: table(at, header=""),
    "a mark of UTF-8": lambda at: table(at, header="\ufefftext\tlabel\n"),
    "a mark and no header": lambda at: table(at, header="\ufeff"),
    "other names": lambda at: table(at, header="review\tclass\n"),
    "only the label's name known": lambda at: table(at, header="kalimat\tlabel\n"),
    "quotes": lambda at: table(at, texts=[f'"{text}"' for text in TEXTS]),
    "CSV": lambda at: _written(at / "r.csv", "label,text\n" + "".join(map("{},{}\n".format, LABELS, TEXTS))),
    "CSV without a header": lambda at: _written(at / "r.csv", "".join(map("{},{}\n".format, TEXTS, LABELS))),
    "JSONL": lambda at: _written(
        at / "r.jsonl", jsonl([{"text": a, "label": b} for a, b in zip(TEXTS, LABELS, strict=True)])
    ),
}


def _written(file: Path, content: str) -> Path:
    file.write_text(content, encoding="utf-8")
    return file


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_one_collection_in_many_forms(make: Callable[[Path], Path], tmp_path: Path) -> None:
    found = collected(make(tmp_path))
    assert found.modality == "text"
    assert said(found) == list(zip(TEXTS, LABELS, strict=True))


def test_a_header_is_not_taken_for_a_row(tmp_path: Path) -> None:
    found = collected(table(tmp_path, header="the text of the review\tlabel\n"))
    assert len(found) == 4


def test_tabs_commas_quotes_and_lines_inside_of_texts(tmp_path: Path) -> None:
    content = 'text,label\n"a, ""b""\tc",x\n"d\ne",y\n"f",x\n'
    found = collected(_written(tmp_path / "r.csv", content))
    assert said(found) == [('a, "b"\tc', "x"), ("d\ne", "y"), ("f", "x")]


def test_a_folder_of_tables_is_divided_as_it_is(tmp_path: Path) -> None:
    for name in ("train_preprocess.tsv", "valid_preprocess.tsv", "test_preprocess_masked_label.tsv"):
        table(tmp_path, name, header="")
    table(tmp_path, "vocab.tsv")
    found = collected(tmp_path)
    assert np.bincount(found.given).tolist() == [4, 4, 4]
    assert said(found)[4:8] == list(zip(TEXTS, LABELS, strict=True))
    assert any("valid_preprocess.tsv → val" in note for note in found.notes)
    assert not any("vocab" in note for note in found.notes)


def test_a_folder_of_texts(tmp_path: Path) -> None:
    for row, (content, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{row}.txt").write_text(content)
    found = collected(tmp_path)
    assert found.modality == "text"
    assert [(item.read_text(), label) for item, label in said(found)] == [
        (TEXTS[1], "bad"),
        (TEXTS[3], "bad"),
        (TEXTS[0], "good"),
        (TEXTS[2], "good"),
    ]


PAIRS = "premise,hypothesis,label\na b c,d e,yes\nf g,h i,no\n"


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        (PAIRS, {}),
        (PAIRS.replace("premise", "sentence1").replace("hypothesis", "sentence2"), {}),
        (PAIRS.replace("premise", "left").replace("hypothesis", "right"), {"input_column": "left,right"}),
        (PAIRS.replace("premise", "left").replace("hypothesis", "right"), {"input_column": "left, right"}),
    ],
)
def test_pairs_by_familiar_names_or_by_two_names(content: str, settings: dict[str, Any], tmp_path: Path) -> None:
    found = collected(_written(tmp_path / "r.csv", content), **settings)
    assert found.modality == "text"
    assert said(found) == [(("a b c", "d e"), "yes"), (("f g", "h i"), "no")]


def test_one_column_of_a_pair(tmp_path: Path) -> None:
    found = collected(_written(tmp_path / "r.csv", PAIRS), input_column="hypothesis")
    assert said(found) == [("d e", "yes"), ("h i", "no")]
    with pytest.raises(DataError, match=r"no column 'hypo' \(there are"):
        collected(tmp_path / "r.csv", input_column="premise,hypo")


def test_lists_frames_and_pairs_in_memory() -> None:
    import pandas

    rows = list(zip(TEXTS, LABELS, strict=True))
    assert said(collected(rows)) == rows
    assert said(collected((TEXTS, LABELS))) == rows
    assert said(collected(pandas.DataFrame({"text": TEXTS, "label": LABELS}))) == rows
    pairs = [(("a b", "c d"), "yes"), (("e f", "g h"), "no")]
    assert said(collected(pairs)) == pairs


def test_what_predict_takes(tmp_path: Path) -> None:
    def found(source: Any) -> list[Any]:
        rows, _ = sources.find_unlabelled(source, modality="text")
        return list(rows.items)

    assert found(TEXTS[0]) == [TEXTS[0]]
    assert found(TEXTS) == TEXTS
    assert found([("a b", "c d")]) == [("a b", "c d")]
    assert found(("a b", "c d")) == [("a b", "c d")]
    assert found(table(tmp_path)) == TEXTS
    assert found(_written(tmp_path / "pairs.csv", PAIRS)) == [("a b c", "d e"), ("f g", "h i")]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "2.txt").write_text("two")
    (tmp_path / "new" / "10.txt").write_text("ten")
    assert [item.read_text() for item in found(tmp_path / "new")] == ["two", "ten"]
    assert [item.read_text() for item in found(tmp_path / "new" / "2.txt")] == ["two"]
    assert found("no/such/file.txt is a text, as it has spaces") == ["no/such/file.txt is a text, as it has spaces"]
    with pytest.raises(DataError, match="there is no such file"):
        found("no/such/file.csv")


def test_a_list_that_names_files_is_read_as_files(tmp_path: Path) -> None:
    """Several places on the line of `predict` must not be taken for the texts themselves."""
    from headstart.core.errors import DataError
    from headstart.data import sources

    (tmp_path / "a.txt").write_text("first text")
    (tmp_path / "b.txt").write_text("second text")
    rows = sources.read_unlabelled([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], modality="text")
    assert [Path(item).name for item in rows.items] == ["a.txt", "b.txt"]
    with pytest.raises(DataError, match="no such file"):
        sources.read_unlabelled(["nope1.tsv", "nope2.tsv"], modality="text")
    rows = sources.read_unlabelled(["good film", "bad"], modality="text")
    assert list(rows.items) == ["good film", "bad"]


def test_the_first_column_of_a_pair_can_be_chosen_alone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("premise,hypothesis\na b,c d\n", encoding="utf-8")
    items = [
        sources.read_unlabelled(tmp_path / "t.csv", "text", input_column=named).items
        for named in (None, "premise", "hypothesis", "hypothesis,premise")
    ]
    assert items == [[("a b", "c d")], ["a b"], ["c d"], [("c d", "a b")]]


def test_texts_have_no_names_for_a_regular_expression(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="texts have none") as caught:
        collected(table(tmp_path), split=SplitSettings(group_by=r"^(\w+)"))
    assert "cannot be found" not in str(caught.value)


def test_a_column_cannot_be_both(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'label' is both what is learned from and what is learned"):
        collected(table(tmp_path), input_column="label")


@pytest.mark.parametrize(("values", "measured"), [
    ([f"{number / 7:.3f}" for number in range(60)], True), ([str(number) for number in range(60)], False),
    ([f"{number % 9 / 2}" for number in range(60)], False), (["nan"] * 40 + ["0", "0.5"] * 10, False),
    ([f"kind {number}" for number in range(60)], False),
])  # fmt: skip
def test_a_quantity_is_told_from_classes(values: list[str], measured: bool, tmp_path: Path) -> None:
    lines = [f"text number {row}\t{value}" for row, value in enumerate(values)]
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    assert any("decimal numbers" in note for note in collected(tmp_path / "rows.tsv").notes) == measured


def test_shares_that_cannot_be_kept_are_told() -> None:
    texts = [f"text number {row} of its own" for row in range(400)]
    rows = {"text": texts, "label": [f"class {row // 2}" for row in range(400)]}
    few = sources.divide(collected(rows), DataSettings(), seed=0)
    assert set(few.index) == {"train", "val"}, "nobody asked for a test split that cannot be"
    assert any(note.startswith("there is no test split (with one, no row can be spared") for note in few.notes)
    assert any(note.startswith("val has 50.0% of the rows instead of 15%") for note in few.notes)
    plain = sources.divide(collected({**rows, "label": ["a", "b"] * 200}), DataSettings(), seed=0)
    assert not any("instead of" in note for note in plain.notes)
    with pytest.raises(DataError, match="no row can be spared for test"):
        sources.divide(collected(rows), DataSettings(split=SplitSettings(test=0.15)), seed=0)


@pytest.mark.parametrize("odd", [["a list"], ["a", "b", "c"], {"a": 1}, 5, True, 1.5], ids=repr)
def test_a_cell_that_is_no_text_is_its_rows_own_problem(odd: Any, tmp_path: Path) -> None:
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS]
    labels = LABELS * 10
    texts[-1] = odd
    texts[1] = texts[0]  # rows of the same text stay together, whatever stands beside them
    file = tmp_path / "odd.jsonl"
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
    file.write_text("\n".join(rows), encoding="utf-8")
    for source in (str(file), pd.DataFrame({"text": texts, "label": labels}), list(zip(texts, labels, strict=True))):
        found = collected(source)
        assert found.modality == "text"
        divided = sources.divide(found, DataSettings(split=SplitSettings(val=0.3)), seed=0)
        assert sum(0 in rows for rows in divided.index.values()) == 1
        assert all((0 in rows) == (1 in rows) for rows in divided.index.values())
        assert sum(len(rows) for rows in divided.index.values()) == 40


def test_strings_of_any_length_are_texts() -> None:
    found = collected((np.array(TEXTS, dtype=np.dtypes.StringDType()), LABELS))
    assert said(found) == list(zip(TEXTS, LABELS, strict=True))


def test_a_dictionary_of_columns_is_predicted_as_a_table_is() -> None:
    rows, notes = sources.find_unlabelled({"id": [1, 2], "body": ["good", "bad"]}, "text")
    assert list(rows.items) == ["good", "bad"]
    assert any("'body'" in note for note in notes)
    rows, _ = sources.find_unlabelled({"a": ["good"], "b": ["bad"]}, "text", input_column="b")
    assert list(rows.items) == ["bad"]
    pair = {"text": "good", "text_pair": "bad"}
    assert list(sources.find_unlabelled(pair, "text")[0].items) == [pair], "one row, as pipelines take it"
    for rate in (16_000, np.array(16_000)):
        sound = {"array": np.zeros(8, np.float32), "sampling_rate": rate}
        assert len(sources.find_unlabelled(sound, "audio")[0]) == 1
    assert sources.columns_of({"train": ["a"], "val": ["b"]}) == (), "splits are no columns"


def test_a_pair_may_come_as_pipelines_take_it() -> None:
    assert reading.texts_of({"text": "good", "text_pair": "bad"}) == ("good", "bad")
    assert reading.texts_of({"text": "good"}) == ("good",)
    assert reading.texts_of({"text": "good", "other": "bad"}) == ()


def test_a_list_of_strings_is_texts_unless_all_of_it_names_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.txt").write_text("in a file", encoding="utf-8")
    (tmp_path / "b.txt").write_text("in another", encoding="utf-8")
    for texts in (["good film", ".", "bad"], ["runs"], ["great.", "b.txt"], ["", "b"]):
        assert list(sources.read_unlabelled(texts, "text").items) == texts
    assert list(sources.read_unlabelled(["b.txt"], "text").items) == [tmp_path / "b.txt"]
    found = sources.read_unlabelled([Path("runs"), "b.txt"], "text")
    assert list(found.items) == [tmp_path / "runs" / "a.txt", tmp_path / "b.txt"]
    with pytest.raises(DataError, match="no such file"):
        sources.read_unlabelled(["b.txt", "c.txt"], "text")
