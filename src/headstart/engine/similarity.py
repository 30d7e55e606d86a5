"""How like its pretraining data the user's pictures are to a backbone; ``plan: auto`` asks.

Two measurements on a few training pictures, without labels, each scaled so that 0.5 is the border:

- *recognition*: how much surer the source classifier is of the pictures than of the same pictures cut into tiles and
  shuffled, 1 - sure(shuffled) / sure(whole). The shuffled pictures have the same colours and textures, so how sure a
  network is in general (its size, label smoothing) cancels out. Needs the backbone's source classifier.
- *statistics*: how far the means and variances that every BatchNorm layer sees are from those it kept of its
  pretraining data, as a Kullback-Leibler divergence between Gaussians (the shift that AdaBN corrects, arXiv
  1603.04779): the median over channels, the mean over layers. Needs BatchNorm.

Measured with MobileNetV2 on ImageNet weights, 64 pictures each, as recognition, divergence and value: ants and bees
.64, .015, .78; PACS photographs .45, .006, .73; outdoor photographs (BSDS) .43, .003, .74; PACS photographs of
people, whom ImageNet hardly knows, .22, .043, .36; PACS cartoons .08, .065, .21; MNIST .10, .20, .13; photographs
blurred to 28 pixels .22, .11, .26. Recognition by SqueezeNet 1.1's own (not linear) classifier has the same order.

Shapes: N rows, C channels, H and W of a picture, S source classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.engine.streams import Examples, on_device
from headstart.models import hooks, resume
from headstart.models.backbone import Backbone

ROWS = 64
FEWEST_ROWS = 8
BATCH = 16
TILES = 4  # each way
RECOGNITION_BORDER = 0.36
STATISTICS_BORDER = 0.03
NEAR, FAR = 0.55, 0.45

Level = Literal["near", "far", "unknown"]


@dataclass(frozen=True)
class Similarity:
    """``value`` from 0 (nothing alike) to 1, None where it cannot be measured; ``facts`` are the numbers behind it."""

    value: float | None
    level: Level
    reason: str
    facts: dict[str, Any] = field(default_factory=dict)


def measure(backbone: Backbone, examples: Examples, *, rows: int = ROWS, seed: int = 0) -> Similarity:
    """Measure on ``rows`` of the examples, drawn by ``seed``: about two forward passes of each.

    The backbone is in evaluation mode meanwhile, and left as it was.
    """
    count = min(rows, len(examples))
    if backbone.origin.weights == "random":
        return Similarity(None, "unknown", "the backbone has random weights and knows nothing")
    if backbone.modality != "image":
        return Similarity(None, "unknown", "likeness is measured of pictures only")
    if count < FEWEST_ROWS:
        return Similarity(None, "unknown", f"{count} pictures are too few to say")
    order = np.sort(np.random.default_rng(seed).permutation(len(examples))[:count])
    device = next(backbone.parameters()).device
    pictures = [on_device(batch.inputs, device) for batch in examples.batches(order, batch_size=BATCH)]
    with resume.evaluating(backbone), torch.no_grad():
        scores: dict[str, float] = {}
        facts: dict[str, Any] = {"rows": count}
        with observed(backbone) as divergence:
            whole = [backbone.features(batch) for batch in pictures]
        shift = divergence()
        if shift is not None:
            scores["statistics"] = STATISTICS_BORDER / (STATISTICS_BORDER + shift)
            facts["statistics_shift"] = round(shift, 4)
        if backbone.source_head is not None:
            generator = torch.Generator().manual_seed(seed)
            cut = [backbone.features(shuffled(batch, generator)) for batch in pictures]
            sure, sure_of_tiles = (_certainty(backbone.source_head, features) for features in (whole, cut))
            lift = 1 - sure_of_tiles / sure
            scores["recognition"] = min(1.0, max(0.0, 0.5 * lift / RECOGNITION_BORDER))
            facts |= {"certainty": round(sure, 3), "certainty_shuffled": round(sure_of_tiles, 3)}
    return _judged(scores, facts)


def _judged(scores: dict[str, float], facts: dict[str, Any]) -> Similarity:
    if not scores:
        return Similarity(
            None, "unknown", "the backbone has neither its source classifier nor BatchNorm statistics", facts
        )
    value = sum(scores.values()) / len(scores)
    level: Level = "near" if value >= NEAR else "far" if value <= FAR else "unknown"
    said = {"near": "like", "far": "unlike", "unknown": "neither like nor unlike"}[level]
    reasons = []
    if "recognition" in scores:
        reasons.append(
            f"its source classifier is {facts['certainty'] / facts['certainty_shuffled']:.1f} times as sure of them "
            f"as of the same pictures in shuffled tiles"
        )
    if "statistics" in scores:
        reasons.append(f"its layers' statistics are off by {facts['statistics_shift']:g} (up to 0.03 is usual)")
    facts |= {"value": round(value, 3), **{name: round(score, 3) for name, score in scores.items()}}
    return Similarity(
        value, level, f"the pictures are {said} what the backbone was trained on: {'; '.join(reasons)}", facts
    )


def _certainty(head: Callable[[torch.Tensor], torch.Tensor], features: list[torch.Tensor]) -> float:
    """The mean of the highest probability among the S source classes."""
    return float(torch.cat([head(batch).float().softmax(1).amax(1) for batch in features]).mean())


def shuffled(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(N, C, H, W) with TILES x TILES tiles of every picture in another order; a remainder at the edge is cut off."""
    rows, channels, height, width = pictures.shape
    high, wide = height // TILES, width // TILES
    tiles = pictures[:, :, : high * TILES, : wide * TILES].reshape(rows, channels, TILES, high, TILES, wide)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(rows, TILES**2, channels, high, wide)
    orders = torch.stack([torch.randperm(TILES**2, generator=generator) for _ in range(rows)]).to(pictures.device)
    mixed = tiles[torch.arange(rows, device=pictures.device)[:, None], orders]
    mixed = mixed.reshape(rows, TILES, TILES, channels, high, wide).permute(0, 3, 1, 4, 2, 5)
    mixed = mixed.reshape(rows, channels, high * TILES, wide * TILES)
    if mixed.shape == pictures.shape:
        return mixed
    return nn.functional.pad(mixed, (0, width - wide * TILES, 0, height - high * TILES))


