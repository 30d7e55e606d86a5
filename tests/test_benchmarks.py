"""The benchmarks: their tables are what the results give, and the transfer table runs from end to end on toys."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of the folder beside the tests."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def results() -> dict:
    """Two sets, two seeds."""
    runs = [
        {
            "key": {"set": name, "seed": seed, "strategy": strategy},
            "accuracy": {"val": 0.1, "test": accuracy + 0.02 * seed},
            "seconds": 12.0 + seed,
            "threads": 1,
            "machine": "m",
            "reference_ms": [10.0, 13.0 if seed else 11.0],
        }
        for name in ("photo", "mnist")
        for seed in (0, 1)
        for strategy, accuracy in (("probe", 0.9), ("scratch", 0.5))
    ]
    machine = {"cpu": "Test", "cores": 2, "flags": ["avx2"], "python": "3.11", "packages": {"torch": "2"}}
    return {"machines": {"m": machine}, "runs": runs}


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_the_committed_tables_are_what_the_results_give(page: str, benchmarks: Callable[[str], ModuleType]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert benchmarks("tables").filled(text) == text, "run python -m benchmarks.tables"


def test_every_table_has_a_place(benchmarks: Callable[[str], ModuleType]) -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- table:([\w-]+) -->", text)) == set(benchmarks("tables").TABLES)


def test_a_table_tells_means_intervals_and_medians(benchmarks: Callable[[str], ModuleType], results: dict) -> None:
    text = benchmarks("tables").transfer_table(results)
    # 0.90 and 0.92: mean 0.91; t(1) = 12.706 times 0.0141 / sqrt(2) = 0.127
    assert "| PACS photo | .910 ± .127<br>12 s | .510 ± .127<br>12 s |" in text
    assert "| hymenoptera | – | – |" in text
    for told in ("over 2 seeds", "Test, 2 cores", "1 thread.", "during 4 of 8 runs"):
        assert told in text


def test_gains_are_paired_by_seed(benchmarks: Callable[[str], ModuleType], results: dict) -> None:
    text = benchmarks("tables").gain_table(results)
    assert "| PACS photo | +.400 ± .000 |" in text  # the seeds' own spread is gone


def test_a_typed_number_is_noticed(benchmarks: Callable[[str], ModuleType], tmp_path: Path, results: dict) -> None:
    (tmp_path / "transfer.json").write_text(json.dumps(results))
    page = benchmarks("tables").filled("<!-- table:transfer -->\n<!-- /table -->\n", tmp_path)
    assert page == benchmarks("tables").filled(page, tmp_path)
    assert benchmarks("tables").filled(page.replace(".910", ".990"), tmp_path) != page.replace(".910", ".990")


def test_results_go_on_where_they_stopped(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    record = benchmarks("record")
    path = tmp_path / "results.json"
    record.Results(path, "toy", {"size": 8}).add({"seed": 0}, {"accuracy": 0.5})
    again = record.Results(path, "toy", {"size": 8})
    again.add({"seed": 1}, {"accuracy": 0.6})
    assert [run["accuracy"] for run in json.loads(path.read_text())["runs"]] == [0.5, 0.6]
    assert again.find({"seed": 0}) is not None
    assert again.find({"seed": 2}) is None
    with pytest.raises(SystemExit, match="other settings"):
        record.Results(path, "toy", {"size": 16})


def test_files_of_one_benchmark_are_laid_together(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    record = benchmarks("record")
    for name, seed in (("a", 0), ("b", 1), ("other", 2)):
        record.Results(tmp_path / f"{name}.json", "toy", {"size": 8 + seed // 2}).add(
            {"seed": seed}, {"accuracy": seed}
        )
    record.merge([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert [run["accuracy"] for run in whole["runs"]] == [0, 1]
    assert {run["machine"] for run in whole["runs"]} == set(whole["machines"])
    with pytest.raises(SystemExit, match="other settings"):
        record.merge([tmp_path / "other.json"], tmp_path / "whole.json")


def test_a_failing_process_is_told_with_its_output(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    record = benchmarks("record")
    with pytest.raises(RuntimeError, match="out of luck"):
        record.measured([sys.executable, "-c", "raise SystemExit('out of luck')"], log=tmp_path / "log")
    costs = record.measured([sys.executable, "-c", "sum(range(10**6))"], log=tmp_path / "log")
    assert costs["peak_rss_mb"] > 1
    assert len(costs["reference_ms"]) == 2


def test_a_folder_has_a_digest_of_names_and_contents(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    digest = benchmarks("assets").digest
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").write_text("one")
    first = digest(tmp_path)
    assert digest(tmp_path) == first
    (tmp_path / "a" / "1.txt").rename(tmp_path / "a" / "2.txt")
    second = digest(tmp_path)
    (tmp_path / "a" / "2.txt").write_text("two")
    assert len({first, second, digest(tmp_path)}) == 3


@pytest.mark.real
def test_the_real_data_are_those_the_tables_name(benchmarks: Callable[[str], ModuleType], shared_data: Path) -> None:
    assets = benchmarks("assets")
    for name, asset in assets.ASSETS.items():
        assert assets.digest(shared_data / name) == asset.sha256, name


def test_transfer_runs_on_toys(
    benchmarks: Callable[[str], ModuleType],
    toy_photos: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Processes of their own, as in a real run; baseline and two plans suffice here."""
    transfer = benchmarks("transfer")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = toy_photos(classes=3, size=32, splits={"train": 14, "val": 6, "test": 6})
    line = ["transfer", "--quick", str(folder), "--output", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", [*line, "--strategies", "baseline", "probe", "gradual"])
    with pytest.raises(SystemExit) as ended:
        transfer.main()
    assert ended.value.code == 0
    found = {run["key"]["strategy"]: run for run in json.loads((tmp_path / "out.json").read_text())["runs"]}
    assert set(found) == {"baseline", "probe", "gradual"}
    assert all(benchmarks("tables").judged(run) == run["accuracy"]["test"] for run in found.values())
    assert found["gradual"]["accuracy"]["test"] > 1 / 3
    assert found["gradual"]["stages"][0]["val_accuracy"] == found["probe"]["accuracy"]["val"], "it contains the probe"
    assert found["probe"]["peak_rss_mb"] > 50
