"""Several places at once: folders, tables and files beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.core.errors import DataError
from headstart.data import sources


def test_several_folders_are_read_and_names_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/x.jpg", "b/x.jpg", "b/sub/y.jpg", "z.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").write_text("path\nz.jpg\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    rows, notes = sources.find_unlabelled(["a", Path("b"), "z.jpg", "empty", "t.csv"])
    assert rows.names[:-1] == ("a/x.jpg", "b/x.jpg", "b/sub/y.jpg", "z.jpg")
    assert [Path(item) for item in rows.items[:-1]] == [tmp_path / name for name in rows.names[:-1]]
    assert rows.names[-1] == "t.csv/z.jpg"
    assert any(note.startswith("empty: nothing") for note in notes)


def test_all_places_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        sources.read_unlabelled([str(tmp_path), str(tmp_path / "nope"), str(tmp_path / "c.jpg")])
    assert [Path(problem.where).name for problem in caught.value.problems] == ["nope", "c.jpg"]


def test_a_missing_file_of_a_table_is_its_rows_own_problem(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "t.csv").write_text("path\na.jpg\nnope.jpg\nb.jpg\n", encoding="utf-8")
    rows, _ = sources.find_unlabelled(tmp_path / "t.csv")
    assert rows.names == ("a.jpg", "nope.jpg", "b.jpg")
    (tmp_path / "u.csv").write_text("path\nphotos/a.jpg\nphotos/b.jpg\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 of 2 files cannot be found") as caught:
        sources.read_unlabelled(tmp_path / "u.csv")
    assert "relative paths start at" in str(caught.value)


def test_the_column_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("body,remark\na film,x\na book,y\n", encoding="utf-8")
    assert sources.read_unlabelled(tmp_path / "t.csv", "text", input_column="remark").items == ["x", "y"]
    with pytest.raises(DataError, match="there is no column 'bdy', did you mean 'body'"):
        sources.read_unlabelled(tmp_path / "t.csv", "text", input_column="bdy")


def test_nothing_is_no_name_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "a.txt").write_text("a text", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for nothing in ("", "  "):
        assert list(sources.read_unlabelled(nothing, "text").items) == [nothing], "a text that is empty"
        for source in (nothing, [nothing, "a.jpg"], Path(nothing) if nothing else nothing):
            with pytest.raises(DataError):
                sources.read_unlabelled(source, "image")


def test_what_yields_rows_is_read_to_its_end_and_a_set_has_no_order() -> None:
    assert list(sources.read_unlabelled((text for text in ("a b", "c d")), "text").items) == ["a b", "c d"]
    assert list(sources.read_unlabelled(map(str.upper, ["a b"]), "text").items) == ["A B"]
    with pytest.raises(DataError, match="a set has no order"):
        sources.read_unlabelled({"a b", "c d"}, "text")
