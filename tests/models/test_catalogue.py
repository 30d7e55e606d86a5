"""The list of backbones, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.models import backbone as backbones
from headstart.models.catalogue import catalogue
from headstart.models.loading import STANDARDS


def test_patterns() -> None:
    assert [entry.name for entry in catalogue("builtin/t*y")] == ["builtin/tiny"]
    names = [entry.name for entry in catalogue("torchvision/resnet1*")]
    assert {name.partition(".")[0] for name in names} == {
        "torchvision/resnet18",
        "torchvision/resnet101",
        "torchvision/resnet152",
    }
    assert "torchvision/resnet18.IMAGENET1K_V1" in names
    everywhere = {entry.library for entry in catalogue("RESNET18")}
    assert everywhere == {"torchvision", "timm"}
    assert catalogue("no-such-network") == []


def test_every_standard_is_listed() -> None:
    listed = {entry.name for entry in catalogue()}
    for standard in STANDARDS:
        assert any(name == standard.name or name.startswith(f"{standard.name}.") for name in listed)


def test_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    tiny = catalogue("builtin/tiny")[0]
    assert tiny.parameters == sum(p.numel() for p in backbones.load("builtin/tiny").parameters())
    entry = catalogue("torchvision/resnet18")[0]
    assert (entry.parameters, entry.local) == (11689512, False)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").touch()
    assert catalogue("torchvision/resnet18")[0].local
