"""Fifty tables, each with the labels, notes or mistakes it must give; cells stay the strings that they are."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import DataError
from headstart.data import sources
from headstart.data.settings import DataSettings, SplitSettings

VERBATIM = ["NA", "None", "null", "nan", "1", "1.0", "01", "True", "=1+1", "N/A"]
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
PLAIN = "path,label\n0.jpg,cat\n1.jpg,dog\n2.jpg,cat\n"
PETS = ["cat", "dog", "cat"]


@dataclass
class Case:
    """``labels`` in row order, or ``problems`` that the one error must name."""

    content: str | bytes
    labels: list[str] | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "table.csv"


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


CASES = {
    # encodings
    "plain": Case(PLAIN, PETS),
    "byte order mark": Case("\ufeff" + PLAIN, PETS),
    "utf-16 with mark": Case(PLAIN.encode("utf-16"), PETS, ("encoded as utf-16",)),
    "utf-16-le without mark": Case(PLAIN.encode("utf-16-le"), PETS, ("looks like utf-16-le",)),
    "utf-16-be without mark": Case(PLAIN.encode("utf-16-be"), PETS, ("looks like utf-16-be",)),
    "utf-32": Case(PLAIN.encode("utf-32"), PETS, ("utf-32",)),
    "cp1252": Case(PLAIN.replace("dog", "Käse").encode("cp1252"), ["cat", "Käse", "cat"], ("(line 3)", "cp1252")),
    "latin-1": Case(
        PLAIN.replace("dog", "Käse\x81").encode("latin-1"), ["cat", "Käse\\x81", "cat"], ("read as latin-1",)
    ),
    "mixed bytes": Case(
        PLAIN.encode() + "0.jpg,Käse\n".encode() + "1.jpg,Käse\n".encode("latin-1"),
        notes=("(line 6)",),
        labels=[*PETS, "KÃ¤se", "Käse"],
    ),
    "a mark that lies": Case(
        b"\xff\xfe" + PLAIN.encode()[: len(PLAIN) // 2 * 2 - 1], problems=("not utf-16 as its first bytes say",)
    ),
    # line ends and blank lines
    "CRLF": Case(PLAIN.replace("\n", "\r\n"), PETS),
    "CR": Case(PLAIN.replace("\n", "\r"), PETS),
    "no newline at the end": Case(PLAIN.rstrip("\n"), PETS),
    "blank lines": Case(
        PLAIN.replace("\n", "\n\n") + " \n,\n", PETS, ("3 blank lines left out: line 2, line 4, line 6",)
    ),
    "blank lines at the end": Case(PLAIN + "\n\n", PETS),
    # quoting
    "quotes": Case('path,label\n"0.jpg","big, cat"\n1.jpg,"a ""dog"""\n', ["big, cat", 'a "dog"']),
    "a newline in a cell": Case('path,label\n0.jpg,"big\ncat"\n1.jpg,dog\n', ["big\\ncat", "dog"]),
    "an unclosed quote": Case('path,label\n0.jpg,cat\n1.jpg,"dog\n', problems=("starts at line 3", "quote not closed")),
    "text after a quote": Case('path,label\n0.jpg,cat\n1.jpg,"d"og\n', problems=("expected after", "line 3")),
    # separators
    "semicolons": Case(PLAIN.replace(",", ";"), PETS, ("separated by ';'",)),
    "tabs": Case(PLAIN.replace(",", "\t"), PETS, name="table.tsv"),
    "tabs in a .csv": Case(PLAIN.replace(",", "\t"), PETS, ("separated by '\\t'",)),
    "pipes": Case(PLAIN.replace(",", "|"), PETS, ("separated by '|'",)),
    "commas inside semicolons": Case(
        "path;label;note\n0.jpg;cat;a, b\n1.jpg;dog;c, d\n", ["cat", "dog"], ("separated by ';'",)
    ),
    # shape
    "ragged": Case(
        "path,label\n0.jpg,cat\n1.jpg\n2.jpg,dog,brown\n",
        problems=("the header has 2 columns, but line 3 has 1, line 4 has 3",),
    ),
    "empty cells at the end": Case("path,label,,\n0.jpg,cat,,\n1.jpg,dog,,,\n", ["cat", "dog"]),
    "duplicate header": Case("path,label,label\n0.jpg,cat,dog\n", problems=("names columns twice: label",)),
    "no label column": Case(
        "path,size,date\n0.jpg,1,2\n",
        problems=("no column looks like the label", "path, size, date", "name it with label_column"),
    ),
    "no header": Case("0.jpg,cat\n1.jpg,dog\n", problems=("the first line looks like data: add a header line",)),
    "header only": Case("path,label\n", problems=("the table has no rows",)),
    "empty file": Case("", problems=("is empty (0 bytes)",)),
    "one row": Case("path,label\n0.jpg,cat\n", problems=("only one class, 'cat', with 1 row",)),
    "a million columns": Case("a," * 1_000_000 + "\n", problems=("the table has 1,000,001 columns",)),
    "a cell of a megabyte": Case(f"path,label,text\n0.jpg,cat,{'x' * 1_000_000}\n1.jpg,dog,\n", ["cat", "dog"]),
    "zero bytes": Case("path,label\n0.jpg,cat\n1.jpg,d\0g\n", problems=("zero bytes in line 3",)),
    # labels
    "verbatim": Case("path,label\n" + "".join(f"v{i}.jpg,{label}\n" for i, label in enumerate(VERBATIM)), VERBATIM),
    "empty labels": Case(
        "path,label\n0.jpg,cat\n1.jpg,\n2.jpg,  \n", problems=("2 rows have no label: line 3, line 4",)
    ),
    "labels that differ by case": Case(PLAIN + "2.jpg,Cat\n", [*PETS, "Cat"], ("'Cat' (1 row), 'cat' (2 rows)",)),
    "labels with spaces": Case(PLAIN + "2.jpg, cat \n", [*PETS, "cat"], ("spaces around labels were removed",)),
    "labels that differ by Unicode form": Case(f"path,label\n0.jpg,{NFC}\n1.jpg,{NFD}\n2.jpg,tea\n", [NFC, NFC, "tea"]),
    "one file, two labels": Case(PLAIN + "0.jpg,dog\n", [*PETS, "dog"], ("another label than an earlier row: 0.jpg",)),
    # columns
    "columns in any case": Case("Image Path,LABEL\n0.jpg,cat\n1.jpg,dog\n", ["cat", "dog"]),
    "other familiar names": Case("file_name,x,Category\n0.jpg,7,cat\n1.jpg,8,dog\n", ["cat", "dog"]),
    "what is told apart in a column": Case("file,price,species\n0.jpg,7,cat\n1.jpg,8,dog\n", ["cat", "dog"]),
    "two columns, one known": Case(
        "filename,animal\n0.jpg,cat\n1.jpg,dog\n", ["cat", "dog"], ("'animal', the only other",)
    ),
    "two candidates": Case(
        "path,label,target\n0.jpg,cat,1\n1.jpg,dog,2\n", ["cat", "dog"], ("'label' (not target; label_column",)
    ),
    "named columns": Case(
        "where,what,label\n0.jpg,cat,1\n1.jpg,dog,2\n",
        ["cat", "dog"],
        settings={"input_column": "where", "label_column": "what"},
    ),
    "a named column that is not there": Case(
        PLAIN, problems=("there is no column 'lable', did you mean 'label'?",), settings={"label_column": "lable"}
    ),
    "both named wrongly": Case(
        PLAIN, problems=("no column 'a'", "no column 'b'"), settings={"input_column": "a", "label_column": "b"}
    ),
    # paths
    "missing files": Case(
        "path,label\n0.jpg,cat\n8.jpg,dog\n1.jpg,dog\n9.jpg,cat\n",
        problems=("2 of 4 files cannot be found: line 3: 8.jpg does not exist, line 5: 9.jpg",),
    ),
    "an address, a folder, an empty path": Case(
        "path,label\nhttp://a.b/c.jpg,cat\nsub,dog\n,cat\n0.jpg,dog\n",
        problems=("http://a.b/c.jpg is an address", "sub is a folder", "line 4: no path"),
    ),
    "paths of Windows": Case("path,label\nsub\\3.jpg,cat\n1.jpg,dog\n", ["cat", "dog"]),
    "paths with dots": Case("path,label\n./0.jpg,cat\nsub/../1.jpg,dog\n", ["cat", "dog"]),
    # JSON lines
    "jsonl": Case(
        lines({"image": "0.jpg", "label": "NA"}, {"image": "1.jpg", "label": 7}, {"image": "2.jpg", "label": 1.0}),
        ["NA", "7", "1.0"],
        name="table.jsonl",
    ),
    "jsonl with null": Case(
        lines({"image": "0.jpg", "label": "a"}, {"image": "1.jpg", "label": None}, {"image": "2.jpg"}),
        problems=("2 rows have no label: line 2, line 3",),
        name="table.jsonl",
    ),
    "jsonl that is broken": Case(
        '{"image": "0.jpg", "label": "a"}\n{"image": \n[1]\n',
        problems=("line 2 (", "line 3 (not an object)"),
        name="t.jsonl",
    ),
    "jsonl with a list": Case(
        lines({"image": "0.jpg", "label": ["a", "b"]}, {"image": "1.jpg", "label": "a"}),
        problems=("a list is not a class name: line 1",),
        name="table.jsonl",
    ),
    "not a parquet file": Case("PAR1 not really", problems=("not a readable Parquet file",), name="table.parquet"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("0.jpg", "1.jpg", "2.jpg", "sub/3.jpg", *(f"v{i}.jpg" for i in range(10))):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_table(name: str, folder: Path) -> None:
    case = CASES[name]
    path = folder / case.name
    content = case.content.encode("utf-8", "surrogatepass") if isinstance(case.content, str) else case.content
    path.write_bytes(content)
    limit = csv.field_size_limit()
    settings = DataSettings(**case.settings)
    if case.labels is None:
        with pytest.raises(DataError) as caught:
            sources.collect(path, settings)
        assert [text for text in case.problems if text not in str(caught.value)] == []
    else:
        found = sources.collect(path, settings)
        assert [found.classes[label] for label in found.rows.labels] == case.labels
        assert [text for text in case.notes if text not in "\n".join(found.notes)] == []
        assert all(os.path.isabs(item) and os.path.isfile(item) for item in found.rows.items)
        if not case.notes and "spaces" not in name:
            assert not [note for note in found.notes if "one class" not in note and "columns taken" not in note]
    assert path.read_bytes() == content
    assert csv.field_size_limit() == limit


def test_there_are_fifty_tables_at_least() -> None:
    assert len(CASES) >= 50


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    table = folder / "table.csv"
    table.write_text("path,label,split,x,x\n0.jpg,,train,,\n1.jpg,a\n7.jpg,cat,trian,,\n2.jpg,dog,val,,\n")
    with pytest.raises(DataError) as caught:
        sources.collect(table, DataSettings())
    told = (
        "twice: x",
        "line 3 has 2",
        "no label: line 2",
        "'trian' (line 4)",
        "7.jpg does not exist",
        "'dog' (1 in val",
    )
    assert [text for text in told if text not in str(caught.value)] == []


def test_few_missing_files_are_left_out_and_named(folder: Path) -> None:
    rows = "".join(f"{i % 3}.jpg,{'cat' if i % 2 else 'dog'}\n" for i in range(40))
    (folder / "table.csv").write_text(f"path,label\n{rows}gone.jpg,cat\n")
    found = sources.collect(folder / "table.csv", DataSettings())
    assert len(found) == 40
    assert any("1 of 41 files cannot be found: line 42: gone.jpg does not exist" in note for note in found.notes)
    with pytest.raises(DataError, match=r"gone\.jpg"):
        sources.collect(folder / "table.csv", DataSettings(on_unreadable="stop"))


def test_a_split_column_gives_the_splits(folder: Path) -> None:
    (folder / "table.csv").write_text(
        "path,label,Split\n"
        + "".join(f"{i % 3}.jpg,{'ab'[i % 2]},{['Train', 'Validation', 'TEST'][i // 4]}\n" for i in range(12))
    )
    splits = sources.read(folder / "table.csv", DataSettings(), seed=0)
    assert [len(rows) for rows in splits.present().values()] == [4, 4, 4]
    (folder / "table.csv").write_text("path,label,fold\n0.jpg,a,train\n1.jpg,b,train\n2.jpg,b,3\n")
    with pytest.raises(DataError, match=r"1 row names no split: '3' \(line 4\)"):
        sources.collect(folder / "table.csv", DataSettings(split_column="fold"))


def test_a_group_column_keeps_rows_together(folder: Path) -> None:
    for i in range(120):
        (folder / f"p{i}.jpg").touch()
    rows = "".join(f"p{i}.jpg,{'ab'[i % 2]},{'' if i == 119 else f'animal{i // 6}'}\n" for i in range(120))
    (folder / "table.csv").write_text(f"path,label,animal\n{rows}")
    settings = DataSettings(split=SplitSettings(group_by="animal"))
    for seed in range(5):
        splits = sources.read(folder / "table.csv", settings, seed=seed)
        train, val = (set(rows.groups or ()) for rows in (splits.train, splits.val))
        assert not train & val
    assert any("group_by animal: 21 groups of 120 rows" in note for note in splits.notes)
    assert "where column 'animal' is empty, each row is a group of its own: line 121" in splits.notes
    with pytest.raises(DataError, match=r"no column 'anmal', did you mean 'animal'"):
        sources.collect(folder / "table.csv", DataSettings(split=SplitSettings(group_by="anmal")))


def test_names_are_as_written_and_absolute_paths_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "table.csv").write_text(f"path,label\n0.jpg,cat\n{folder}/sub/3.jpg,dog\n")
    found = sources.collect(folder / "table.csv", DataSettings())
    assert found.rows.names == ("0.jpg", os.path.join("sub", "3.jpg"))
    monkeypatch.chdir(folder.parent)
    again = sources.collect(os.path.join(folder.name, "table.csv"), DataSettings())
    assert list(again.rows.items) == list(found.rows.items)
    table = folder / "sub" / "outside.csv"
    table.write_text(f"path,label\n{folder}/0.jpg,cat\n{folder}/1.jpg,dog\n3.jpg,dog\n")
    assert sources.collect(table, DataSettings()).rows.names == ("0.jpg", "1.jpg", "3.jpg")


