"""The benchmark of the built-in backbones: how rows are drawn, what the tables tell, and that a set runs."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.few")


@pytest.fixture
def start(few: Any) -> Any:
    return importlib.import_module("benchmarks.start")


def known(items: list[tuple[Any, str]]) -> set[Any]:
    return {item.tobytes() if isinstance(item, np.ndarray) else item for item, _ in items}


def test_rows_are_drawn_by_the_seed_and_never_twice(few: Any) -> None:
    for size, counts in (("few", (200, 200)), ("500", (400, 100))):
        found = few.rows("digits", size, 3)
        assert (len(found["train"]), len(found["val"]), len(found["test"])) == (*counts, 1000)
        assert len(known(found["train"] + found["val"] + found["test"])) == sum(counts) + 1000
        again = few.rows("digits", size, 3)
        assert known(again["train"]) == known(found["train"])
        assert known(few.rows("digits", size, 4)["train"]) != known(found["train"])
        labels = [label for _, label in found["train"]]
        assert {labels.count(label) for label in set(labels)} == {counts[0] // 10}


@pytest.mark.real
def test_real_rows_are_learned_from_or_judge(few: Any, shared_data: Path) -> None:
    for name in few.SETS:
        for size in few.sizes(name):
            found = few.rows(name, size, 1)
            parts = [known(found[split]) for split in ("train", "val", "test")]
            assert not parts[0] & parts[1]
            assert not (parts[0] | parts[1]) & parts[2]
            assert {label for _, label in found["train"]} == {label for _, label in found["val"]}
    speakers = [{few._speaker(path) for path, _ in rows} for rows in few.rows("speakers", "few", 2).values()]
    assert not speakers[0] & speakers[1]
    assert not (speakers[0] | speakers[1]) & speakers[2]


def results() -> dict[str, Any]:
    """One set at both sizes, two seeds."""
    runs = [
        {
            "key": {"set": "usps", "size": size, "seed": seed, "strategy": strategy},
            "accuracy": {"val": 0.1, "test": accuracy + 0.02 * seed},
            "rows": {"train": 200, "val": 200, "test": 1000},
            "seconds": seconds,
            "threads": 2,
            "machine": "m",
            "reference_ms": [10.0, 10.0],
        }
        for size in ("few", "500")
        for seed in (0, 1)
        for strategy, accuracy, seconds in (("scratch", 0.7, 20.0), ("fine-tuned", 0.85, 9.0), ("random", 0.6, 2.0))
    ]
    machine = {"cpu": "Test", "cores": 2, "flags": ["avx2"], "python": "3.11", "packages": {"torch": "2"}}
    return {"machines": {"m": machine}, "runs": runs}


def test_tables_tell_scores_gains_and_times(start: Any) -> None:
    text = start.few_table(results())
    assert (
        "| USPS<br>200 + 200, tested on 1,000 | .610 ± .127<br>2.0 s | .710 ± .127<br>20 s | .860 ± .127<br>9.0 s |"
        in text
    )
    assert "ESC-10" not in text, "what was not measured has no row"
    gains = start.gains_table(results())
    assert "| USPS | 20 a class | +.150 ± .000 | 52 % | – | – | 0.45 |" in gains
    assert start.many_table({**results(), "runs": []}) == start.MISSING


@pytest.mark.slow
def test_a_set_runs_in_a_process_of_its_own(
    few: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    builtin = importlib.import_module("benchmarks.builtin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out.json"
    wanted = ["random", "probe", "scratch", "fine-tuned", "baseline"]
    line = ["builtin", "--quick", "--sets", "digits", "--seeds", "0", "--output", str(out), "--strategies", *wanted]
    monkeypatch.setattr(sys, "argv", line)
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            builtin.main()
        assert ended.value.code == 0
    runs = json.loads(out.read_text())["runs"]
    assert [run["key"]["strategy"] for run in runs] == wanted, "what is stored is not run again"
    assert all(run["rows"] == dict.fromkeys(("train", "val", "test"), 60) for run in runs)
    assert all(run["seconds"] > 0 and len(run["reference_ms"]) == 2 for run in runs)
    assert len(capsys.readouterr().out.splitlines()) == len(wanted)
