"""R12: small files that claim or unpack to gigabytes are refused by name, at once, with little memory."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from bombs import ARRAYS, SOUNDS, TABLES
from nursery import Life

MOST = 300 * 2**20  # bytes of memory that any of them may take
SOON = 2.0  # seconds of the processor


def swallowed(folder: Path, job: str, cases: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What came of each case in a process of its own: memory, seconds, the error's type and words."""
    life = Life(folder, job=(job, {"cases": {name: str(path) for name, path in cases.items()}}))
    assert life.end() == 0, life.log()
    return json.loads((folder / "swallowed.json").read_text())


def worst(found: dict[str, dict[str, Any]]) -> str:
    memory, seconds = (max(case[key] for case in found.values()) for key in ("memory", "seconds"))
    return f"{len(found)}/{len(found)} bombs, at most {memory / 2**20:.0f} MB and {seconds:.2f} s"


def modest(name: str, case: dict[str, Any]) -> None:
    assert case["memory"] <= MOST, f"{name}: {case}"
    assert case["seconds"] <= SOON, f"{name}: {case}"


def test_bombs_given_as_data(tmp_path: Path) -> None:
    cases = {}
    for name, (file, make, _) in TABLES.items():
        cases[name] = tmp_path / "data" / file
        cases[name].parent.mkdir(exist_ok=True)
        make(cases[name])
    found = swallowed(tmp_path / "life", "swallow_data", cases)
    for name, case in found.items():
        assert case["kind"] == "ours", f"{name}: {case}"
        assert cases[name].name in case["said"], f"{name}: {case}"
        assert re.search(TABLES[name][2], case["said"]), f"{name}: {case}"
        modest(name, case)
    print(f"\nR12: bombs given as data: {worst(found)}")


def test_arrays_in_a_model_and_in_a_run(tmp_path: Path, whole: Path) -> None:
    from headstart.core import manifest

    cases = {}
    for name, make in ARRAYS.items():
        model = tmp_path / name / "model"
        shutil.copytree(whole / "runs/toy/model", model)
        make(model / "golden.npz")
        (model / manifest.MANIFEST).unlink()
        manifest.seal(model)
        shutil.copy(model / "golden.npz", tmp_path / name / "predictions.npz")
        cases |= {f"{name}, as golden.npz": model, f"{name}, as predictions": tmp_path / name / "predictions.npz"}
    found = swallowed(tmp_path / "life", "swallow_artefacts", cases)
    for name, case in found.items():
        assert case["kind"] == "ours", f"{name}: {case}"
        assert cases[name].name in case["said"] or "golden.npz" in case["said"], f"{name}: {case}"
        modest(name, case)
    print(f"\nR12: bombs in place of arrays: {worst(found)}")


@pytest.mark.slow
def test_sounds(tmp_path: Path) -> None:
    cases = {name: tmp_path / f"{index}.wav" for index, name in enumerate(SOUNDS)}
    for name, path in cases.items():
        SOUNDS[name](path)
    found = swallowed(tmp_path / "life", "swallow_sounds", cases)
    for name, case in found.items():
        assert case["kind"] in ("ours", "nothing"), f"{name}: {case}"
        modest(name, case)
    refused = sum(case["kind"] == "ours" for case in found.values())
    print(f"\nR12: sounds: {refused} refused by name, of the others no more is taken than is used; {worst(found)}")
    assert refused >= 6


def test_what_takes_memory_or_time_is_noticed(tmp_path: Path) -> None:
    found = swallowed(tmp_path, "swallow_memory", {"memory": tmp_path, "endless": tmp_path})
    assert found["memory"]["memory"] > MOST
    assert found["endless"]["kind"] == "MemoryError", "the limit of the process holds"
