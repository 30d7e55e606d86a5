"""R2, R8: what a resumed run repeats bit for bit, and what must not matter at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nursery import Life, weights

POINTS = {"middle of an epoch": 2, "end of an epoch": 3, "end of the stage": 9}  # of 3 epochs of 3 updates
# Pairwise: every two values of any two columns meet.
CELLS = [
    ("middle of an epoch", 1, {"ema": 0.9}, "fp32"),
    ("middle of an epoch", 4, {"mixup": 0.4}, "bf16"),
    ("middle of an epoch", 1, {}, "bf16"),
    ("end of an epoch", 4, {}, "fp32"),
    ("end of an epoch", 1, {"mixup": 0.4}, "fp32"),
    ("end of an epoch", 4, {"ema": 0.9}, "bf16"),
    ("end of the stage", 1, {"ema": 0.9}, "bf16"),
    ("end of the stage", 4, {"ema": 0.9, "mixup": 0.4}, "fp32"),
    ("end of the stage", 1, {"mixup": 0.4}, "bf16"),
    ("end of the stage", 4, {}, "fp32"),
]
TRACE = [("trace_updates", {})]


def trace(folder: Path) -> dict[tuple[int, ...], tuple[list[int], str]]:
    """Rows and loss (hexadecimal) of every update by (stage, epoch, step); one done twice must have been the same."""
    found: dict[tuple[int, ...], tuple[list[int], str]] = {}
    for line in (folder / "updates.jsonl").read_text().splitlines():
        update = json.loads(line)
        value = (update["rows"], update["loss"])
        assert found.setdefault(tuple(update["at"]), value) == value, update["at"]
    return found


@pytest.mark.parametrize(
    ("point", "accumulate", "own", "precision"),
    [CELLS[1], *(pytest.param(*cell, marks=pytest.mark.slow) for cell in (CELLS[0], *CELLS[2:]))],
)
def test_a_resumed_stage_repeats_loss_and_rows(
    tmp_path: Path, point: str, accumulate: int, own: dict[str, float], precision: str
) -> None:
    stage = {
        "name": "tuned",
        "epochs": 3,
        "batch_size": 8,
        "accumulate": accumulate,
        "lr": 2e-3,
        "blocks": "all",
        **own,
    }
    settings = {"plan": [{"thaw": stage}], "precision": precision}
    whole = Life(tmp_path / "whole", settings=settings, plants=TRACE)
    die = ("os.rename", rf"state/step-{POINTS[point] + (point == 'end of an epoch'):08d}$", 1)
    if point == "end of the stage":
        die = ("os.rename", r"00-tuned/manifest\.json$", 1)
    broken = Life(tmp_path / "broken", settings=settings, plants=TRACE, die_before=[die])
    assert broken.end() == -9, broken.log()
    resumed = Life(tmp_path / "broken", settings=settings, plants=TRACE)
    assert (whole.end(), resumed.end()) == (0, 0), whole.log() + resumed.log()
    assert resumed.events("resumed")
    expected, found = trace(tmp_path / "whole"), trace(tmp_path / "broken")
    assert found == expected
    for epoch in range(3):
        rows = [row for at, (rows, _) in found.items() if at[1] == epoch for row in rows]
        assert sorted(rows) == list(range(24)), "a row was lost or repeated"
    assert weights(tmp_path / "whole") == weights(tmp_path / "broken")


NUISANCES = ("order of folders", "working folder", "umask", "time zone", "locale", "global random state")


def photos_run(folder: Path, photos: Path, **spec: Any) -> Life:
    return Life(folder, data=str(photos), **spec)


@pytest.fixture
def reference(tmp_path: Path, toy_photos: Callable[..., Path]) -> tuple[Path, str]:
    photos = toy_photos(classes=3, per_class=14, size=32)
    life = photos_run(tmp_path / "reference", photos)
    assert life.end() == 0, life.log()
    return photos, weights(tmp_path / "reference")


@pytest.mark.parametrize("names", [NUISANCES[:1], pytest.param(NUISANCES[1:], marks=pytest.mark.slow)])
def test_nuisances_do_not_matter(tmp_path: Path, reference: tuple[Path, str], names: tuple[str, ...]) -> None:
    photos, expected = reference
    moved = tmp_path / "elsewhere" / "photos"
    moved.parent.mkdir()
    photos.rename(moved)
    for file in moved.rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    lives = [photos_run(tmp_path / "moved", moved)]
    for name in names:
        own = {"output_dir": str(tmp_path / name / "runs")}
        lives.append(photos_run(tmp_path / name, moved, settings=own, plants=[("nuisance", {"name": name})]))
    for life in lives:
        assert life.end() == 0, life.log()
        assert weights(life.folder) == expected, life.folder.name
    print(f"\nR8: {len(lives) + 1}/{len(lives) + 1} nuisances leave the weights alone")


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_fresh_processes_agree(tmp_path: Path, reference: tuple[Path, str], seed: str) -> None:
    photos, expected = reference
    code = (
        "import os, sys; from pathlib import Path; import nursery;"
        "nursery.live({'folder': sys.argv[1], 'data': sys.argv[2]})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    (tmp_path / "fresh").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "fresh"), str(photos)], env=environment, check=False
    )
    assert done.returncode == 0, (tmp_path / "fresh/life.log").read_text()
    assert weights(tmp_path / "fresh") == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "0.0"}, "torch was .* and is 0.0"),
        pytest.param({"threads": 2}, "threads was 1 and is 2", marks=pytest.mark.slow),
    ],
)
def test_another_machine_is_said_aloud(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    import re

    broken = Life(tmp_path, die_before=[("os.rename", r"01-cached/state/step-00000003$", 1)])
    assert broken.end() == -9
    resumed = Life(tmp_path, plants=[("other_machine", changed)])
    assert resumed.end() == 0, resumed.log()
    (notice,) = resumed.events("resume-differs")
    assert re.search(said, notice["message"])
    assert notice["level"] == "warning"
