"""Whatever holds pictures and labels goes into fit: folders, tables, data frames, arrays, datasets, splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import DataError, HeadstartError

LABELS = ["dark", "red", "stripes"]


@pytest.fixture
def files(tmp_path, pictures) -> Callable[..., tuple[list[str], np.ndarray]]:
    """The pictures as PNG files: their paths and labels."""

    def make(n: int = 30, seed: int = 0) -> tuple[list[str], np.ndarray]:
        inputs, labels = pictures(n, seed)
        paths = [tmp_path / "files" / f"{seed}-{index}.png" for index in range(n)]
        paths[0].parent.mkdir(exist_ok=True)
        for path, value in zip(paths, inputs, strict=True):
            Image.fromarray(value).save(path)
        return [str(path) for path in paths], labels

    return make


def folder(files: Any, tmp_path: Path) -> Any:
    paths, labels = files()
    for path, label in zip(paths, labels, strict=True):
        place = tmp_path / "photos" / label
        place.mkdir(parents=True, exist_ok=True)
        Path(path).rename(place / Path(path).name)
    return tmp_path / "photos"


def table(files: Any, tmp_path: Path) -> Any:
    paths, labels = files()
    lines = ["image,label", *(f"{path},{label}" for path, label in zip(paths, labels, strict=True))]
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    return str(tmp_path / "table.csv")


def frame_of_paths(files: Any, tmp_path: Path) -> Any:
    import pandas as pd

    paths, labels = files()
    return pd.DataFrame({"image": paths, "label": labels})


def frame_of_arrays(files: Any, tmp_path: Path) -> Any:
    frame = frame_of_paths(files, tmp_path)
    frame["image"] = [np.array(Image.open(path)) for path in frame["image"]]
    return frame


def pairs(files: Any, tmp_path: Path) -> Any:
    return list(zip(*files(), strict=True))


def torch_dataset(files: Any, tmp_path: Path) -> Any:
    from torch.utils.data import Dataset

    paths, labels = files()

    class Pictures(Dataset):
        classes = LABELS

        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return Image.open(paths[index]).convert("RGB"), LABELS.index(labels[index])

    return Pictures()


def hugging_face_dataset(files: Any, tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    paths, labels = files()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=LABELS)})
    rows = {"image": paths, "label": [LABELS.index(label) for label in labels]}
    return datasets.Dataset.from_dict(rows, features=features)


def hugging_face_splits(files: Any, tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    both = hugging_face_dataset(files, tmp_path).train_test_split(0.3, seed=0)
    return datasets.DatasetDict({"train": both["train"], "validation": both["test"]})


@pytest.mark.parametrize(
    "make",
    [
        folder,
        table,
        frame_of_paths,
        frame_of_arrays,
        pairs,
        torch_dataset,
        hugging_face_dataset,
        hugging_face_splits,
    ],
)
def test_every_kind_of_source_is_learned_from(fit, files, tmp_path, make):
    run = fit(make(files, tmp_path))
    data = run.read("data.json")
    assert data["classes"] == LABELS
    assert sum(sum(split.values()) for split in data["counts"].values()) == 30
    assert run.stages()[0]["metrics"]["val"]["accuracy"]["value"] == 1.0


def test_the_same_pixels_give_the_same_model_whatever_holds_them(fit, files, tmp_path, pictures):
    from_files = fit(pairs(files, tmp_path), seed=3)
    from_arrays = fit(pictures(30), seed=3)
    assert fit.same(fit.weights(from_files), fit.weights(from_arrays))


def test_splits_may_be_of_different_kinds(fit, files, tmp_path, pictures):
    import pandas as pd

    paths, labels = files(15, seed=2)
    run = fit({"train": pictures(30), "val": pd.DataFrame({"image": paths, "label": labels}), "test": pictures(9, 4)})
    counts = run.read("data.json")["counts"]
    assert {split: sum(values.values()) for split, values in counts.items()} == {"train": 30, "val": 15, "test": 9}
    assert run.read("result.json")["metrics"]["test"]["accuracy"]["n"] == 9


def test_user_files_are_not_touched(fit, files, tmp_path):
    source = folder(files, tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.rglob("*.png")}
    fit(source)
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.rglob("*") if path.is_file()
    } == before


def test_unreadable_rows_are_left_out_and_named(fit, files):
    paths, labels = files(40)
    Path(paths[7]).write_bytes(b"no picture")
    run = fit(list(zip(paths, labels, strict=True)))
    counts = run.read("data.json")["counts"]
    assert sum(sum(split.values()) for split in counts.values()) == 39
    assert "0-7.png" in str(run.read("data.json")["audit"]["findings"])


def test_too_many_unreadable_rows_stop_before_anything_is_trained(fit, files):
    paths, labels = files(30)
    for path in paths[:6]:
        Path(path).write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read"):
        fit(list(zip(paths, labels, strict=True)))


def test_settings_of_the_data_may_be_given_without_their_place(fit, pictures):
    run = fit(pictures(60), val=0.3, limit=40)
    counts = run.read("data.json")["counts"]
    assert {split: sum(values.values()) for split, values in counts.items()} == {"train": 28, "val": 12}


def test_twins_never_straddle_the_splits(fit, pictures):
    """Every picture comes twice: a random division would tear most pairs apart."""
    inputs, labels = pictures(24)
    run = fit((np.concatenate([inputs, inputs]), np.concatenate([labels, labels])), val=0.3)
    rows = run.read("rows.json")
    number = {split: {int(name.split()[-1]) % 24 for name in names} for split, names in rows.items()}
    assert not number["train"] & number["val"]


@pytest.mark.parametrize(
    ("given", "settings", "told"),
    [
        (False, {"data.split.val": 0}, "a share of 0 draws none"),
        (True, {"data.split.group_by": "group"}, "groups with rows in two of the given splits"),
    ],
)
def test_what_keeps_rows_from_being_divided_is_told_before_they_are_decoded(
    files: Any, fit: Any, monkeypatch: pytest.MonkeyPatch, given: bool, settings: dict[str, Any], told: str
) -> None:
    import pandas as pd

    from headstart.data.store import Store

    paths, labels = files()
    table = pd.DataFrame({"path": paths, "label": labels, "group": "all"})
    if given:
        table["split"] = np.where(np.arange(len(table)) > 20, "val", "train")
    decoded: list[Any] = []
    monkeypatch.setattr(Store, "build", lambda *arguments, **options: decoded.append(arguments))
    with pytest.raises(HeadstartError, match=told):
        fit(table, **settings)
    assert not decoded
