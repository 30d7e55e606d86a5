"""Folders in the form of the built-in backbones with seeded random weights: what is asked of any such folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.core.manifest import sha256
from headstart.models import surgery, weights
from tests import words

SETTINGS = {
    "widths": [16, 24],
    "strides": [[2, 2], [1, 2]],
    "stem": 8,
    "dim": 32,
    "bins": 32,
}  # of the encoder of sounds
INPUTS: dict[str, dict[str, Any]] = {
    "image": {"size": 64, "resize": 64, "crop": "squash", "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]},
    "text": {"max_length": 48},
    "audio": {"rate": 16_000},
}


def write(place: Path) -> Path:
    """``image``, ``text`` and ``audio`` under ``place``."""
    import timm

    from headstart.models.logmel import LogMelNet

    network = surgery.seeded(1, lambda: timm.create_model("test_resnet", num_classes=0))
    _write(place / "image", network, {"library": "timm", "name": "test_resnet", "model_args": {}})
    words.network(place / "text", seed=1)
    _card(place / "text", {"library": "transformers"}, 1)
    hearing = surgery.seeded(1, lambda: LogMelNet(**SETTINGS))
    _write(place / "audio", hearing, {"library": "builtin", "settings": SETTINGS})
    return place


def _write(folder: Path, module: nn.Module, architecture: dict[str, Any]) -> None:
    halves = {name: value.half() for name, value in module.state_dict().items() if not name.endswith("tracked")}
    folder.mkdir(parents=True)
    weights.write(folder / "model.safetensors", halves, {"format": "pt"})
    _card(folder, architecture, sum(value.numel() for value in halves.values()))


def _card(folder: Path, architecture: dict[str, Any], parameters: int) -> None:
    told = {
        "architecture": architecture,
        "input": INPUTS[folder.name],
        "data": f"Seeded random numbers that stand in for {folder.name}.",
        "licence": "Apache-2.0",
        "sha256": sha256(folder / "model.safetensors"),
        "parameters": parameters,
        "steps": 1200,
        "seconds": 90.0,
        "hardware": "2 cores",
        "script": "python -m pretraining.nothing",
        "arguments": ["--minutes", "1"],
        "scores": {"probe of drawn shapes": 0.5, "textures": {"probe": 0.25}},
    }
    (folder / "card.json").write_text(json.dumps(told), encoding="utf-8")


def weight(folder: Path, name: str) -> torch.Tensor:
    """One tensor of the folder's weights."""
    return weights.read(folder / "model.safetensors")[name]
