"""R3: damage is detected and gone around, or told; nothing damaged is ever used silently."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nursery import Life, weights

from headstart.core import manifest
from headstart.engine.checkpoint import Checkpoints

Damage = Callable[[bytearray, np.random.Generator], bytes]


def flip(data: bytearray, rng: np.random.Generator) -> bytes:
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)


def zero_page(data: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(max(1, len(data) - 512)))
    page = data[start : start + 512]
    data[start : start + 512] = bytes(len(page)) if any(page) else b"\1" * len(page)
    return bytes(data)


DAMAGES: dict[str, Damage] = {
    "bit flip": flip,
    "zero page": zero_page,
    "truncated": lambda data, rng: bytes(data[: int(rng.integers(len(data)))]),
    "empty": lambda data, rng: b"",
    "appended": lambda data, rng: bytes(data) + rng.bytes(7),
    "noise": lambda data, rng: rng.bytes(len(data)),
}


def contents(step: int) -> dict[str, torch.Tensor]:
    return {"now/a": torch.full((64, 8), float(step)), "best/a": torch.arange(40) + step}


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    kept = Checkpoints(tmp_path / "state")
    for step in (1, 2):
        kept.save(step, contents(step), {"epoch": step})
    return tmp_path / "state"


def taken(folder: Path) -> tuple[int, list[str]]:
    """The step that is taken, its content checked, and what was said."""
    said: list[str] = []
    found = Checkpoints(folder, warn=said.append).latest()
    assert found is not None
    tensors, facts = found
    assert facts == {"step": facts["step"], "epoch": facts["step"]}
    assert all(torch.equal(tensors[name], value) for name, value in contents(facts["step"]).items())
    return facts["step"], said


@pytest.mark.parametrize("cases", [180, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_checkpoints(pair: Path, cases: int) -> None:
    newest = pair / "step-00000002"
    files = {name: (newest / name).read_bytes() for name in ("tensors.safetensors", "facts.json", "manifest.json")}
    rng = np.random.default_rng(0)
    fell_back = harmless = 0
    for case in range(cases):
        name = list(files)[case % 3]
        damage = list(DAMAGES.values())[case // 3 % len(DAMAGES)]
        (newest / name).write_bytes(damage(bytearray(files[name]), rng))
        step, said = taken(pair)
        if step == 1:
            assert "step-00000002 is damaged" in said[0]
            fell_back += 1
        else:  # only a manifest may differ without saying something else: in a number that nobody reads
            assert name == "manifest.json"
            harmless += 1
        (newest / name).write_bytes(files[name])
    assert taken(pair) == (2, [])
    print(
        f"\nR3: {cases}/{cases} damaged checkpoints: {fell_back} fell back aloud, {harmless} harmless (in the manifest)"
    )
    assert harmless <= cases // 50


@pytest.mark.parametrize(
    "what", ["swapped", "stale manifest", "empty manifest", "missing", "a file", "a link", "other"]
)
def test_a_newest_checkpoint_that_is_another(pair: Path, tmp_path: Path, what: str) -> None:
    one, two = pair / "step-00000001", pair / "step-00000002"
    if what == "swapped":
        shutil.copy(one / "tensors.safetensors", two / "tensors.safetensors")
    elif what == "stale manifest":
        shutil.copy(one / "manifest.json", two / "manifest.json")
    elif what == "empty manifest":
        (two / "manifest.json").write_text('{"version": 1, "files": {}}')
    elif what == "missing":
        (two / "facts.json").unlink()
    elif what == "a file":
        shutil.rmtree(two)
        two.write_text("not a folder")
    elif what == "a link":
        shutil.move(two / "facts.json", tmp_path / "facts.json")
        (two / "facts.json").symlink_to(tmp_path / "facts.json")
    else:
        (two / "facts.json").write_text("[]")
        manifest.write_json(two / "manifest.json", {"files": {"facts.json": manifest.sha256(two / "facts.json")}})
    step, said = taken(pair)
    assert step == 1
    assert "is damaged" in said[0]


def damaged_run(folder: Path, whole: Path, file: str, damage: Damage, rng: np.random.Generator) -> str:
    """Start again after one file of a half-done run was damaged: ``redone`` or ``told``."""
    shutil.copytree(whole, folder)
    path = folder / "runs/toy" / file
    path.write_bytes(damage(bytearray(path.read_bytes()), rng))
    life = Life(folder)
    code = life.end()
    if code == 0:
        assert weights(folder) == weights_of_toy[0], f"{file}: silently different"
        return "redone"
    assert code == 1, f"{file}\n{life.log()}"
    assert Path(file).name in life.log() or "damaged" in life.log() or "no run" in life.log(), life.log()
    return "told"


weights_of_toy: list[str] = []


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory, whole: Path) -> Path:
    """A run that was killed in its last stage."""
    weights_of_toy[:] = [weights(whole)]
    folder = tmp_path_factory.mktemp("half")
    life = Life(folder, die_before=[("os.rename", r"02-live/state/step-00000004$", 1)])
    assert life.end() == -9
    return folder


@pytest.mark.parametrize("cases", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_any_damaged_file_of_a_half_done_run(tmp_path: Path, half: Path, cases: int) -> None:
    run = half / "runs/toy"
    files = sorted(
        path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and ".tmp-" not in path.name
    )
    files = [name for name in files if "previews" not in name and name not in ("experiment.yaml", "identity.json")]
    rng = np.random.default_rng(1)
    ends = []
    for case in range(cases):
        file = files[(case * 7) % len(files)]
        damage = list(DAMAGES.values())[case % len(DAMAGES)]
        ends.append(damaged_run(tmp_path / str(case), half, file, damage, rng))
    print(
        f"\nR3: {cases}/{cases} damaged files of a run: {ends.count('redone')} gone around, {ends.count('told')} told"
    )


def test_a_damaged_finished_stage_names_its_folder(tmp_path: Path, half: Path) -> None:
    shutil.copytree(half, tmp_path / "run")
    file = tmp_path / "run/runs/toy/stages/01-cached/state/model.safetensors"
    file.write_bytes(flip(bytearray(file.read_bytes()), np.random.default_rng(2)))
    life = Life(tmp_path / "run")
    assert life.end() == 1
    assert "01-cached" in life.log()
    assert "damaged" in life.log()
    shutil.rmtree(file.parents[1])  # what the message advises
    assert Life(tmp_path / "run").end() == 0


def test_half_a_line_of_events_is_no_harm(tmp_path: Path, half: Path) -> None:
    shutil.copytree(half, tmp_path / "run")
    file = tmp_path / "run/runs/toy/events.jsonl"
    file.write_bytes(file.read_bytes() + b'{"time": 1, "event": "Noti')
    life = Life(tmp_path / "run")
    assert life.end() == 0, life.log()
    for line in file.read_text().splitlines():
        json.loads(line)
