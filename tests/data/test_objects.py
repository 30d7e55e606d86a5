"""Python objects as data: frames, arrays, lists, dictionaries of splits, torch datasets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import DataError
from headstart.data import sources
from headstart.data.reading.collection import Collection
from headstart.data.settings import DataSettings, SplitSettings


def collect(source: Any, **settings: Any) -> Collection:
    return sources.collect(source, DataSettings(**settings))


def labels(found: Collection) -> list[str]:
    return [found.classes[label] for label in found.rows.labels]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Six pictures in the current folder."""
    monkeypatch.chdir(tmp_path)
    names = [f"{i}.png" for i in range(6)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((4, 5, 3), 40 * i, dtype=np.uint8)).save(name)
    return names


PIXELS = np.arange(6 * 8 * 9 * 3, dtype=np.uint32).reshape(6, 8, 9, 3).astype(np.uint8)


class TestArrays:
    @pytest.mark.parametrize("shape", [(6, 8, 9), (6, 8, 9, 1), (6, 8, 9, 3), (6, 8, 9, 7)])
    @pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "bool"])
    def test_rows_are_the_arrays_themselves(self, shape: tuple[int, ...], kind: str) -> None:
        pictures = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
        found = collect((pictures, [0, 1, 2, 0, 1, 2]))
        assert found.classes == ("0", "1", "2")
        assert all(np.shares_memory(found.rows.items[row], pictures) for row in range(6))
        assert found.rows.names[4] == "row 4"
        assert np.shares_memory(found.rows.take([5, 0]).items[0], pictures)

    def test_channels_first_is_turned_and_told(self) -> None:
        found = collect((PIXELS.transpose(0, 3, 1, 2), list("ababab")))
        assert (np.asarray(found.rows.items) == PIXELS).all()
        assert "channels first" in found.notes[0]

    @pytest.mark.parametrize(
        ("y", "classes"),
        [
            (np.array([10, 2, 10, 2, 10, 2]), ("2", "10")),
            (np.array([1.0, 0, 1, 0, 1, 0]), ("0", "1")),
            (np.array([True, False] * 3), ("False", "True")),
            (np.array(["NA", "007"] * 3), ("007", "NA")),
            (("b", "a") * 3, ("a", "b")),
        ],
    )
    def test_labels_of_every_kind(self, y: Any, classes: tuple[str, ...]) -> None:
        assert collect((PIXELS, y)).classes == classes

    @pytest.mark.parametrize(
        ("x", "y", "told"),
        [
            (PIXELS, [0, 1], "X has 6 rows, y has 2"),
            (PIXELS[:1], [0, 1], "X has 1 row, y has 2"),
            (PIXELS.reshape(6, -1), [0, 1] * 3, r"shape \(6, 216\) holds no pictures"),
            (PIXELS, np.eye(6), r"y has shape \(6, 6\)"),
            (PIXELS, [0.5, 1] * 3, "0.5 is a number with a fraction: a measurement, not a class: row 0, row 2, row 4"),
            (PIXELS, [0, 1, None, 0, 1, float("nan")], "2 rows have no label: row 2, row 5"),
            (PIXELS.astype(np.float32) / 255 - 0.5, [0, 1] * 3, "row 0 has negative values or NaN"),
            (np.where(PIXELS == 200, np.nan, PIXELS), [0, 1] * 3, "negative values or NaN"),
            (PIXELS.astype(complex), [0, 1] * 3, "complex128 holds no pictures"),
        ],
    )
    def test_mistakes(self, x: np.ndarray, y: Any, told: str) -> None:
        with pytest.raises(DataError, match=told):
            collect((x, y))

    def test_paths_and_labels(self, files: list[str]) -> None:
        assert labels(collect((files, list("abcabc")))) == list("abcabc")
        assert labels(collect((np.array(files), np.array(list("abcabc"))))) == list("abcabc")

    def test_groups_need_paths_or_a_column(self) -> None:
        with pytest.raises(DataError, match="group_by"):
            collect((PIXELS, [0, 1] * 3), split=SplitSettings(group_by="animal"))
        with pytest.raises(DataError, match="needs paths"):
            collect((PIXELS, [0, 1] * 3), split=SplitSettings(group_by=r"(\w+)_"))


