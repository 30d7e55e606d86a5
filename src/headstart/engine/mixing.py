"""Mixup and CutMix of a batch, every choice a pure function of (seed, stage, step).

mixup: Zhang et al. 2018 (arXiv 1710.09412). CutMix: Yun et al. 2019 (arXiv 1905.04899). Pixels and targets as
torchvision.transforms.v2 computes them: row i is mixed with row i - 1, one lambda for the batch.

Shapes: B rows, C channels, H x W pixels, K classes. Mix the whole effective batch, before it is split into
micro-batches: then the split changes nothing. Inputs may be uint8 (before the model's normalisation, rounded to the
nearest grey level) or float (after it). Both agree up to that rounding, because normalisation is affine and the two
shares add up to 1; the batch's mean stays what it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from headstart.core import keyed
from headstart.core.errors import ConfigError


@dataclass(frozen=True)
class Draw:
    """What happens to one batch: ``kind`` is "none", "mixup" or "cutmix"; ``lam`` is the share of a row's own class.

    ``box`` is (top, bottom, left, right), the pixels that CutMix takes from the other row.
    """

    kind: str = "none"
    lam: float = 1.0
    box: tuple[int, int, int, int] = (0, 0, 0, 0)


def cut(lam: float, height: int, width: int, centre: tuple[int, int]) -> tuple[float, tuple[int, int, int, int]]:
    """The box of area 1 - ``lam`` around a centre, clipped at the border, and lambda as the area then really is."""
    half = 0.5 * math.sqrt(1.0 - lam)
    half_height, half_width = int(half * height), int(half * width)
    row, column = centre
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    return 1.0 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right)


def apply(drawn: Draw, inputs: torch.Tensor, targets: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mixed inputs (B, C, H, W), dtype and layout as they came, and soft targets (B, K) float32.

    A batch that is not mixed comes back as it is, its targets too. What is given is never written to.
    """
    if drawn.kind == "none":
        return inputs, targets
    soft = functional.one_hot(targets, classes).float() if targets.ndim == 1 else targets.float()
    mixed_targets = soft.roll(1, 0).mul_(1.0 - drawn.lam).add_(soft * drawn.lam)
    if drawn.kind == "cutmix":
        top, bottom, left, right = drawn.box
        mixed = inputs.clone()
        mixed[..., top:bottom, left:right] = _neighbours(inputs)[..., top:bottom, left:right]
        return mixed, mixed_targets
    values = inputs if inputs.is_floating_point() else inputs.float()
    mixed = _neighbours(values).mul_(1.0 - drawn.lam).add_(values * drawn.lam)
    return (mixed if inputs.is_floating_point() else mixed.round_().to(inputs.dtype)), mixed_targets


def _neighbours(values: torch.Tensor) -> torch.Tensor:
    """A copy in which row i holds row i - 1; unlike ``roll``, it keeps a channels-last layout."""
    return torch.cat([values[-1:], values[:-1]])


@dataclass(frozen=True)
class Mixer:
    """Mixes batches. ``mixup`` and ``cutmix`` are the alphas of lambda's Beta law (0: never), ``probability`` the share
    of batches that are mixed; where both are on, each gets half of them.

    Raises:
        ConfigError: a number is out of range.
    """

    mixup: float
    cutmix: float
    probability: float
    classes: int

    def __post_init__(self) -> None:
        if self.mixup < 0 or self.cutmix < 0:
            raise ConfigError("alphas must not be negative", where="mixup, cutmix")
        if not 0 <= self.probability <= 1:
            raise ConfigError("must lie in [0, 1]", where="mix_probability")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Draw:
        """Choose kind, lambda and box of one batch."""
        if (self.mixup == 0 and self.cutmix == 0) or rng.random() >= self.probability:
            return Draw()
        both = self.mixup > 0 and self.cutmix > 0
        if rng.random() < (0.5 if both else float(self.cutmix > 0)):
            lam = float(rng.beta(self.cutmix, self.cutmix))
            return Draw("cutmix", *cut(lam, height, width, (int(rng.integers(height)), int(rng.integers(width)))))
        return Draw("mixup", float(rng.beta(self.mixup, self.mixup)))

    def __call__(
        self, inputs: torch.Tensor, targets: torch.Tensor, key: tuple[keyed.KeyPart, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix the batch of this key (seed, stage, update): see ``apply``. Ranks share the draw, each mixes its rows."""
        seed, *rest = key
        height, width = inputs.shape[-2:]
        return apply(self.draw(height, width, keyed.generator(seed, "mixing", *rest)), inputs, targets, self.classes)
