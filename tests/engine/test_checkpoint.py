"""Checkpoints: no pickle, no half-written one counts, a damaged one is passed over aloud."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from headstart.core import manifest
from headstart.core.errors import TrainingError
from headstart.engine import checkpoint
from headstart.engine.checkpoint import Checkpoints


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"now/a": torch.full((64, 8), float(step)), "now/b": torch.arange(5)}


def test_the_newest_is_read_back_and_two_are_kept(tmp_path):
    kept = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        kept.save(step, tensors(step), {"epoch": step})
    found, facts = kept.latest()
    assert facts == {"step": 3, "epoch": 3}
    assert all(torch.equal(found[name], value) for name, value in tensors(3).items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def damage(path, kind: str, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    if kind == "bit":
        place = int(rng.integers(len(data)))
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == "truncated":
        data = data[: int(rng.integers(len(data)))]
    elif kind == "zero page":
        start = int(rng.integers(max(1, len(data) - 512)))
        if not any(data[start : start + 512]):
            data[start] ^= 1
        else:
            data[start : start + 512] = bytes(len(data[start : start + 512]))
    elif kind == "empty":
        data = bytearray()
    else:
        data += b"junk"
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("kind", ["bit", "truncated", "zero page", "empty", "appended"])
@pytest.mark.parametrize("file", ["tensors.safetensors", "facts.json"])
def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path, kind, file):
    rng = np.random.default_rng(0)
    for case in range(10):
        said: list[str] = []
        kept = Checkpoints(tmp_path / str(case), warn=said.append)
        kept.save(1, tensors(1), {})
        kept.save(2, tensors(2), {})
        damage(tmp_path / str(case) / "step-00000002" / file, kind, rng)
        found, facts = kept.latest()
        assert facts["step"] == 1
        assert torch.equal(found["now/a"], tensors(1)["now/a"])
        assert "step-00000002 is damaged" in said[0]


def test_a_folder_without_a_manifest_does_not_exist(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(1, tensors(1), {})
    (tmp_path / "step-00000001" / manifest.MANIFEST).unlink()
    assert kept.latest() is None


@pytest.mark.parametrize("point", ["save_tensors", "seal", "check"])
def test_a_full_disk_loses_nothing_and_leaves_nothing(tmp_path, monkeypatch, point):
    kept = Checkpoints(tmp_path)
    kept.save(1, tensors(1), {})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint if point == "save_tensors" else manifest, point, full)
    with pytest.raises(TrainingError, match="No space left") as caught:
        kept.save(2, tensors(2), {})
    monkeypatch.undo()
    assert "MB are free" in str(caught.value)
    assert kept.latest()[1]["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_what_is_not_finite_never_reaches_the_disk(tmp_path):
    with pytest.raises(TrainingError, match="not finite"):
        Checkpoints(tmp_path).save(1, {"now/a": torch.tensor([1.0, torch.nan])}, {})
    assert Checkpoints(tmp_path).latest() is None


def test_leftovers_of_a_kill_are_cleared_at_the_next_save(tmp_path):
    left = tmp_path / ".step-00000001.tmp-99999"
    left.mkdir()
    (left / "tensors.safetensors").write_bytes(b"half")
    kept = Checkpoints(tmp_path)
    assert kept.latest() is None
    kept.save(2, tensors(2), {})
    assert not left.exists()