class TestParquet:
    @pytest.fixture(autouse=True)
    def _needs_pyarrow(self) -> None:
        pytest.importorskip("pyarrow")

    def test_strings_stay_strings(self, folder: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.table({"image_path": [f"{i % 3}.jpg" for i in range(10)], "label": VERBATIM})
        parquet.write_table(table, folder / "t.parquet")
        found = sources.collect(folder / "t.parquet", DataSettings())
        assert [found.classes[label] for label in found.rows.labels] == VERBATIM

    def test_embedded_pictures_and_class_names(self, folder: Path) -> None:
        datasets = pytest.importorskip("datasets")
        from PIL import Image

        picture = Image.fromarray(np.full((4, 4, 3), 200, dtype=np.uint8))
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
        data = datasets.Dataset.from_dict({"image": [picture] * 6, "label": [0, 1] * 3}, features=features)
        data.to_parquet(folder / "t.parquet")
        found = sources.collect(folder / "t.parquet", DataSettings())
        assert found.classes == ("no", "yes")
        assert found.rows.items[0]["bytes"].startswith(b"\x89PNG")
        assert found.rows.take([3, 1]).items[0]["bytes"] == found.rows.items[3]["bytes"]


def test_damaged_tables_give_rows_or_one_kind_of_error(folder: Path) -> None:
    """Bytes changed, cut and repeated: whatever comes out, it is rows or a DataError, never another exception."""
    rng = np.random.default_rng(0)
    start = [content if isinstance(content, bytes) else content.encode() for content in (PLAIN, PLAIN.encode("utf-16"))]
    start.append(lines({"image": "0.jpg", "label": "a"}, {"image": "1.jpg", "label": "b"}).encode())
    outcomes = {"rows": 0, "refused": 0}
    for number in range(400):
        data = bytearray(start[number % 3])
        for _ in range(rng.integers(1, 6)):
            at, kind = int(rng.integers(len(data))), rng.integers(4)
            if kind == 0:
                data[at] = int(rng.integers(256))
            elif kind == 1:
                data[at:at] = bytes(rng.choice(list(b'",;\t\r\n\0\xff|{}[]'), 2).tolist())
            elif kind == 2:
                del data[at : at + 3]
            else:
                data[at:at] = data[max(0, at - 9) : at]
        path = folder / ("t.jsonl" if number % 3 == 2 else "t.csv")
        path.write_bytes(bytes(data))
        try:
            found = sources.collect(path, DataSettings(max_unreadable=1))
            assert len(found.rows.items) == len(found.rows.labels) == len(found.rows.names)
            outcomes["rows"] += 1
        except DataError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20, outcomes


def test_guessed_columns_are_told_and_named_ones_are_not(folder: Path) -> None:
    (folder / "table.csv").write_text("path,label,quality\n0.jpg,cat,1\n1.jpg,dog,2\n")
    told = "columns taken by their names or kinds: input 'path', label 'label' (input_column=… chooses another)"
    assert told in sources.collect(folder / "table.csv", DataSettings()).notes
    named = DataSettings(input_column="path", label_column="label")
    assert not any("columns taken" in note for note in sources.collect(folder / "table.csv", named).notes)
