"""From a source to splits: what is drawn and said, fingerprints, groups, limits, and what predict and evaluate read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from headstart.core.errors import ConfigError, DataError
from headstart.data import sources
from headstart.data.reading.division import MIN_TEST_ROWS
from headstart.data.settings import DataSettings, SplitSettings
from headstart.data.splits import UNLABELLED

PHOTOS = Callable[..., Path]


def arrays(count: int, classes: int = 2) -> tuple[np.ndarray, list[int]]:
    return np.zeros((count, 2, 2), dtype=np.uint8), [row % classes for row in range(count)]


def empty_photos(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


class TestDrawnSplits:
    def test_test_is_drawn_when_it_has_rows_enough(self) -> None:
        enough = sources.read(arrays(340), DataSettings(), seed=0)  # 51 rows
        assert (len(enough.val), len(enough.present()["test"])) == (51, 51)
        assert "51 val and 51 test rows were drawn from 340 (stratified by class, seed 0)" in enough.notes
        few = sources.read(arrays(300), DataSettings(), seed=0)  # 45 rows
        assert few.test is None
        assert len(few.val) == 45
        said = f"there is no test split (15% would be 45 rows, fewer than {MIN_TEST_ROWS}; data.split.test="
        assert any(said in note and "optimistic" in note for note in few.notes)

    def test_counts_of_one_read_as_such(self) -> None:
        notes = sources.read(arrays(4), DataSettings(split=SplitSettings(val=0.1)), seed=0).notes
        assert any("15% would be 1 row, fewer" in note for note in notes), notes
        assert any(note.startswith("1 val row was drawn from 4") for note in notes), notes
        asked = sources.read(arrays(5), DataSettings(split=SplitSettings(test=0.15)), seed=0).notes
        assert any(note.startswith("the test split has only 1 row:") for note in asked), asked

    @pytest.mark.parametrize(("share", "rows"), [(0.4, 32), (0.15, 12)])
    def test_a_test_share_that_was_asked_for_is_drawn(self, share: float, rows: int) -> None:
        splits = sources.read(arrays(80), DataSettings(split=SplitSettings(test=share)), seed=0)
        assert len(splits.present()["test"]) == rows
        assert f"the test split has only {rows} rows: read its intervals, not the numbers alone" in splits.notes
        with pytest.raises(ValueError, match=r"val \+ test = 1.05 leaves no rows"):
            SplitSettings(val=0.9)

    def test_no_test_share_and_no_val_share(self) -> None:
        splits = sources.read(arrays(1000), DataSettings(split=SplitSettings(test=0)), seed=0)
        assert splits.test is None
        assert any("data.split.test is 0" in note for note in splits.notes)
        with pytest.raises(ConfigError, match="there are no val rows"):
            sources.read(arrays(1000), DataSettings(split=SplitSettings(val=0)), seed=0)

    def test_given_splits_are_never_touched(self) -> None:
        given = {"train": arrays(400), "val": arrays(40)}
        splits = sources.read(given, DataSettings(), seed=0)
        assert splits.val.names == tuple(f"val/row {row}" for row in range(40))
        assert (len(splits.train), len(splits.present()["test"])) == (340, 60)
        whole = sources.read({**given, "test": arrays(10)}, DataSettings(), seed=0)
        assert [len(rows) for rows in whole.present().values()] == [400, 40, 10]
        assert not [note for note in whole.notes if "drawn" in note]
        only_test = sources.read({"train": arrays(100), "test": arrays(10)}, DataSettings(), seed=0)
        assert [len(rows) for rows in only_test.present().values()] == [85, 15, 10]

    def test_a_class_that_val_cannot_measure_is_named(self, tmp_path: Path) -> None:
        photos = empty_photos(tmp_path, [f"{name}/{i}.jpg" for name in "ab" for i in range(20)] + ["one/1.jpg"])
        splits = sources.read(photos, DataSettings(), seed=0)
        assert splits.counts()["val"] == {"a": 3, "b": 3, "one": 0}
        assert splits.counts()["train"]["one"] == 1
        assert any("val has no rows of one (too few rows)" in note for note in splits.notes)

    def test_rows_of_one_file_stay_together(self, tmp_path: Path) -> None:
        empty_photos(tmp_path, [f"{i}.jpg" for i in range(40)])
        pairs = [(str(tmp_path / f"{i % 40}.jpg"), "ab"[i % 2]) for i in range(120)]
        for seed in range(5):
            splits = sources.read(pairs, DataSettings(), seed=seed)
            assert not set(splits.train.items) & set(splits.val.items)

    def test_duplicates_stay_together(self) -> None:
        collection = sources.collect(arrays(400), DataSettings())
        duplicates = np.arange(400) // 5
        whole = sources.divide(collection, DataSettings(), seed=0, duplicates=duplicates)
        torn = sources.divide(collection, DataSettings(), seed=0)
        ids = [set(duplicates[rows]) for rows in whole.index.values()]
        assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
        assert set(duplicates[torn.index["train"]]) & set(duplicates[torn.index["val"]])  # the planted fault shows
        assert "groups and duplicates kept together" in " ".join(whole.notes)

    def test_a_test_split_takes_no_twin_of_a_given_val_row(self) -> None:
        collection = sources.collect({"train": arrays(400), "val": arrays(40)}, DataSettings())
        duplicates = np.arange(440)
        duplicates[400:] = np.arange(0, 400, 10)  # every val row has a twin in train
        for seed in range(5):
            division = sources.divide(collection, DataSettings(), seed=seed, duplicates=duplicates)
            assert not set(duplicates[division.index["test"]]) & set(duplicates[division.index["val"]])

    def test_taking_rows_away_can_empty_a_class(self) -> None:
        collection = sources.collect(arrays(100, classes=3), DataSettings())
        left = collection.take(np.flatnonzero(collection.rows.labels != 2), "33 unreadable rows were left out")
        with pytest.raises(DataError, match="classes without a training row: '2'"):
            sources.divide(left, DataSettings(), seed=0)

    def test_the_index_leads_to_the_rows(self) -> None:
        collection = sources.collect(arrays(400), DataSettings())
        division = sources.divide(collection, DataSettings(), seed=7)
        splits = sources.arranged(collection, division)
        for name, rows in splits.present().items():
            assert rows.names == tuple(f"row {row}" for row in division.index[name])


class TestGroups:
    def names(self) -> list[str]:
        return [f"{'cat' if animal % 2 else 'dog'}/animal{animal}_{i}.jpg" for animal in range(30) for i in range(4)]

    @pytest.mark.parametrize("pattern", [r"(\w+)_\d+", r"/(animal\d+)_"])
    def test_a_pattern_keeps_files_together(self, tmp_path: Path, pattern: str) -> None:
        photos = empty_photos(tmp_path, self.names())
        settings = DataSettings(split=SplitSettings(group_by=pattern))
        for seed in range(5):
            splits = sources.read(photos, settings, seed=seed)
            animals = [{Path(name).stem.split("_")[0] for name in rows.names} for rows in splits.present().values()]
            assert sum(map(len, animals)) == len(set().union(*animals)) == 30
        assert f"group_by {pattern}: 30 groups of 120 rows" in splits.notes
        apart = sources.read(photos, DataSettings(), seed=0)
        assert {n.split("_")[0] for n in apart.train.names} & {n.split("_")[0] for n in apart.val.names}

    @pytest.mark.parametrize(
        ("pattern", "told"),
        [("(", "not a regular expression"), ("a(b)(c)", "has 2"), (r"\d", "has 0"), ("(zebra)", "matches none")],
    )
    def test_patterns_that_cannot_be_used(self, tmp_path: Path, pattern: str, told: str) -> None:
        photos = empty_photos(tmp_path, self.names())
        with pytest.raises(ConfigError, match=told):
            sources.collect(photos, DataSettings(split=SplitSettings(group_by=pattern)))

    @pytest.mark.parametrize(
        ("pattern", "told"), [(r"(.+)", "grouped nothing: each of"), (r"(animal)", "into one group")]
    )
    def test_a_pattern_that_groups_nothing_or_everything_is_told(self, tmp_path: Path, pattern: str, told: str) -> None:
        photos = empty_photos(tmp_path, self.names())
        found = sources.collect(photos, DataSettings(split=SplitSettings(group_by=pattern)))
        assert any(told in note for note in found.notes)

    def test_groups_that_straddle_given_splits_are_an_error(self, tmp_path: Path) -> None:
        names = [f"{split}/{name}/a{i}_{split}.jpg" for split in ("train", "val") for name in "xy" for i in range(3)]
        settings = DataSettings(split=SplitSettings(group_by=r"(a\d)_"))
        with pytest.raises(DataError, match="groups with rows in two of the given splits: a0, a1, a2"):
            sources.read(empty_photos(tmp_path, names), settings, seed=0)


class TestFingerprint:
    def test_it_is_of_names_labels_and_membership(self, toy_photos: PHOTOS, tmp_path: Path) -> None:
        photos = toy_photos(3, per_class=10, size=8)
        first = sources.read(photos, DataSettings(), seed=0).fingerprint
        assert len(first) == 64
        assert sources.read(photos, DataSettings(), seed=1).fingerprint != first
        os.rename(photos / "circle" / "000.png", photos / "circle" / "zzz.png")
        assert sources.read(photos, DataSettings(), seed=0).fingerprint != first
        os.rename(photos / "circle" / "zzz.png", photos / "circle" / "000.png")
        assert sources.read(photos, DataSettings(), seed=0).fingerprint == first
        shutil.move(photos / "circle", photos / "disc")
        assert sources.read(photos, DataSettings(), seed=0).fingerprint != first

    def test_it_is_not_of_place_time_or_folder(
        self, toy_photos: PHOTOS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        photos = toy_photos(3, per_class=10, size=8)
        first = sources.read(photos, DataSettings(), seed=0)
        for number, file in enumerate(photos.rglob("*.png")):
            os.utime(file, (number, number))
        moved = tmp_path / "elsewhere" / "renamed"
        shutil.copytree(photos, moved)
        monkeypatch.chdir(moved.parent)
        for place in (photos, moved, "renamed", "./renamed/", Path("renamed")):
            again = sources.read(place, DataSettings(), seed=0)
            assert again.fingerprint == first.fingerprint
            assert again.train.names == first.train.names
            assert all(os.path.isabs(item) for item in again.train.items)

    def test_swapping_two_labels_changes_it(self) -> None:
        x, y = arrays(100)
        first = sources.read((x, y), DataSettings(), seed=0)
        given = {"train": (x, y), "val": arrays(10)}
        swapped = [y[1], y[0], *y[2:]]
        assert (
            sources.read(given, DataSettings(), seed=0).fingerprint
            != sources.read({**given, "train": (x, swapped)}, DataSettings(), seed=0).fingerprint
        )
        assert first.fingerprint == sources.read((x + 1, y), DataSettings(), seed=0).fingerprint


class TestLimit:
    def test_it_is_in_proportion_over_splits_and_classes(self) -> None:
        x, y = np.zeros((300, 2, 2), dtype=np.uint8), ["a"] * 200 + ["b"] * 90 + ["c"] * 10
        source = {"train": (x, y), "val": (x[:100], ["a"] * 60 + ["b"] * 39 + ["c"])}
        splits = sources.read(source, DataSettings(limit=40), seed=0)
        assert splits.counts() == {"train": {"a": 20, "b": 9, "c": 1}, "val": {"a": 6, "b": 3, "c": 1}}
        assert any("limited to 40 of 400 rows" in note for note in splits.notes)
        again = sources.read(source, DataSettings(limit=40), seed=0)
        other = sources.read(source, DataSettings(limit=40), seed=1)
        assert again.fingerprint == splits.fingerprint != other.fingerprint

    def test_a_limit_above_the_rows_does_nothing(self) -> None:
        splits = sources.read(arrays(100), DataSettings(limit=100), seed=0)
        assert not any("limited" in note for note in splits.notes)


class TestPaths:
    def test_an_unknown_path_says_what_is_near(self, toy_photos: PHOTOS, monkeypatch: pytest.MonkeyPatch) -> None:
        photos = toy_photos(2, per_class=2, size=8)
        monkeypatch.chdir(photos.parent)
        for slip, near in (("photo", "photos"), ("photos/circel", "circle"), (photos.parent / "fotos", "photos")):
            with pytest.raises(DataError, match=f"did you mean '{near}'"):
                sources.read(slip, DataSettings(), seed=0)
        with pytest.raises(DataError, match="owner/name"):
            sources.read("entirely-different", DataSettings(), seed=0)

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("photos.zip", "unpack it"),
            ("one.jpg", "one picture is no data set"),
            ("notes.txt", "a file ending in '.txt' is no table"),
            ("https://somewhere.org/photos", "an address on the network is not read"),
        ],
    )
    def test_what_is_no_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str) -> None:
        monkeypatch.chdir(tmp_path)
        if "://" not in name:
            (tmp_path / name).touch()
        with pytest.raises(DataError, match=told):
            sources.read(name, DataSettings(), seed=0)

    def test_home_is_expanded(self, toy_photos: PHOTOS, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(toy_photos(2, per_class=2, size=8).parent))
        assert len(sources.collect("~/photos", DataSettings())) == 4

    def test_settings_that_a_folder_cannot_use_are_all_refused(self, toy_photos: PHOTOS) -> None:
        with pytest.raises(DataError) as caught:
            sources.collect(toy_photos(2, size=8), DataSettings(label_column="x", config="y"))
        assert "has no label column" in str(caught.value)
        assert "has no config" in str(caught.value)

    def test_an_unknown_modality(self) -> None:
        with pytest.raises(ConfigError, match="unknown modality 'imag', did you mean 'image'"):
            sources.collect(arrays(10), DataSettings(modality="imag"))


class TestUnlabelled:
    def test_a_folder_of_plain_files(self, tmp_path: Path) -> None:
        names = ["10.jpg", "9.png", "deep/er/1.JPG", "notes.txt", ".hidden.jpg"]
        empty_photos(tmp_path, names)
        rows, notes = sources.find_unlabelled(tmp_path)
        assert rows.names == ("9.png", "10.jpg", "deep/er/1.JPG")
        assert (rows.labels == UNLABELLED).all()
        assert list(rows.items) == [str(tmp_path / name) for name in rows.names]
        assert "notes.txt" in "".join(notes)
        assert ".hidden.jpg" in "".join(notes)

    def test_one_file_a_list_and_a_table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        empty_photos(tmp_path, ["a.jpg", "b", "c.png"])
        monkeypatch.chdir(tmp_path)
        assert list(sources.read_unlabelled("b").items) == [str(tmp_path / "b")]  # the decoder decides
        picture = Image.new("RGB", (3, 3))
        rows = sources.read_unlabelled(["a.jpg", Path("c.png"), picture, b"bytes"])
        assert rows.names == ("a.jpg", "c.png", "row 2", "row 3")
        assert rows.items[2] is picture
        (tmp_path / "t.csv").write_text("path\na.jpg\nc.png\n")
        assert sources.read_unlabelled("t.csv").names == ("a.jpg", "c.png")
        (tmp_path / "u.csv").write_text("path,label\na.jpg,\nc.png,x\n")
        assert sources.read_unlabelled("u.csv").names == ("a.jpg", "c.png")

    @pytest.mark.parametrize(
        ("source", "count"),
        [
            (np.zeros((5, 8, 9), np.uint8), 5),
            (np.zeros((5, 8, 9, 3), np.uint8), 5),
            (np.zeros((8, 9), np.uint8), 1),
            (np.zeros((8, 9, 3), np.uint8), 1),
            ([np.zeros((8, 9, 3), np.uint8)] * 2, 2),
            (Image.new("L", (3, 3)), 1),
            (b"bytes", 1),
        ],
    )
    def test_arrays_and_pictures(self, source: Any, count: int) -> None:
        rows = sources.read_unlabelled(source)
        assert len(rows) == len(rows.names) == count

    def test_a_frame(self, tmp_path: Path) -> None:
        pd = pytest.importorskip("pandas")
        empty_photos(tmp_path, ["a.jpg"])
        assert sources.read_unlabelled(pd.DataFrame({"path": [str(tmp_path / "a.jpg")]})).names == (
            str(tmp_path / "a.jpg"),
        )

    def test_missing_files_are_all_named(self, tmp_path: Path) -> None:
        empty_photos(tmp_path, ["a.jpg"])
        with pytest.raises(DataError) as caught:
            sources.read_unlabelled([str(tmp_path / name) for name in ("a.jpg", "x.jpg", "y.jpg")])
        assert "x.jpg: there is no such file" in str(caught.value)
        assert "y.jpg: there is no such file" in str(caught.value)
        with pytest.raises(DataError, match=r"did you mean 'a\.jpg'"):
            sources.read_unlabelled(tmp_path / "aa.jpg")

    def test_nothing_to_predict(self, tmp_path: Path) -> None:
        empty_photos(tmp_path, ["a.txt"])
        with pytest.raises(
            DataError, match=r"nothing to predict; 1 file has another extension and was left out .*a\.txt"
        ):
            sources.read_unlabelled(tmp_path)
        with pytest.raises(DataError, match="nothing to predict"):
            sources.read_unlabelled([])


class TestLabelled:
    def test_every_row_or_one_split(self, toy_photos: PHOTOS) -> None:
        photos = toy_photos(3, size=8, splits={"train": 4, "test": 2})
        rows, classes = sources.read_labelled(photos)
        assert (len(rows), classes) == (18, ("circle", "square", "triangle"))
        rows, _ = sources.read_labelled(photos, split="test")
        assert rows.labels.tolist() == [0, 0, 1, 1, 2, 2]
        with pytest.raises(DataError, match="no rows in val"):
            sources.read_labelled(photos, split="val")

    def test_one_class_and_no_train_are_enough(self, tmp_path: Path) -> None:
        rows, classes = sources.read_labelled(empty_photos(tmp_path, ["test/bee/1.jpg", "test/bee/2.jpg"]))
        assert (rows.labels.tolist(), classes) == ([0, 0], ("bee",))

    def test_rows_without_label_or_file(self, tmp_path: Path) -> None:
        empty_photos(tmp_path, ["a.jpg"])
        (tmp_path / "t.csv").write_text("path,label\na.jpg,x\na.jpg,\nb.jpg,x\n")
        with pytest.raises(DataError) as caught:
            sources.read_labelled(tmp_path / "t.csv")
        assert "no label: line 3" in str(caught.value)
        assert "b.jpg does not exist" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": {"val": 1.0}},
        {"split": {"val": 0.5, "test": 0.5}},
        {"split": {"val": -0.1}},
        {"split": {"vall": 0.1}},
        {"limit": 1},
        {"channels": 0},
        {"on_unreadable": "ignore"},
        {"max_unreadable": 2},
        {"sauce": "photos"},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataSettings(**wrong)


@pytest.mark.real
def test_real_photographs(shared_data: Path) -> None:
    ants = sources.read(shared_data / "hymenoptera", DataSettings(), seed=42)
    assert ants.counts() == {"train": {"ants": 123, "bees": 121}, "val": {"ants": 70, "bees": 83}}
    photo = sources.read(shared_data / "pacs" / "photo", DataSettings(), seed=42)
    assert [len(rows) for rows in photo.present().values()] == [490, 105, 105]
    assert set(photo.counts()["val"].values()) == {15}
