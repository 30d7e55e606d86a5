"""R4: a full or broken disk is told with place and free bytes, loses nothing, leaves nothing; it is asked first."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from nursery import Life, finished

ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT")


def positions(whole: Path, count: int) -> list[int]:
    """Places of a run's changes in the file system, evenly spread."""
    total = len(json.loads((whole / "changes.json").read_text()))
    return [2 + index * (total - 4) // count for index in range(count)]


@pytest.mark.parametrize("count", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_a_disk_that_breaks_anywhere(tmp_path: Path, whole: Path, count: int) -> None:
    for index, change in enumerate(positions(whole, count)):
        folder, error = tmp_path / str(index), ERRORS[index % len(ERRORS)]
        life = Life(folder, plants=[("broken_disk", {"change": change, "error": error})])
        assert life.end() == 1, f"{error} at change {change}\n{life.log()}"
        told = ("bytes are free", "MB are free", "cannot write here")  # the last before anything is begun
        assert any(text in life.log() for text in told), life.log()
        assert "runs" in life.log() or str(folder) in life.log()
        finished(folder, whole, f"{error} at change {change}")
    print(f"\nR4: {count}/{count} breaks of the disk told, with the same weights afterwards, and nothing left behind")


@pytest.mark.parametrize("size", [20_000, *(pytest.param(size, marks=pytest.mark.slow) for size in (900, 100_000))])
def test_a_file_that_ends_in_the_middle(tmp_path: Path, whole: Path, size: int) -> None:
    """By a limit of the kernel, which code of other languages (safetensors) meets too."""
    life = Life(tmp_path, plants=[("short_files", {"size": size})])
    assert life.end() == 1, life.log()
    assert "are free" in life.log()
    assert "runs/" in life.log()
    finished(tmp_path, whole, size)


def test_too_little_space_is_refused_before_training(tmp_path: Path, whole: Path) -> None:
    started = time.monotonic()
    life = Life(tmp_path, plants=[("little_space", {"free": 1_000_000})])
    assert life.end() == 1
    print(f"\nR4: refused {time.monotonic() - started:.2f} s after the start of the process")
    assert "needs" in life.log()
    assert "1,000,000 bytes are free" in life.log()
    assert not list((life.run / "stages").glob("*"))
    finished(tmp_path, whole, "space")


def test_the_space_asked_for_covers_what_a_run_takes(tmp_path: Path, whole: Path) -> None:
    """At least 2.2 checkpoints, and never less than the whole folder at the end."""
    import nursery
    import torch

    from headstart.models import backbone, heads
    from headstart.models.model import Model
    from headstart.stages import plans
    from headstart.workflows import space

    body = backbone.load("builtin/tiny", image_size=32, pretrained=False)
    model = Model(body, heads.build("linear", body.feature_dim, 3, seed=0), ("a", "b", "c"))
    stages = plans.parse(nursery.PLAN)
    needed = space.needed(model, stages)
    used = sum(file.stat().st_size for file in (whole / "runs/toy").rglob("*") if file.is_file())
    model.thaw("all")
    trained = sum(p.numel() * 4 for p in model.parameters())
    assert space.checkpoint(model, stages[2]) >= 4 * trained
    assert needed >= 2.2 * max(space.checkpoint(model, stage) for stage in stages[1:])
    assert needed > used
    assert torch.is_grad_enabled()
