"""Trees of folders, each with the rows, classes, notes or mistakes it must give; the user's files stay untouched."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import DataError
from headstart.data import sources
from headstart.data.reading.collection import SPLITS, natural_key
from headstart.data.settings import DataSettings


def pets(folder: str = "", each: int = 3) -> list[str]:
    """``cat/0.jpg`` … ``dog/2.jpg`` below a folder."""
    return [f"{folder}{name}/{i}.jpg" for name in ("cat", "dog") for i in range(each)]


def link(target: str, name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, root / name)

    return make


@dataclass
class Tree:
    """``paths`` ending in / are empty folders. ``rows`` counts "split class" or, without given splits, "class"."""

    paths: list[str]
    rows: dict[str, int] | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    also: tuple[Callable[[Path], None], ...] = ()
    silent: bool = False  # no note at all


BOTH = {"train cat": 3, "train dog": 3}
SPLIT = {**BOTH, "val cat": 3, "val dog": 3}
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))

TREES = {
    "plain": Tree(pets(), BOTH, silent=True),
    "train and val": Tree(pets("train/") + pets("val/"), SPLIT, ("train → train, val → val",)),
    "any case": Tree(pets("TRAIN/") + pets("Valid/"), SPLIT),
    "validation": Tree(pets("training/") + pets("validation/"), SPLIT),
    "dev": Tree(pets("train/") + pets("dev/"), SPLIT),
    "three splits": Tree(pets("train/") + pets("val/") + pets("test/"), {**SPLIT, "test cat": 3, "test dog": 3}),
    "train and test": Tree(pets("train/") + pets("Test/"), {**BOTH, "test cat": 3, "test dog": 3}),
    "only train": Tree(pets("train/"), BOTH),
    "two spellings of one split": Tree(
        pets("train/") + pets("val/") + pets("valid/"), {**SPLIT, "val cat": 6, "val dog": 6}
    ),
    "a flat test folder": Tree(
        [*pets("train/"), "test/1.jpg", "test/2.jpg"], BOTH, ("2 files lie directly in test/, have no class",)
    ),
    "an extra folder beside splits": Tree(
        [*pets("train/"), *pets("val/"), "samples/a.jpg"], SPLIT, ("1 file lies outside of the splits", "samples/a.jpg")
    ),
    "a flat folder beside train": Tree(
        [*pets("train/"), "samples/a.jpg"], BOTH, ("1 file lies outside of the splits and was left out",)
    ),
    "a class called train": Tree(
        ["bus/1.jpg", "bus/2.jpg", "car/1.jpg", "train/1.jpg", "train/2.jpg"],
        {"train bus": 2, "train car": 1, "train train": 2},
    ),
    "a class called train, all nested": Tree(
        ["bus/x/1.jpg", "car/x/1.jpg", "train/steam/1.jpg", "train/diesel/2.jpg"],
        {"train bus": 1, "train car": 1, "train train": 2},
        ("4 files lie in folders below",),
    ),
    "splits without classes": Tree(["train/1.jpg", "test/1.jpg"], problems=("no class folders", "2 files lie there")),
    "splits without train": Tree(pets("val/") + pets("test/"), problems=("no labelled training rows",)),
    "root files": Tree([*pets(), "a.jpg", "b.jpg"], BOTH, ("2 files lie directly in the top folder", "a.jpg, b.jpg")),
    "only root files": Tree(["a.jpg", "b.jpg"], problems=("no class folders", "sort them into <class>/ folders")),
    "nothing": Tree([], problems=("no class folders", "train/<class>/*.jpg")),
    "only other files": Tree(
        ["cat/1.pdf", "dog/2.pdf"], problems=("no class folders", "cat/1.pdf", "the class folder")
    ),
    "a table beside pictures": Tree(["1.jpg", "labels.csv"], problems=("is the table labels.csv the data?",)),
    "nested pictures": Tree(
        [*pets(), "cat/2020/may/4.jpg"],
        {"train cat": 4, "train dog": 3},
        ("1 file lies in a folder below its class folder", "cat/2020/may/4.jpg"),
    ),
    "classes one level too deep": Tree(
        pets("photo/") + pets("sketch/"),
        {"train photo": 6, "train sketch": 6},
        ("if cat, dog are the classes, give one of photo, sketch",),
    ),
    "a folder around everything": Tree(pets("photos/"), BOTH, ("everything lies in 'photos'",)),
    "two folders around splits": Tree(pets("a/b/train/") + pets("a/b/val/"), SPLIT, ("everything lies in 'a/b'",)),
    "hidden files": Tree(
        [*pets(), ".DS_Store", "cat/._0.jpg", ".ipynb_checkpoints/x.jpg", "cat/Thumbs.db", "dog/desktop.ini"],
        BOTH,
        ("5 hidden or system files", ".ipynb_checkpoints", "cat/Thumbs.db", "dog/desktop.ini"),
    ),
    "an archive of a Mac": Tree([*pets(), "__MACOSX/cat/._0.jpg"], BOTH, ("1 hidden or system", "__MACOSX")),
    "other extensions": Tree(
        [*pets(), "cat/notes.txt", "dog/a.HEIC", "dog/README"],
        BOTH,
        ("3 files have another extension", ".heic 1, .txt 1, no extension 1", "cat/notes.txt"),
    ),
    "one of each": Tree(
        [*pets(), "cat/2020/4.jpg", "a.jpg", "dog/README", ".hidden"],
        {**BOTH, "train cat": 4},
        (
            "1 file lies in a folder below its class folder and counts for it: cat/2020/4.jpg",
            "1 file lies directly in the top folder, has no class and was left out: a.jpg",
            "1 file has another extension and was left out (no extension 1): dog/README",
            "1 hidden or system file was ignored: .hidden",
        ),
    ),
    "extensions in any case": Tree(
        ["cat/1.JPG", "cat/2.JpEg", "dog/1.PNG", "dog/2.WebP"], {"train cat": 2, "train dog": 2}
    ),
    "an empty class": Tree([*pets(), "fish/"], problems=("fish/: the class folder holds no files",)),
    "two empty classes, all named": Tree(
        [*pets("train/"), "train/a/", "train/b/x.txt"], problems=("train/a/", "train/b/")
    ),
    "an empty class in val": Tree(
        [*pets("train/"), "val/cat/1.jpg", "val/dog/"],
        {**BOTH, "val cat": 1},
        ("class folders without a file: val/dog",),
    ),
    "one class": Tree(["cat/1.jpg", "cat/2.jpg"], problems=("only one class, 'cat', with 2 rows",)),
    "a class of one sample": Tree([*pets(each=9), "fish/1.jpg"], {"train cat": 9, "train dog": 9, "train fish": 1}),
    "val knows a class that train does not": Tree(
        [*pets("train/"), *pets("val/"), "val/cats/9.jpg"],
        problems=("classes without a training row: 'cats' (1 in val, 0 in test, did you mean 'cat'?)",),
    ),
    "val lacks a class": Tree([*pets("train/"), "val/cat/1.jpg"], {**BOTH, "val cat": 1}, ("val has no rows of dog",)),
    "classes that differ by case": Tree(
        [*pets(), "Cat/1.jpg"], {**BOTH, "train Cat": 1}, ("differ only by case", "'Cat' (1 row), 'cat' (3 rows)")
    ),
    "classes that differ by Unicode form": Tree(
        [f"{NFC}/1.jpg", f"{NFD}/2.jpg", "tea/1.jpg"], {f"train {NFC}": 2, "train tea": 1}, ("one class: café",)
    ),
    "classes that differ by a space": Tree(
        [*pets(), "cat /9.jpg"], {"train cat": 4, "train dog": 3}, ("spaces around labels were removed: cat",)
    ),
    "dangerous class names": Tree(
        [f"{name}/1.jpg" for name in ("<script>", "=cmd", "CON", "%2e%2e", "a\nb\x1b[31m")],
        {f"train {name}": 1 for name in ("<script>", "=cmd", "CON", "%2e%2e", "a\\nb\\x1b[31m")},
    ),
    "a link to an ancestor": Tree(
        pets(), BOTH, ("1 link leads to a folder that was read already", "cat/up"), also=(link("..", "cat/up"),)
    ),
    "links to each other": Tree(
        pets(),
        BOTH,
        ("2 links", "cat/other", "dog/other"),
        also=(link("../dog", "cat/other"), link("../cat", "dog/other")),
    ),
    "a linked class": Tree(
        ["cat/1.jpg", ".store/1.jpg", ".store/2.jpg"],
        {"train cat": 1, "train dog": 2},
        also=(link(".store", "dog"),),
    ),
    "broken links": Tree(
        pets(),
        {"train cat": 4, "train dog": 3},  # the decoder names the reason
        ("1 entry is no regular file", "dog/loop"),
        also=(link("nowhere.jpg", "cat/9.jpg"), link("loop", "dog/loop")),
    ),
    "a folder called like a picture": Tree([*pets(), "cat/x.jpg/1.jpg"], {"train cat": 4, "train dog": 3}),
}


def build(root: Path, tree: Tree) -> None:
    for path in tree.paths:
        file = root / path
        if path.endswith("/"):
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.encode())
    for make in tree.also:
        make(root)


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    files = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    return {str(file): (file.lstat().st_mtime_ns, file.read_bytes()) for file in files if file.is_file()}


@pytest.mark.parametrize("name", TREES)
def test_tree(name: str, tmp_path: Path) -> None:
    tree = TREES[name]
    build(tmp_path, tree)
    before = snapshot(tmp_path)
    if tree.rows is None:
        with pytest.raises(DataError) as caught:
            sources.collect(tmp_path, DataSettings())
        assert [text for text in tree.problems if text not in str(caught.value)] == []
    else:
        found = sources.collect(tmp_path, DataSettings())
        counts = Counter(
            f"{SPLITS[given]} {found.classes[label]}"
            for given, label in zip(found.given, found.rows.labels, strict=True)
        )
        assert counts == tree.rows
        assert [text for text in tree.notes if text not in "\n".join(found.notes)] == []
        assert not (tree.silent and found.notes)
        pictures = [file for file in before if Path(file).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]
        assert {os.path.realpath(item) for item in found.rows.items if os.path.exists(item)} <= set(
            map(os.path.realpath, pictures)
        )
    assert snapshot(tmp_path) == before


def test_there_are_forty_trees_at_least() -> None:
    assert len(TREES) >= 40


def test_every_file_is_a_row_or_listed(tmp_path: Path) -> None:
    """Rows in = rows out + listed, whatever the tree."""
    for number, tree in enumerate(tree for tree in TREES.values() if tree.rows is not None and not tree.also):
        root = tmp_path / str(number)
        build(root, tree)
        found = sources.collect(root, DataSettings())
        said = "\n".join(found.notes)
        taken = {os.path.relpath(item, root) for item in found.rows.items}
        for path in tree.paths:
            parents = path.split("/")
            listed = any("/".join(parents[: depth + 1]).rstrip("/") in said for depth in range(len(parents)))
            assert path in taken or listed, path


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    build(tmp_path, Tree(pets()))
    os.mkfifo(tmp_path / "cat" / "pipe")
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    found = sources.collect(tmp_path, DataSettings())
    assert "1 entry is no regular file (broken links, pipes), left out: cat/pipe" in "\n".join(found.notes)
    assert "cat/pipe.jpg" in found.rows.names


def test_a_folder_that_cannot_be_listed_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, Tree(pets()))
    scandir = os.scandir

    def refuse(path: os.PathLike[str] | str) -> object:
        if os.fspath(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"dog \(Permission denied\): the folder cannot be listed"):
        sources.collect(tmp_path, DataSettings())


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    build(tmp_path, Tree(pets()))
    raw = os.path.join(os.fsencode(tmp_path), b"cat", b"\xff.jpg")
    with open(raw, "wb"):
        pass
    found = sources.collect(tmp_path, DataSettings())
    row = found.rows.names.index("cat/\\udcff.jpg")
    assert os.fsencode(found.rows.items[row]) == raw


def test_any_names_have_an_order() -> None:
    names = ["".join(letters) for size in range(1, 5) for letters in itertools.product("ab_02", repeat=size)]
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == sorted(names, key=natural_key)
    classes = ["big_cat10", "big_cat", "big_cat2", "big cat", "cat", "cat2", "cat02"]
    assert sorted(classes, key=natural_key) == ["big cat", "big_cat", "big_cat2", "big_cat10", "cat", "cat02", "cat2"]


def test_rows_are_in_natural_order_whatever_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"c{k}/{i}.jpg" for k in (10, 2) for i in (10, 9, 1, 100)]
    build(tmp_path, Tree(names))
    first = sources.read(tmp_path, DataSettings(), seed=1)
    assert first.classes == ("c2", "c10")
    collected = sources.collect(tmp_path, DataSettings())
    assert collected.rows.names == tuple(f"c{k}/{i}.jpg" for k in (2, 10) for i in (1, 9, 10, 100))

    scandir = os.scandir

    class Shuffled:
        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Shuffled)
    assert sources.read(tmp_path, DataSettings(), seed=1).fingerprint == first.fingerprint


def test_ten_thousand_classes(tmp_path: Path) -> None:
    """As pairs of one file: ten thousand folders would only slow the suite down."""
    picture = tmp_path / "a.jpg"
    picture.touch()
    pairs = [(str(picture), f"class {i}") for i in range(10_000) for _ in range(2)]
    found = sources.collect(pairs, DataSettings())
    assert len(found.classes) == 10_000
    assert found.classes[2] == "class 2"
    assert np.bincount(found.rows.labels).tolist() == [2] * 10_000
