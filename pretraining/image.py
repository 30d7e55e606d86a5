"""Pretrain ``builtin/image``: a narrow ResNet that learns from many drawn sources at once.

    python -m pretraining.image --minutes 60 --pack src/headstart/builtin/image

Every batch holds pairs of one class: two examples of a drawn class, two views of a found picture. The loss adds up
three: find the partner in the batch (Chen et al. 2020, SimCLR; Khosla et al. 2020), name the class (a linear head for
every drawn source), and name the words a found picture is filed under. The sources and their augmentation are in
``pretraining/drawing``. Shapes: B pictures, D features, K classes, W words, P pairs (B = 2 P).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretraining.drawing import held_out, paint, pool
from pretraining.probing import probe
from pretraining.runtime import Settings, Training, add_arguments, pack

NAME, MODEL_ARGS = "resnet18", {"channels": (32, 64, 128, 240)}
SIDES = ((0.0, 64), (0.7, 96))  # from this share of the budget on, pictures of this side
PAIRS = {  # in a batch
    "glyphs": 9,
    "strokes": 9,
    "fractals": 3,
    "contours": 2,
    "textures": 3,
    "clip_art": 12,
    "photographs": 5,
}
FOUND = ("clip_art", "photographs")  # every picture is a class of its own: too many for a classifier
TEMPERATURE = 0.15
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
        self.rows = {name: np.argsort(source.labels, kind="stable") for name, source in sources.items()}

    def draw(self, side: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised pictures (B, 3, side, side) in the order of ``PAIRS``, and each source's classes.

        Of a source's rows the second half are the partners of the first.
        """
        painted: dict[str, Tensor] = {}
        labels: dict[str, Tensor] = {}
        order = sorted(self.sources, key=lambda name: name not in ("textures", "photographs"))  # the backgrounds first
        for name in order:
            raw, labels[name] = self._pick(self.sources[name], PAIRS[name])
            painted[name] = self._paint(name, paint.warp(raw, paint.WARPS[name], side), painted)
        pictures = torch.cat([painted[name] for name in self.sources])
        return (paint.spoil(pictures) - MEAN) / STD, {name: labels[name] for name in self.sources}

    def _pick(self, source: pool.Source, pairs: int) -> tuple[Tensor, Tensor]:
        """Pairs of different classes, drawn alike whatever the number of their pictures."""
        classes = torch.randperm(source.classes)[:pairs].repeat(2).numpy()
        counts = np.bincount(source.labels, minlength=source.classes)
        starts = np.cumsum(counts) - counts
        places = starts[classes] + (torch.rand(2 * pairs).numpy() * counts[classes]).astype(np.int64)
        chosen = self.rows[source.name][places]
        return torch.from_numpy(source.pictures[chosen]).float().div_(255), torch.from_numpy(classes)

    def _paint(self, name: str, warped: Tensor, painted: dict[str, Tensor]) -> Tensor:
        if name in ("textures", "photographs"):
            return paint.coarse(paint.light(warped), 0.1)
        scenery = torch.cat([painted["textures"], painted["photographs"]])
        behind = scenery[torch.randint(len(scenery), (len(warped),))]
        if name in ("glyphs", "strokes"):
            return paint.coarse(paint.ink(warped, behind, plain=0.8), 0.35)
        if name == "contours":
            return paint.coarse(paint.ink(warped, behind, plain=0.5), 0.1)
        if name == "fractals":
            return paint.coarse(paint.light(paint.heat(warped, behind)), 0.1)
        return paint.coarse(paint.light(paint.lay(warped, behind)), 0.1)


