"""Fifty hostile tables, folders and items of texts: each its own outcome, cells verbatim, nothing silently guessed."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headstart.core.errors import DataError
from headstart.data import sources
from headstart.data.modalities.text import TextSpec
from headstart.data.settings import DataSettings
from headstart.data.store import Store

from .. import words

VERBATIM = ["NA", "None", "null", "nan", "1", "1.0", "01", "True", "=1+1", "N/A", "-", "no", "+62", "@x"]
PLAIN = "text,label\nthe film was good,up\nthe soup was bad,down\nit was good,up\n"
LABELS = ["up", "down", "up"]
TEXTS = ["the film was good", "the soup was bad", "it was good"]
BIG = 200_000


@dataclass
class Case:
    """``rows`` as (text, label) or ``labels`` alone, ``notes`` that are said, ``codes`` of unreadable rows by row, or
    ``problems`` that the one error must name."""

    content: str | bytes | Callable[[Path], Any]
    rows: list[tuple[Any, str]] | None = None
    labels: list[str] | None = None
    notes: tuple[str, ...] = ()
    codes: dict[int, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "reviews.csv"


SAME = list(zip(TEXTS, LABELS, strict=True))


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def folder(files: dict[str, bytes]) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        for name, content in files.items():
            place = at / "texts" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return at / "texts"

    return make


def parquet(columns: dict[str, list[Any]]) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        import pyarrow
        from pyarrow import parquet as files

        files.write_table(pyarrow.table(columns), at / "reviews.parquet")
        return at / "reviews.parquet"

    return make


UP, DOWN = "it was good", "it was bad"
CASES: dict[str, Case] = {
    # labels
    "labels verbatim": Case(
        "text,label\n" + "".join(f"good {n},{label}\n" for n, label in enumerate(VERBATIM)), labels=VERBATIM
    ),
    "labels verbatim without a header": Case(
        "".join(f"it was good,{label}\nit was bad,{label}\n" for label in VERBATIM),
        labels=[label for label in VERBATIM for _ in (0, 1)],
    ),
    "labels verbatim as TSV": Case(
        "text\tlabel\n" + "".join(f"good {n}\t{label}\n" for n, label in enumerate(VERBATIM)),
        labels=VERBATIM,
        name="r.tsv",
    ),
    "labels verbatim as JSON": Case(
        lines(*({"text": f"good {n}", "label": label} for n, label in enumerate(VERBATIM))),
        labels=VERBATIM,
        name="r.jsonl",
    ),
    "numbers of JSON as written": Case(
        '{"text": "a b", "label": 1}\n{"text": "c d", "label": 1.0}\n', labels=["1", "1.0"], name="r.jsonl"
    ),
    "truth values": Case(lines({"text": "a", "label": True}, {"text": "b", "label": False}), labels=["True", "False"],
                         name="r.jsonl"),
    "spaces around labels": Case(PLAIN.replace(",up", ", up ").replace(",down", ",down "), rows=SAME),
    "composed and decomposed": Case(
        f"text,label\na b,caf{unicodedata.normalize('NFD', 'é')}\nc d,café\ne f,tea\n", labels=["café", "café", "tea"]
    ),
    "labels of capital letters": Case(PLAIN.replace("down", "UP"), labels=["up", "UP", "up"], notes=("UP",)),
    "an empty label": Case(PLAIN.replace(",down", ","), problems=("have no label: line 3")),
    "null as a label": Case(lines({"text": "a", "label": None}, {"text": "b", "label": "x"}), name="r.jsonl",
                            problems=("have no label: line 1")),
    "fractions as labels": Case(parquet({"text": ["a", "b"], "label": [0.5, 1.0]}), problems=("a measurement",)),
    "a list beside a label": Case(lines({"text": "a", "label": ["x"]}, {"text": "b", "label": "y"}), name="r.jsonl",
                                  problems=("not a class name",)),
    "lists in lists of labels": Case(lines({"text": "a", "label": [["x"]]}, {"text": "b", "label": ["y"]}),
                                     name="r.jsonl", problems=("a list is not a class name: line 1",)),
    "one class": Case(PLAIN.replace("down", "up"), problems=("class",)),
    "a label with control characters": Case("text,label\na b,x\x1b[31m\nc d,y\n", labels=["x\\x1b[31m", "y"]),
    "a label that turns the reading": Case("text,label\na b,x\u202ey\nc d,y\n", labels=["x\\u202ey", "y"]),
    # encodings
    "a mark": Case("\ufeff" + PLAIN, rows=SAME),
    "UTF-16": Case(PLAIN.encode("utf-16"), rows=SAME, notes=("utf-16",)),
    "Windows' Latin": Case(PLAIN.replace("film", "café").encode("cp1252"), notes=("not UTF-8 (line 2)", "cp1252"),
                           rows=[("the café was good", "up"), *SAME[1:]]),
    "two encodings": Case(PLAIN.encode() + "der Käse war gut,up\n".encode("cp1252"), notes=("cp1252",),
                          rows=[*SAME, ("der Käse war gut", "up")]),
    "zero bytes": Case(PLAIN.replace("soup", "so\0up"), problems=("zero bytes in line 3",)),
    "emoji and many scripts": Case("text,label\n😀 слово,up\n日本語 テキスト,down\n", rows=[("😀 слово", "up"),
                                                                                       ("日本語 テキスト", "down")]),
    "half of a pair of surrogates": Case('{"text": "a \\ud800 b", "label": "x"}\n{"text": "c", "label": "y"}\n',
                                         name="r.jsonl", codes={0: "encoding"}),
    # texts
    "an empty text": Case(PLAIN + ",up\n", codes={3: "empty-text"}),
    "a text of spaces": Case(PLAIN + "\u00a0 \u2003,up\n", codes={3: "empty-text"}),
    "the text NA": Case(PLAIN + "NA,up\nnan,down\n", rows=[*SAME, ("NA", "up"), ("nan", "down")]),
    "a text that is a formula": Case(PLAIN + "=1+1,up\n", rows=[*SAME, ("=1+1", "up")]),
    "texts that are numbers": Case("text,label\n007,x\n1e5,y\n", rows=[("007", "x"), ("1e5", "y")]),
    "numbers in JSON": Case(lines({"text": 7, "label": "x"}, {"text": "seven", "label": "y"}), name="r.jsonl",
                            rows=[("7", "x"), ("seven", "y")]),
    "null as a text": Case(lines({"text": None, "label": "x"}, {"text": "b", "label": "y"}), name="r.jsonl",
                           codes={0: "missing"}),
    "a list as a text": Case(lines({"text": ["a", "b", "c"], "label": "x"}, {"text": "b", "label": "y"}),
                             name="r.jsonl", codes={0: "not-text"}),
    "nothing in Parquet": Case(parquet({"text": ["a", None], "label": ["x", "y"]}), codes={1: "missing"}),
    "a text that is too long": Case(PLAIN + "x " * 600_000 + ",up\n", codes={3: "too-long"}),
    "a long word": Case(PLAIN + "x" * BIG + ",up\n", labels=[*LABELS, "up"]),
    "lines inside of texts": Case('text,label\n"a\r\nb",x\n"c\nd",y\n', rows=[("a\r\nb", "x"), ("c\nd", "y")]),
    "HTML": Case("text,label\n<script>alert(1)</script>,x\n&amp;,y\n", rows=[("<script>alert(1)</script>", "x"),
                                                                           ("&amp;", "y")]),
    "control characters": Case("text,label\na\x1b[2Jb,x\nc,y\n", rows=[("a\x1b[2Jb", "x"), ("c", "y")]),
    "texts that look like paths": Case(PLAIN + "see a.jpg,up\n/etc/passwd,down\n",
                                       rows=[*SAME, ("see a.jpg", "up"), ("/etc/passwd", "down")]),
    "nothing that can be seen": Case(PLAIN + "\u200b\u200b,up\n", codes={3: "empty-text"}),
    "a text that ends like a sound": Case("text,label\nshop.com.au,x\nthe film,y\na soup,x\n",
                                          rows=[("shop.com.au", "x"), ("the film", "y"), ("a soup", "x")]),
    "half a pair": Case("premise,hypothesis,label\na b,,x\nc d,e f,y\n", codes={0: "empty-text"}),
    # tables
    "an unclosed quote": Case(PLAIN + '"open,up\n', problems=("starts at line 5",)),
    "a comma too many": Case(PLAIN + "good, but long,up\n", problems=("line 5 has 3",)),
    "tabs in a .csv": Case(PLAIN.replace(",", "\t"), rows=SAME, notes=("separated by '\\t'",)),
    "commas in texts of a .tsv": Case(PLAIN.replace(",", "\t").replace("film", "film, or so,"), name="r.tsv",
                                      rows=[("the film, or so, was good", "up"), *SAME[1:]]),
    "quotes inside of a .tsv": Case('text\tlabel\nthe "film" was\tup\n"quoted"\tdown\n', name="r.tsv",
                                    rows=[('the "film" was', "up"), ("quoted", "down")]),
    "an index column": Case("".join(f"{'' if n == 0 else n - 1},{line}\n" for n, line in enumerate(PLAIN.splitlines())),
                            rows=SAME),
    "two text columns": Case("title,text,label\nt1,a b,x\nt2,c d,y\n", rows=[("a b", "x"), ("c d", "y")],
                             notes=("title",)),
    "no label column": Case("text,other,more\na,b,c\n", problems=("no column looks like the label",)),
    "a header alone": Case("text,label\n", problems=("no rows",)),
    "nothing": Case("", problems=("is empty",)),
    "a column twice": Case("text,text,label\na,b,x\n", problems=("names columns twice",)),
    "rows of a split": Case("text,label,split\na b,x,train\nc d,y,train\ne f,x,dev\ng h,y,tset\n",
                            problems=("names no split", "tset")),
    # folders
    "a folder of odd files": Case(
        folder({"up/1.txt": b"good", "up/2.txt": b"", "up/3.txt": b"caf\xe9", "down/1.txt": "bad".encode("utf-16"),
                "down/2.txt": b"\x00\x01\x02", "down/.hidden.txt": b"x", "down/notes.pdf": b"x"}),
        codes={1: "empty-text", 3: "empty-file"},
        labels=["down", "down", "up", "up", "up"],
        notes=("hidden", ".pdf 1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_kind_has_its_outcome(case: Case, tmp_path: Path) -> None:
    if callable(case.content):
        source = case.content(tmp_path)
    else:
        source = tmp_path / case.name
        source.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
    before = source.read_bytes() if source.is_file() else b""
    settings = DataSettings(**case.settings)
    if case.problems:
        with pytest.raises(DataError) as raised:
            sources.collect(source, settings)
        told = str(raised.value) + "".join(map(str, raised.value.problems))
        assert all(part in told for part in case.problems), told
        return
    found = sources.collect(source, settings)
    assert found.modality == "text"
    if case.labels is not None:
        assert [found.classes[label] for label in found.rows.labels] == case.labels
    if case.rows is not None:
        labels = [found.classes[label] for label in found.rows.labels]
        assert list(zip(found.rows.items, labels, strict=True)) == case.rows
    for note in case.notes:
        assert any(note in each for each in found.notes), found.notes
    store = Store.build(found.rows, TextSpec(words.tokenizer(), 16), modality="text")
    assert {row: reason.code for row, reason in store.errors.items()} == case.codes
    if before:
        assert source.read_bytes() == before


def test_there_are_fifty_kinds() -> None:
    assert len(CASES) >= 50