class TestLists:
    @pytest.mark.parametrize("kind", ["path", "Path", "array", "pillow", "bytes", "dictionary"])
    def test_pairs_of_any_items(self, files: list[str], kind: str) -> None:
        make: dict[str, Callable[[str], Any]] = {
            "path": str,
            "Path": Path,
            "array": lambda name: np.asarray(Image.open(name)),
            "pillow": lambda name: Image.fromarray(PIXELS[int(name[0])]),
            "bytes": lambda name: Path(name).read_bytes(),
            "dictionary": lambda name: {"bytes": None, "path": name},
        }
        found = collect([(make[kind](name), f"c{i % 2}") for i, name in enumerate(files)])
        assert labels(found) == ["c0", "c1"] * 3
        assert found.rows.names[2] == ("2.png" if "path" in kind.lower() else "row 2")
        assert len(found.rows.items) == 6

    def test_dictionaries_as_rows(self, files: list[str]) -> None:
        assert labels(collect([{"image": name, "class": name[0]} for name in files])) == list("012345")

    @pytest.mark.parametrize("source", [[], ["a.jpg", "b.jpg"], [("a.jpg", "x"), ("b.jpg",)], [("a", "b", "c")]])
    def test_no_pairs(self, source: list[Any]) -> None:
        with pytest.raises(DataError, match=r"pairs?: item|is empty"):
            collect(source)

    def test_groups_by_path(self, files: list[str]) -> None:
        found = collect([(name, "ab"[i % 2]) for i, name in enumerate(files)], split=SplitSettings(group_by=r"([0-2])"))
        assert len(set(found.rows.groups or ())) == 6
        assert any("does not match 3 paths" in note for note in found.notes)

    @pytest.mark.parametrize("thing", [None, 7, object(), iter([])])
    def test_what_is_no_data(self, thing: Any) -> None:
        with pytest.raises(DataError):
            collect(thing)


