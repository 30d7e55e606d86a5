"""The benchmark of texts: both sides get the same rows, the bar is what the run would tell, and a strategy runs."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import pytest

from . import words

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.text")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    texts, labels = words.reviews(360, seed=1)
    file = tmp_path / "reviews.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return file


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_both_sides_get_the_same_rows(
    text: Any, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "ROWS", 60)
    folder = text.tables(str(reviews), 0, tmp_path / "data")
    found = {split: rows(folder / f"{split}.csv") for split in ("train", "val")}
    assert len(found["train"]) == 60
    assert not {row["text"] for row in found["train"]} & {row["text"] for row in found["val"]}
    other = rows(text.tables(str(reviews), 1, tmp_path / "more") / "train.csv")
    assert other != found["train"], "the seed draws nothing"


def test_the_bar_and_a_strategy(text: Any, reviews: Path, tmp_path: Path) -> None:
    net = words.network(tmp_path / "net")
    bar = text.fit(str(reviews), 0, "baseline", str(net), tmp_path)
    assert bar["accuracy"]["test"] >= 0.9
    assert bar["macro_f1"].keys() == bar["accuracy"].keys() == {"val", "test"}
    probe = text.fit(str(reviews), 0, "probe", str(net), tmp_path)
    assert probe["macro_f1"]["test"] > 0.5
    assert [stage["name"] for stage in probe["stages"]] == ["probe"]


@pytest.mark.slow
def test_training_and_its_peers_tell_what_padding_cost(
    text: Any, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    net = words.network(tmp_path / "net")
    told = {side: text.time(str(reviews), side, 0, str(net)) for side in text.SIDES}
    filled = [told[side]["filled"] for side in ("headstart", "trainer, dynamic padding", "trainer, padded to 128")]
    assert 1 >= filled[0] > filled[1] > 3 * filled[2] > 0, "alike lengths together, any lengths, all to 128"
    for facts in told.values():
        assert facts["train_seconds"] < facts["seconds"]
        assert facts["macro_f1"]["val"] > 0
        assert facts["precision"] in ("fp32", "bf16")
