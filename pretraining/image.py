"""Pretrain ``builtin/image``: one narrow ResNet that names the classes of many drawn sources at once, a head for each.

    python -m pretraining.image --minutes 60 --pack src/headstart/builtin/image

The sources and their augmentation are in ``pretraining/drawing``. Shapes: B pictures, D features, K classes, W words.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretraining.drawing import paint, pool
from pretraining.runtime import Settings, Training, add_arguments, pack

NAME, MODEL_ARGS = "resnet18", {"channels": (32, 64, 128, 240)}
SIDES = ((0.0, 64), (0.55, 96))  # from this share of the budget on, pictures of this side
SHARES = {  # pictures of each source in a batch
    "glyphs": 24,
    "strokes": 24,
    "fractals": 12,
    "contours": 8,
    "textures": 12,
    "clip_art": 48,
    "photographs": 16,
}
MEAN, STD = 0.5, 0.25
DATA = (
    "Drawn by program: letters and symbols of many scripts, made-up handwriting, fractals, contours and textures; "
    "and pictures of Debian packages: Open Clip Art, Noto emoji, Tux Paint stamps, desktop backgrounds. "
    "No digits, people, dogs, elephants, giraffes, guitars, horses, houses, ants or bees."
)


class Batches:
    """The batch of a step: painted from the pool by torch's generator."""

    def __init__(self, sources: dict[str, pool.Source]) -> None:
        self.sources = sources

    def draw(self, side: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised pictures (B, 3, side, side) in the order of ``SHARES``, and each source's classes."""
        painted: dict[str, Tensor] = {}
        labels: dict[str, Tensor] = {}
        order = sorted(self.sources, key=lambda name: name not in ("textures", "photographs"))  # the backgrounds first
        for name in order:
            raw, labels[name] = self._pick(self.sources[name], SHARES[name])
            painted[name] = self._paint(name, paint.warp(raw, paint.WARPS[name], side), painted)
        pictures = torch.cat([painted[name] for name in self.sources])
        return (paint.spoil(pictures) - MEAN) / STD, {name: labels[name] for name in self.sources}

    def _pick(self, source: pool.Source, count: int) -> tuple[Tensor, Tensor]:
        """Classes are drawn alike, whatever the number of their pictures."""
        wanted = torch.randint(len(source.labels), (2 * count,)).numpy()
        weights = 1 / np.bincount(source.labels)[source.labels[wanted]]
        chosen = wanted[torch.multinomial(torch.from_numpy(weights), count).numpy()]
        return torch.from_numpy(source.pictures[chosen]).float().div_(255), torch.from_numpy(source.labels[chosen])

    def _paint(self, name: str, warped: Tensor, painted: dict[str, Tensor]) -> Tensor:
        if name in ("textures", "photographs"):
            return paint.coarse(paint.light(warped), 0.1)
        scenery = torch.cat([painted["textures"], painted["photographs"]])
        behind = scenery[torch.randint(len(scenery), (len(warped),))]
        if name in ("glyphs", "strokes"):
            return paint.coarse(paint.ink(warped, behind, plain=0.6), 0.5)
        if name == "contours":
            return paint.coarse(paint.ink(warped, behind, plain=0.2), 0.15)
        if name == "fractals":
            return paint.coarse(paint.light(paint.heat(warped, behind)), 0.1)
        return paint.coarse(paint.light(paint.lay(warped, behind)), 0.1)


class Learner(nn.Module):
    """The backbone with a linear classifier for every source, and one for the words of the named pictures."""

    def __init__(self, sources: dict[str, pool.Source]) -> None:
        super().__init__()
        self.backbone = network()
        width = self.backbone.num_features
        self.heads = nn.ModuleDict({name: nn.Linear(width, source.classes) for name, source in sources.items()})
        words = sources["clip_art"].words
        assert words is not None
        self.words = nn.Linear(width, words.shape[1])
        shares = words / np.maximum(words.sum(1, keepdims=True), 1)
        self.register_buffer("targets", torch.from_numpy(shares).float(), persistent=False)

    def forward(self, pictures: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss over the pictures, and the accuracy of every source."""
        with torch.autocast(pictures.device.type, torch.bfloat16):
            features = self.backbone(pictures.contiguous(memory_format=torch.channels_last)).float()
        total, hits = features.new_zeros(()), {}
        parts = features.split([len(part) for part in labels.values()])
        for (name, wanted), part in zip(labels.items(), parts, strict=True):
            logits = self.heads[name](part)
            total = total + F.cross_entropy(logits, wanted, label_smoothing=0.05, reduction="sum")
            hits[name] = (logits.argmax(1) == wanted).float().mean()
            if name == "clip_art":  # softmax over the words, as in Mahajan et al. 2018
                total = total + F.cross_entropy(self.words(part), self.targets[wanted], reduction="sum")
        return total / len(features), hits


def network() -> nn.Module:
    """The backbone with fresh weights."""
    return timm.create_model(NAME, num_classes=0, **MODEL_ARGS)


def side_at(progress: float) -> int:
    """Side of the pictures at a share of the budget (small first, as in fast.ai's progressive resizing)."""
    return [side for start, side in SIDES if progress >= start][-1]


def train(folder: Path, settings: Settings) -> Training:
    """Make the pool where it is missing, and train to the end of the budget."""
    sources = {name: pool.source(name, folder / "pool", settings.seed) for name in SHARES}
    torch.manual_seed(settings.seed)
    learner = Learner(sources).to(memory_format=torch.channels_last)
    batches = Batches(sources)
    training = Training(learner, folder, settings)
    learner.train()
    for _ in training:
        pictures, labels = batches.draw(side_at(training.progress))
        loss, hits = learner(pictures, labels)
        training.update(loss, **hits)
    return training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_arguments(parser, "runs/image")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--pack", type=Path, help="where the weights and the card go")
    options = parser.parse_args()
    settings = Settings(
        seed=options.seed, minutes=options.minutes, steps=options.steps, lr=options.lr, weight_decay=0.05, ema=0.999
    )
    training = train(options.folder, settings)
    if options.pack:
        pack(options.pack, training.averages("backbone."), card(training))


def card(training: Training) -> dict[str, object]:
    """What the card says beside the run's own facts."""
    return {
        "name": "image",
        "architecture": {"library": "timm", "name": NAME, "model_args": MODEL_ARGS},
        "input": {
            "size": 96,
            "resize": 104,
            "crop": "center",
            "interpolation": "bicubic",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
        },
        "data": DATA,
        "licence": "Apache-2.0",
        "script": "pretraining/image.py",
        "arguments": sys.argv[1:],
        **training.facts(),
    }


if __name__ == "__main__":
    main()