class TestSplitsAsDictionary:
    def test_any_sources_for_each_split(self, files: list[str], tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("path,label\n0.png,a\n1.png,b\n")
        source = {"train": [(name, "ab"[i % 2]) for i, name in enumerate(files)], "Validation": "t.csv"}
        found = collect({**source, "test": (PIXELS, list("ababab"))})
        assert np.bincount(found.given).tolist() == [6, 2, 6]
        assert found.rows.names[6] == "val/0.png"
        assert found.classes == ("a", "b")
        splits = sources.read(source, DataSettings(), seed=0)
        assert len(splits.val) == 2
        assert splits.test is None

    def test_mistakes_name_their_split(self, files: list[str]) -> None:
        with pytest.raises(DataError, match="1 row has no label: val, row 1"):
            collect(
                {
                    "train": [(name, "ab"[i % 2]) for i, name in enumerate(files)],
                    "val": [(files[0], "a"), (files[1], None)],
                }
            )

    def test_keys_that_name_no_split(self) -> None:
        with pytest.raises(DataError, match="'holdout' names no split"):
            collect({"train": (PIXELS, [0, 1] * 3), "holdout": (PIXELS, [0, 1] * 3)})
        with pytest.raises(DataError, match="two keys mean one split"):
            collect({"val": (PIXELS, [0, 1] * 3), "valid": (PIXELS, [0, 1] * 3)})

    def test_columns(self, files: list[str]) -> None:
        assert labels(collect({"image": files, "label": list("abcabc")})) == list("abcabc")
        assert labels(collect({"image": PIXELS, "label": list("ababab")})) == list("ababab")

    def test_a_split_with_splits_inside(self, toy_photos: Callable[..., Path]) -> None:
        folder = toy_photos(2, size=8, splits={"train": 2, "val": 2})
        with pytest.raises(DataError, match="'train' is divided into splits itself"):
            collect({"train": folder})


class TestFrames:
    @pytest.fixture(autouse=True)
    def _pandas(self) -> None:
        pytest.importorskip("pandas")

    def test_paths(self, files: list[str]) -> None:
        import pandas as pd

        frame = pd.DataFrame({"file": files, "label": ["NA", "007", "null"] * 2, "who": list("aabbcc")})
        found = collect(frame, split=SplitSettings(group_by="who"))
        assert labels(found) == ["NA", "007", "null"] * 2
        assert len(set(found.rows.groups or ())) == 3
        spaced = collect(
            frame.assign(who=["a", "a ", "b", " b", "c\u0301", "\u0107"]), split=SplitSettings(group_by="who")
        )
        assert len(set(spaced.rows.groups or ())) == 3, "as labels are: no spaces around, one way to write a letter"
        assert labels(collect(frame[::-1])) == (["NA", "007", "null"] * 2)[::-1]

    @pytest.mark.parametrize("kind", ["category", "Int64", "float", "bool", "string"])
    def test_label_types(self, files: list[str], kind: str) -> None:
        import pandas as pd

        found = collect(pd.DataFrame({"path": files, "y": pd.Series([1, 0] * 3).astype(kind)}))
        assert found.classes == (("False", "True") if kind == "bool" else ("0", "1"))

    def test_arrays_in_a_column(self) -> None:
        import pandas as pd

        found = collect(pd.DataFrame({"image": list(PIXELS), "label": list("ababab")}))
        assert (found.rows.items[3] == PIXELS[3]).all()

    def test_mistakes(self, files: list[str]) -> None:
        import pandas as pd

        with pytest.raises(DataError, match="2 rows have no label: row 1, row 4"):
            collect(pd.DataFrame({"path": files, "label": ["a", None, "b", "a", float("nan"), "b"]}))
        with pytest.raises(DataError, match="occur twice"):
            collect(pd.DataFrame([[1, 2]], columns=["path", "path"]))
        with pytest.raises(DataError, match="row 2: no path"):
            collect(pd.DataFrame({"path": [*files[:2], None, *files[3:]], "label": list("ababab")}))


class TestTorch:
    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        pytest.importorskip("torch")

    def test_tensors(self) -> None:
        import torch
        from torch.utils.data import TensorDataset, random_split

        data = TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor([0, 1] * 3))
        found = collect(data)
        assert (np.asarray(found.rows.items) == PIXELS).all()
        assert labels(found) == ["0", "1"] * 3
        left, right = random_split(data, [4, 2], generator=torch.Generator().manual_seed(0))
        found = collect({"train": left, "val": right})
        order = [*left.indices, *right.indices]
        assert labels(found) == [str(i % 2) for i in order]
        assert all((item == PIXELS[i]).all() for item, i in zip(found.rows.items, order, strict=True))

    def test_tensors_as_arrays(self) -> None:
        import torch

        found = collect((torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255, torch.tensor([0, 1] * 3)))
        assert found.rows.items[0].shape == (8, 9, 3)
        assert labels(found) == ["0", "1"] * 3

    def test_image_folder_gives_its_paths_and_splits_its_subsets(self, toy_photos: Callable[..., Path]) -> None:
        from torch.utils.data import Subset
        from torchvision.datasets import ImageFolder

        folder = toy_photos(3, per_class=4, size=8)
        data = ImageFolder(str(folder), transform=lambda picture: pytest.fail("must not be read"))
        found = collect(data)
        assert found.classes == tuple(data.classes)
        assert list(found.rows.items) == [path for path, _ in data.samples]
        assert any("transform is not used" in note for note in found.notes)
        part = collect(Subset(Subset(data, range(2, 12)), [0, 5, 9]))
        assert list(part.rows.items) == [data.samples[i][0] for i in (2, 7, 11)]
        assert part.classes == tuple(data.classes)

    def test_a_users_own_dataset_is_read_lazily(self) -> None:
        from torch.utils.data import Dataset

        class Own(Dataset):  # type: ignore[type-arg]
            classes = ["yes", "no", "never"]  # noqa: RUF012
            reads = 0

            def __init__(self, targets: list[int] | None = None) -> None:
                self.targets = targets

            def __len__(self) -> int:
                return 6

            def __getitem__(self, row: int) -> tuple[Any, int]:
                type(self).reads += 1
                return Image.fromarray(PIXELS[row]), row % 2

        found = collect(Own([0, 1] * 3))
        assert found.classes == ("yes", "no")
        assert any("classes that no row has are left out: never" in note for note in found.notes)
        reads = Own.reads
        part = found.rows.take([5, 1, 3]).take([2, 0])
        assert Own.reads == reads < 20
        assert (np.asarray(part.items[1]) == PIXELS[5]).all()

        lying = collect(Own([1, 0] * 3))  # a target_transform, say: the rows say otherwise than `targets`
        assert labels(lying) == ["yes", "no"] * 3
        assert any("going through the whole dataset" in note for note in lying.notes)
        assert labels(collect(Own())) == ["yes", "no"] * 3

    def test_dictionaries_as_rows_and_tensors_channels_first(self) -> None:
        import torch
        from torch.utils.data import Dataset

        class Own(Dataset):  # type: ignore[type-arg]
            def __len__(self) -> int:
                return 6

            def __getitem__(self, row: int) -> dict[str, Any]:
                return {
                    "pixel": 0,
                    "image": torch.from_numpy(PIXELS[row]).permute(2, 0, 1),
                    "label": torch.tensor(row % 2),
                }

        found = collect(Own())
        assert (found.rows.items[4] == PIXELS[4]).all()
        assert labels(found) == ["0", "1"] * 3

    def test_normalised_pictures_are_refused_and_chance_is_told(self) -> None:
        from torch.utils.data import Dataset

        class Own(Dataset):  # type: ignore[type-arg]
            def __init__(self, low: float) -> None:
                self.rng, self.low = np.random.default_rng(0), low

            def __len__(self) -> int:
                return 6

            def __getitem__(self, row: int) -> tuple[Any, int]:
                return self.rng.uniform(self.low, 1, (8, 9, 3)), row % 2

        with pytest.raises(DataError, match="the backbone's own normalisation is applied"):
            collect(Own(-2))
        assert any("draw at random" in note for note in collect(Own(0)).notes)

    def test_what_is_no_map_style_dataset(self) -> None:
        from torch.utils.data import IterableDataset, Subset, TensorDataset

        class Stream(IterableDataset):  # type: ignore[type-arg]
            def __iter__(self) -> Any:
                return iter([])

        with pytest.raises(DataError, match="map-style"):
            collect(Stream())
        with pytest.raises(DataError, match="empty"):
            collect(Subset(TensorDataset(), []))