class Learner(nn.Module):
    """The backbone, a projection for finding partners, and the classifiers."""

    def __init__(self, sources: dict[str, pool.Source]) -> None:
        super().__init__()
        self.backbone = network()
        width = self.backbone.num_features
        drawn = {name: source.classes for name, source in sources.items() if name not in FOUND}
        self.heads = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in drawn.items()})
        self.projection = nn.Sequential(
            nn.Linear(width, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 96)
        )
        words = sources["clip_art"].words
        assert words is not None
        self.words = nn.Linear(width, words.shape[1])
        shares = words / np.maximum(words.sum(1, keepdims=True), 1)
        self.register_buffer("targets", torch.from_numpy(shares).float(), persistent=False)

    def forward(self, pictures: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and for the log its parts and the accuracy of every classifier."""
        with torch.autocast(pictures.device.type, torch.bfloat16):
            features = self.backbone(pictures.contiguous(memory_format=torch.channels_last)).float()
        sizes = [len(part) for part in labels.values()]
        partners, found = find_partners(F.normalize(self.projection(features)), sizes)
        naming, logged = features.new_zeros(()), {"partners": partners.detach(), "partners_found": found}
        for (name, wanted), part in zip(labels.items(), features.split(sizes), strict=True):
            if name in self.heads:
                logits = self.heads[name](part)
                naming = naming + F.cross_entropy(logits, wanted, label_smoothing=0.05, reduction="sum")
                logged[name] = (logits.argmax(1) == wanted).float().mean()
            elif name == "clip_art":  # softmax over the words, as in Mahajan et al. 2018
                spoken = F.cross_entropy(self.words(part), self.targets[wanted], reduction="sum")
                naming, logged["words"] = naming + spoken, spoken.detach() / len(part)
        return partners + naming / len(features), logged


def find_partners(points: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """InfoNCE over the unit vectors (B, E), and how often the partner is the nearest of all others."""
    partner = torch.cat([torch.arange(size).roll(size // 2) + start for size, start in _spans(sizes)])
    likeness = (points @ points.T / TEMPERATURE).fill_diagonal_(-1e4)
    return F.cross_entropy(likeness, partner), (likeness.argmax(1) == partner).float().mean()


def _spans(sizes: list[int]) -> list[tuple[int, int]]:
    return [(size, sum(sizes[:place])) for place, size in enumerate(sizes)]


def network() -> nn.Module:
    """The backbone with fresh weights."""
    return timm.create_model(NAME, num_classes=0, **MODEL_ARGS)


def side_at(progress: float) -> int:
    """Side of the pictures at a share of the budget (small first, as in fast.ai's progressive resizing)."""
    return [side for start, side in SIDES if progress >= start][-1]


def train(folder: Path, settings: Settings) -> Training:
    """Make the pool where it is missing, and train to the end of the budget."""
    sources = {name: pool.source(name, folder / "pool", settings.seed) for name in PAIRS}
    torch.manual_seed(settings.seed)
    learner = Learner(sources).to(memory_format=torch.channels_last)
    batches = Batches(sources)
    training = Training(learner, folder, settings)
    learner.train()
    for _ in training:
        pictures, labels = batches.draw(side_at(training.progress))
        loss, logged = learner(pictures, labels)
        training.update(loss, **logged)
    return training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_arguments(parser, "runs/image")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--pack", type=Path, help="where the weights and the card go")
    options = parser.parse_args()
    settings = Settings(
        seed=options.seed, minutes=options.minutes, steps=options.steps, lr=options.lr, weight_decay=0.05, ema=0.999
    )
    training = train(options.folder, settings)
    if options.pack:
        pack(options.pack, training.averages("backbone."), card(training))


@torch.no_grad()
def features(backbone: nn.Module, pictures: Tensor) -> np.ndarray:
    """Pictures (N, 3, S, S) in [0, 1] to (N, D)."""
    backbone.eval()
    with torch.autocast(pictures.device.type, torch.bfloat16):
        return torch.cat([backbone((part - MEAN) / STD).float() for part in pictures.split(256)]).numpy()


def scores(state: dict[str, Tensor]) -> dict[str, float]:
    """Frozen probes with 20 examples a class on the development sets, beside the same network with random weights."""
    found = {}
    torch.manual_seed(0)
    untrained, taught = network(), network()
    taught.load_state_dict(state)
    for words, make in (("letters of unseen scripts", held_out.letters), ("unseen pen strokes", held_out.programmes)):
        pictures, labels = make(96)
        found[f"probe, {words}"] = round(probe(features(taught, pictures), labels), 4)
        found[f"probe, {words}, random weights"] = round(probe(features(untrained, pictures), labels), 4)
    return found


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
        "arguments": _arguments(training.settings),
        "scores": scores(training.averages("backbone.")),
        **training.facts(),
    }


def _arguments(settings: Settings) -> list[str]:
    """The command line that repeats the run, wherever its folder lies."""
    given = {"seed": settings.seed, "minutes": settings.minutes, "steps": settings.steps, "lr": settings.lr}
    return [part for name, value in given.items() if value is not None for part in (f"--{name}", f"{value:g}")]


if __name__ == "__main__":
    main()
