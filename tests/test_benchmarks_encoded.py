"""The tables of texts and sounds by hand: both scores over seeds, pairs side by side, what padding cost."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
MACHINE = {"cpu": "Test", "cores": 2, "flags": ["avx2"], "python": "3.11", "packages": {"torch": "2"}}
COMMON = {"machine": "m", "threads": 1, "reference_ms": [10.0, 10.0], "peak_rss_mb": 500.0}


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.encoded")


def results(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"machines": {"m": MACHINE}, "runs": [{**COMMON, **run} for run in runs]}


def strategy(name: str, kind: str, seed: int, accuracy: float, f1: float, seconds: float = 12.0) -> dict[str, Any]:
    scores = {"accuracy": {"val": 0.1, "test": accuracy}, "macro_f1": {"val": 0.2, "test": f1}}
    return {"key": {"set": name, "seed": seed, "strategy": kind}, "seconds": seconds, **scores}


def seeds(name: str) -> dict[str, Any]:
    """Two seeds; the second is harder for all alike, which no paired difference may show."""
    runs = [
        strategy(name, kind, seed, accuracy - 0.02 * seed, f1 - 0.1 * seed)
        for kind, accuracy, f1 in (("baseline", 0.8, 0.7), ("probe", 0.9, 0.85), ("gradual", 0.93, 0.9))
        for seed in (0, 1)
    ]
    return results(*runs, strategy(name, "scratch", 0, 0.5, 0.4, 99.0))


@pytest.mark.parametrize(
    ("kind", "name", "title", "bar"),
    [
        ("text", "smsa", "SmSA: Indonesian, 3 classes", "TF-IDF"),
        ("sound", "esc10", "ESC-10, trained on fold 1, judged on fold 2", "log-mel"),
    ],
)
def test_both_scores_stand_in_the_table(encoded: Any, kind: str, name: str, title: str, bar: str) -> None:
    text = getattr(encoded, f"{kind}_table")(seeds(name))
    assert f"| {bar} | probe | gradual | scratch |" in text
    assert f"| {title} | .790 (.780 … .800)<br>F1 .650 (.600 … .700)<br>12 s |" in text
    assert "| .500<br>F1 .400 (1 seed)<br>99 s |" in text
    assert "| – | – | – | – |" in text, "a set that was not measured"
    assert "Mean (and both) of 2 seeds" in text
    gains = getattr(encoded, f"{kind}_gains")(seeds(name))
    assert f"| {title} | +.150 (+.150 and +.150) | +.050 (+.050 and +.050) | – | +.500 |" in gains


def test_a_single_seed_has_the_interval_of_its_rows(encoded: Any) -> None:
    runs = [strategy("esc10", kind, 0, accuracy, 0.85) for kind, accuracy in (("baseline", 0.5), ("probe", 0.9))]
    text = encoded.sound_table(results(runs[0], runs[1] | {"rows": {"train": 80, "test": 40}}))
    # (.9 + z²/80 ± z · sqrt(.09/40 + z²/6400)) / (1 + z²/40) with z = 1.96, and the same of .5
    assert "| .900 [.769, .960]<br>F1 .850<br>12 s |" in text
    assert "| .500 [.352, .648]<br>F1 .850<br>12 s |" in text
    assert "\nOf a single seed, accuracy with the interval (Wilson's)" in text
    both = encoded.sound_table(seeds("esc10"))  # scratch has one of two
    assert "of 2 seeds; of a single seed" in both


def test_from_three_seeds_on_there_is_an_interval(encoded: Any) -> None:
    scores = ((0.8, 0.7), (0.78, 0.6), (0.79, 0.65))
    runs = [strategy("esc10", "probe", seed, *each) for seed, each in enumerate(scores)]
    # 4.303 times .01 / sqrt(3) = .025, and five times that of F1
    assert ".790 ± .025<br>F1 .650 ± .124<br>12 s" in encoded.sound_table(results(*runs))


def test_a_file_of_one_question_does_not_answer_the_other(encoded: Any) -> None:
    pair = {"key": {"set": "smsa", "pair": 0, "side": "headstart"}, "seconds": 1.0}
    for make in (encoded.text_table, encoded.text_gains, encoded.sound_table, encoded.sound_gains):
        assert make(results(pair)) == "Not measured yet.\n"
    for make in (encoded.text_speed_table, encoded.sound_speed_table):
        assert make(seeds("smsa")) == "Not measured yet.\n"


def test_training_beside_the_trainer(encoded: Any) -> None:
    sides = {
        "headstart": (10.0, 20.0, 0.96, "bf16", 0.90),
        "trainer, dynamic padding": (30.0, 50.0, 0.55, "fp32", 0.88),
        "trainer, padded to 128": (60.0, 80.0, 0.25, "fp32", 0.88),
    }
    runs = [
        {
            "key": {"set": "smsa", "pair": pair, "side": side},
            "train_seconds": train * (1 + pair),  # all are slower in the second pair, which no ratio may show
            "seconds": whole * (1 + pair),
            "filled": filled,
            "precision": precision,
            "accuracy": {"val": 0.9},
            "macro_f1": {"val": f1 - 0.02 * pair},
        }
        for side, (train, whole, filled, precision, f1) in sides.items()
        for pair in (0, 1)
    ]
    text = encoded.text_speed_table(results(*runs))
    assert (
        "| headstart | 15.0 s (10.0 … 20.0, 2 runs) | 30.0 s (20.0 … 40.0, 2 runs) | .900 ± .000 | .890 ± .127 "
        "| 96 % | bf16 | 500 MB |  |  |" in text
    )
    assert "| 55 % | fp32 | 500 MB | 3.0x (3.0 … 3.0) | 2.5x (2.5 … 2.5) |" in text
    assert "| 25 % | fp32 | 500 MB | 6.0x (6.0 … 6.0) | 4.0x (4.0 … 4.0) |" in text


def test_a_probe_of_recordings_beside_ordinary_epochs(encoded: Any) -> None:
    epochs = [{"accuracy": 0.5, "seconds": 30.0}, {"accuracy": 0.9, "seconds": 60.0}]
    runs = [
        {"key": {"set": name, "pair": 0, "side": side}, "seconds": seconds, "accuracy": {"val": accuracy}, **more}
        for name, reached in (("esc10", 0.8), ("digits", 0.95))
        for side, seconds, accuracy, more in (
            ("headstart cold", 10.0, reached, {}),
            ("25 epochs", 90.0, 0.9, {"epochs": epochs}),
        )
    ]
    lines = encoded.sound_speed_table(results(*runs)).splitlines()
    assert f"| {encoded.SOUNDS['esc10']} | headstart cold | 10.0 s | .800 | 500 MB |  |  |" in lines
    assert lines.count("|  | 25 epochs | 90.0 s | .900 | 500 MB | 9.0x | 60 s |") == 1
    assert lines.count("|  | 25 epochs | 90.0 s | .900 | 500 MB | 9.0x | never |") == 1


def test_padding_is_counted_where_rows_train(encoded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.engine.streams import Examples

    batch = np.zeros((2, 2, 5), np.int32)
    batch[1, 0, 2:] = -1

    def batches(self: Any, order: Any) -> Any:
        yield from [SimpleNamespace(inputs=batch)] * len(order)

    monkeypatch.setattr(Examples, "batches", batches)
    counts = encoded.text.watched()
    for split in ("train", "val"):
        assert len(list(Examples(split, None, None, None).batches([0, 1, 2]))) == 3  # type: ignore[arg-type]
    assert counts == {"tokens": 3 * 7, "places": 3 * 10}


def test_every_task_has_five_seeds_and_what_the_readme_says(encoded: Any) -> None:
    text, sound = encoded.text, encoded.sound
    assert len(text.SEEDS) == len(sound.SEEDS) == 5
    assert set(text.STRATEGIES) == set(sound.STRATEGIES)
    assert set(encoded.TEXTS) == set(text.SETS)
    assert set(encoded.SOUNDS) == set(sound.SETS)
    assert (text.ROWS, text.MAX_LENGTH, text.BATCH) == (2000, 128, 16)


def test_a_child_finds_the_packages_of_its_parent(encoded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    assert encoded.sound.environment(Path("x"))["PYTHONPATH"] == f"{ROOT}{os.pathsep}/some/where"
