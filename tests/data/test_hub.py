"""Data of the Hugging Face ecosystem, without a network: saved folders, objects, and a Hub that answers by script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import DataError, MissingExtra, Unreachable
from headstart.data import sources
from headstart.data.reading import hub
from headstart.data.reading.collection import Collection
from headstart.data.settings import DataSettings

datasets = pytest.importorskip("datasets")

CLASSES = ["zebra", "ant", "unused"]


def collect(source: Any, *, offline: bool = False, **settings: Any) -> Collection:
    return sources.collect(source, DataSettings(**settings), offline=offline)


def labels(found: Collection) -> list[str]:
    return [found.classes[label] for label in found.rows.labels]


def pictures(count: int, start: int = 0) -> list[Image.Image]:
    return [Image.fromarray(np.full((4, 4, 3), start + i, dtype=np.uint8)) for i in range(count)]


def dataset(targets: list[int], start: int = 0, **columns: Any) -> Any:
    features = datasets.Features(
        {"img": datasets.Image(), "fine": datasets.ClassLabel(names=CLASSES)}
        | {name: datasets.Value("string") for name in columns}
    )
    rows = {"img": pictures(len(targets), start), "fine": targets, **columns}
    return datasets.Dataset.from_dict(rows, features=features)


def grey(item: dict[str, Any]) -> int:
    import io

    return int(np.asarray(Image.open(io.BytesIO(item["bytes"])))[0, 0, 0])


@pytest.fixture
def splits() -> Any:
    return datasets.DatasetDict(
        {
            "train": dataset([0, 1] * 5),
            "validation": dataset([1, 0], 50),
            "test": dataset([-1, -1]),
            "extra": dataset([0]),
        }
    )


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


class TestLocal:
    def test_saved_splits(self, splits: Any, tmp_path: Path) -> None:
        splits.save_to_disk(tmp_path / "saved")
        found = collect(tmp_path / "saved")
        assert found.classes == ("zebra", "ant")  # the features' order, not the alphabet's
        assert np.bincount(found.given).tolist() == [10, 2]
        assert found.rows.names[10] == "validation row 0"
        assert [grey(item) for item in found.rows.take([11, 3]).items] == [51, 3]
        said = "\n".join(found.notes)
        for text in ("left out: extra", "'test' has no labels", "classes that no row has are left out: unused"):
            assert text in said

    def test_saved_single(self, tmp_path: Path) -> None:
        dataset([0, 1] * 10).save_to_disk(tmp_path / "saved")
        read = sources.read(tmp_path / "saved", DataSettings(), seed=0)
        assert (len(read.train), len(read.val), read.test) == (17, 3, None)

    def test_a_damaged_folder(self, splits: Any, tmp_path: Path) -> None:
        splits.save_to_disk(tmp_path / "saved")
        next((tmp_path / "saved" / "train").glob("*.arrow")).write_bytes(b"broken")
        with pytest.raises(DataError, match="cannot be read by `datasets`"):
            collect(tmp_path / "saved")

    def test_a_downloaded_repository(self, splits: Any, tmp_path: Path) -> None:
        place = tmp_path / "pets" / "data"
        place.mkdir(parents=True)
        splits["train"].to_parquet(place / "train-00000-of-00001.parquet")
        splits["validation"].to_parquet(place / "validation-00000-of-00001.parquet")
        found = collect(tmp_path / "pets")
        assert found.classes == ("zebra", "ant")
        assert np.bincount(found.given).tolist() == [10, 2]

    def test_imagefolder_of_the_library(self, toy_photos: Callable[..., Path]) -> None:
        folder = toy_photos(2, per_class=3, size=8)
        loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
        found = collect(loaded)
        assert labels(found) == ["circle"] * 3 + ["square"] * 3
        assert Path(found.rows.items[0]["path"]).is_file()


class TestObjects:
    def test_dataset_and_dictionary(self, splits: Any) -> None:
        assert labels(collect(splits["train"])) == ["zebra", "ant"] * 5
        assert len(collect(splits)) == 12
        assert len(collect({"train": splits["train"], "val": splits["validation"]})) == 12
        assert labels(collect(splits["train"].with_format("torch"))) == ["zebra", "ant"] * 5
        assert labels(collect(splits["train"].select([3, 0, 5]))) == ["ant", "zebra", "ant"]

    def test_choosing_rows_decodes_nothing(self, splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        found = collect(splits)
        monkeypatch.setattr(datasets.Dataset, "__getitem__", lambda *_: pytest.fail("read too early"))
        assert len(found.rows.take(range(5)).items) == 5

    def test_labels_that_are_strings(self) -> None:
        data = dataset([0, 1, 0], kind=["NA", "007", "null"])
        assert labels(collect(data, label_column="kind")) == ["NA", "007", "null"]

    def test_paths_in_a_column(self, toy_photos: Callable[..., Path]) -> None:
        files = sorted(map(str, toy_photos(2, per_class=2, size=8).rglob("*.png")))
        found = collect(datasets.Dataset.from_dict({"path": files, "label": ["a", "b", "a", "b"]}))
        assert list(found.rows.items) == files

    def test_two_columns_of_classes(self) -> None:
        features = datasets.Features(
            {"img": datasets.Image(), "fine": datasets.ClassLabel(names=["a", "b"]), "coarse": datasets.ClassLabel(2)}
        )
        data = datasets.Dataset.from_dict({"img": pictures(2), "fine": [0, 1], "coarse": [0, 1]}, features=features)
        with pytest.raises(DataError, match=r"no column looks like the label .*fine, coarse"):
            collect(data)
        assert collect(data, label_column="fine").classes == ("a", "b")

    def test_no_pictures(self) -> None:
        with pytest.raises(DataError, match="no column looks like the input"):
            collect(datasets.Dataset.from_dict({"weight": ["x"], "extra": ["y"], "label": ["z"]}))

    def test_several_labels_a_row(self) -> None:
        marks = datasets.Features({"text": datasets.Value("string"), "label": [datasets.ClassLabel(names=["a", "b"])]})
        data = datasets.Dataset.from_dict({"text": ["x y", "y z", "z x"], "label": [[1, 0], [], [1]]}, features=marks)
        found = collect(data)
        assert found.classes == ("a", "b")
        assert found.rows.labels.tolist() == [[1, 1], [0, 0], [0, 1]]

    def test_only_one_split_of_any_name(self, splits: Any) -> None:
        found = collect(datasets.DatasetDict({"extra": splits["train"]}))
        assert any("the only split, 'extra', is divided" in note for note in found.notes)


class Hub:
    """A Hub by script: ``answer`` is what the probe meets, ``loaded`` what loading gives (an exception is raised)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub
        from huggingface_hub import constants

        self.answer: Any = None
        self.loaded: Any = None
        self.asked: list[Any] = []

        def dataset_info(_: Any, name: str, *, timeout: float) -> None:
            self.asked.append(("probe", name, timeout))
            if isinstance(self.answer, Exception):
                raise self.answer

        def load_dataset(name: str, config: str | None) -> Any:
            self.asked.append(("load", name, config, constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
            if isinstance(self.loaded, Exception):
                raise self.loaded
            return self.loaded

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, splits: Any, tmp_path: Path) -> Hub:
    monkeypatch.chdir(tmp_path)
    made = Hub(monkeypatch)
    made.loaded = splits
    return made


def hub_error(kind: str) -> Exception:
    from huggingface_hub import errors

    response: Any = SimpleNamespace(status_code=503, headers={}, request=None, url="")
    return getattr(errors, kind)("no", response=response)


class TestHub:
    def test_rows_of_a_hub_dataset(self, web: Hub) -> None:
        found = collect("someone/animals", config="small")
        assert labels(found) == ["zebra", "ant"] * 5 + ["ant", "zebra"]
        assert web.asked == [("probe", "someone/animals", 3.0), ("load", "someone/animals", "small", False, False)]
        assert found.source == "someone/animals"

    def test_the_prefix_names_the_hub(self, web: Hub, tmp_path: Path) -> None:
        (tmp_path / "someone" / "animals").mkdir(parents=True)
        assert len(collect("hf://datasets/someone/animals")) == 12
        assert web.asked[0][1] == "someone/animals"

    def test_an_existing_path_wins(self, web: Hub, toy_photos: Callable[..., Path], tmp_path: Path) -> None:
        toy_photos(2, per_class=2, size=8, folder=tmp_path / "someone" / "animals")
        found = collect("someone/animals")
        assert not web.asked
        assert not any("Hub" in note for note in found.notes)  # every a/b path would say so
        with pytest.raises(DataError, match="did you mean 'animals'"):  # a slip beside a folder is no id
            collect("someone/animal")
        assert not web.asked

    @pytest.mark.parametrize("answer", [OSError("no route"), RuntimeError("[Errno -2] Name or service not known")])
    def test_an_unreachable_hub_falls_back_to_the_cache(self, web: Hub, answer: Exception) -> None:
        from huggingface_hub import constants

        web.answer = answer
        found = collect("someone/animals")
        assert web.asked[1][3:] == (True, True)  # nothing is retried
        assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)
        assert any(f"the Hub could not be asked ({answer})" in note for note in found.notes)

    def test_neither_hub_nor_cache(self, web: Hub) -> None:
        web.answer, web.loaded = OSError("no route"), ConnectionError("Couldn't reach it")
        with pytest.raises(Unreachable, match=r"'someone/animals' is not in the local cache.*no route") as caught:
            collect("someone/animals")
        assert "save_to_disk" in str(caught.value)

    def test_offline_asks_nobody(self, web: Hub) -> None:
        assert len(collect("someone/animals", offline=True)) == 12
        assert [what for what, *_ in web.asked] == ["load"]

    def test_a_server_error_falls_back_too(self, web: Hub) -> None:
        web.answer = hub_error("HfHubHTTPError")
        assert any("it answered 503" in note for note in collect("someone/animals").notes)

    @pytest.mark.parametrize(
        ("kind", "told"),
        [("RepositoryNotFoundError", "knows no such dataset"), ("GatedRepoError", "access has to be granted")],
    )
    def test_answers_that_end_it(self, web: Hub, kind: str, told: str) -> None:
        web.answer = hub_error(kind)
        with pytest.raises(DataError, match=told):
            collect("someone/animals")
        assert len(web.asked) == 1

    @pytest.mark.parametrize(
        ("error", "kind", "told"),
        [
            (ValueError("Config name is missing.\nPlease pick one: ['a', 'b']"), DataError, r"\['a', 'b'\]"),
            (ValueError("BuilderConfig 'x' not found. Available: ['a']"), DataError, "data.config"),
            (RuntimeError("Dataset scripts are no longer supported, but found x.py"), DataError, "never run"),
            (ConnectionError("reset"), Unreachable, "broke off"),
            (KeyError("x"), DataError, "cannot be loaded"),
        ],
    )
    def test_what_loading_may_raise(self, web: Hub, error: Exception, kind: type[Exception], told: str) -> None:
        web.loaded = error
        with pytest.raises(kind, match=told):
            collect("someone/animals")

    def test_the_library_itself_without_a_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is scripted here: `datasets` is asked for what it does not have, and gives up without retries."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it retried"))
        with pytest.raises(Unreachable, match="nobody/nothing"):
            collect("nobody/nothing", offline=True)

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(MissingExtra, match=r"pip install 'headstart\[data\]'"):
            collect("someone/animals")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", True),
        ("owner/na.me-1_x", True),
        ("hf://datasets/owner/name", True),
        ("name", False),
        ("./owner/name", False),
        ("../name", False),
        ("a/b/c", False),
        ("/owner/name", False),
        ("~/name", False),
        ("photos/list.csv", False),
        ("photos/all.ZIP", False),
        ("owner/name/", False),
        ("http://owner/name", False),
    ],
)
def test_what_looks_like_an_id(text: str, expected: bool) -> None:
    assert hub.looks_like_id(text) is expected