@contextmanager
def observed(module: nn.Module) -> Iterator[Callable[[], float | None]]:
    """Collect what every BatchNorm layer sees; the function given says how far it is from what the layer expects."""
    sums: dict[_BatchNorm, torch.Tensor] = {}  # (3, channels): count, sum, sum of squares

    def watch(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        seen = inputs[0].detach().float().transpose(0, 1).flatten(1)
        entry = torch.stack([torch.full_like(seen[:, 0], seen.shape[1]), seen.sum(1), seen.square().sum(1)]).double()
        sums[layer] = sums[layer] + entry if layer in sums else entry

    layers = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]

    def divergence() -> float | None:
        shifts = [_divergence(layer, *entry) for layer, entry in sums.items()]
        return float(np.mean(shifts)) if shifts else None

    with hooks.attached(layer.register_forward_pre_hook(watch) for layer in layers):
        yield divergence


def _divergence(layer: _BatchNorm, count: torch.Tensor, total: torch.Tensor, squares: torch.Tensor) -> float:
    """The median over channels of KL(seen || kept), both as Gaussians."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean = total / count
    variance = (squares / count - mean**2).clamp_min(0) + layer.eps
    kept = layer.running_var.double() + layer.eps
    ratio = variance / kept
    shift = (mean - layer.running_mean.double()) ** 2 / kept
    return float((0.5 * (ratio - 1 - ratio.log() + shift)).median())