def test_no_heavy_library_is_imported_for_folders_and_arrays(toy_photos: Callable[..., Path]) -> None:
    folder = toy_photos(2, per_class=4, size=8)
    code = f"""
import sys, numpy
from headstart.data import sources
from headstart.data.settings import DataSettings
sources.read({str(folder)!r}, DataSettings(), seed=0)
sources.read((numpy.zeros((8, 4, 4), dtype="uint8"), [0, 1] * 4), DataSettings(), seed=0)
heavy = {{"torch", "torchvision", "pandas", "datasets", "pyarrow", "sklearn", "scipy", "huggingface_hub"}}
sys.exit(", ".join(heavy & set(sys.modules)) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


SAMPLES = [np.zeros(count, np.float32) for count in (900, 800, 700, 600)]


@pytest.mark.parametrize(
    "source",
    [
        (SAMPLES, list("abab")),
        (np.zeros((4, 900), np.int16), np.array(list("abab"))),
        list(zip(SAMPLES, "abab", strict=True)),
        {"train": (SAMPLES, list("abab"))},
    ],
    ids=["a list", "an array", "pairs", "splits"],
)
def test_samples_alone_need_their_rate_and_are_sounds_with_it(source: Any) -> None:
    with pytest.raises(DataError, match="sampling_rate=16_000"):
        collect(source)
    found = collect(source, sampling_rate=8_000)
    assert found.modality == "audio"
    samples, rate = found.rows.items[3]
    assert (samples.ndim, rate) == (1, 8_000)


@pytest.mark.parametrize(("bands", "channels", "said"), [(4, 3, True), (4, 4, False), (3, 3, False)])
def test_arrays_of_four_bands_taken_as_rgba_are_told(bands: int, channels: int, said: bool) -> None:
    found = collect((np.zeros((6, 32, 32, bands), np.uint8), [0, 1] * 3), channels=channels)
    assert any("taken as RGBA" in note and "channels=4" in note for note in found.notes) == said
