"""From the pool to training pictures, batched in torch: warping, colours, backgrounds, blur and coarse pixels.

Everything is drawn from torch's generator, which the run seeds by its step. Shapes: B pictures, S side of the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE = (8, 10, 12, 16, 20, 28)  # sides, in pixels, of the low-resolution pictures that are blown up again


@dataclass(frozen=True)
class Warp:
    """Ranges of the distortion of one source. ``area``: the share of the picture seen (above 1: it gets smaller)."""

    area: tuple[float, float] = (0.25, 1.3)
    turn: float = 15.0  # degrees, to either side
    stretch: float = 0.25  # largest change of the aspect ratio, in natural logarithms
    shear: float = 0.1
    wobble: float = 0.0  # elastic: standard deviation of the displacement, in shares of the picture
    mirror: bool = True
    edges: str = "zeros"


WARPS = {
    "glyphs": Warp(area=(0.8, 1.8), stretch=0.3, shear=0.15, wobble=0.035, mirror=False),
    "strokes": Warp(area=(0.7, 1.6), stretch=0.3, shear=0.15, wobble=0.025, mirror=False),
    "fractals": Warp(area=(0.5, 1.3), turn=20, wobble=0.01),
    "contours": Warp(area=(0.6, 1.5), turn=60, wobble=0.01),
    "textures": Warp(area=(0.3, 0.9), turn=30, edges="reflection"),
    "clip_art": Warp(area=(0.4, 1.3), wobble=0.01),
    "photographs": Warp(area=(0.2, 0.8), turn=10, edges="reflection"),
}


def warp(pictures: Tensor, how: Warp, side: int) -> Tensor:
    """Resample (B, C, H, W) through a random map each: (B, C, side, side)."""
    count = len(pictures)
    zoom = uniform(count, *how.area).sqrt()
    angle = uniform(count, -how.turn, how.turn).deg2rad()
    stretch = uniform(count, -how.stretch, how.stretch).div(2).exp()
    mirror = torch.ones(count)
    if how.mirror:
        mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0] = zoom * stretch * mirror * angle.cos()
    maps[:, 0, 1] = -zoom / stretch * angle.sin() + uniform(count, -how.shear, how.shear)
    maps[:, 1, 0] = zoom * stretch * mirror * angle.sin()
    maps[:, 1, 1] = zoom / stretch * angle.cos()
    maps[:, :, 2] = (1 - zoom).abs()[:, None] * uniform(2 * count, -1, 1).view(count, 2)
    grid = F.affine_grid(maps, [count, 1, side, side], align_corners=False)
    if how.wobble:
        strength = 2 * how.wobble * torch.rand(count, 1, 1, 1)
        field = F.interpolate(torch.randn(count, 2, 5, 5) * strength, (side, side), mode="bilinear", align_corners=True)
        grid = grid + field.permute(0, 2, 3, 1)
    return F.grid_sample(pictures, grid, padding_mode=how.edges, align_corners=False)


def ink(masks: Tensor, backgrounds: Tensor, plain: float) -> Tensor:
    """Ink (B, 1, S, S) in a colour or a texture upon another: (B, 3, S, S); ``plain``: share in grey on grey."""
    count = len(masks)
    front, back = torch.rand(count, 3, 1, 1), torch.rand(count, 3, 1, 1)
    grey = torch.rand(count, 1, 1, 1) < plain
    dark, light = uniform(count, 0, 0.25).view(-1, 1, 1, 1), uniform(count, 0.7, 1).view(-1, 1, 1, 1)
    written = torch.rand(count, 1, 1, 1) < 0.65  # light on dark, as most scanned sets have it
    front = torch.where(grey, torch.where(written, light, dark), front)
    back = torch.where(grey, torch.where(written, dark, light), back)
    near = (front - back).abs().mean(1, keepdim=True) < 0.25
    front = torch.where(near, (back + 0.5) % 1, front)
    front, back = front.expand_as(backgrounds), back.expand_as(backgrounds)
    textured = torch.rand(count, 1, 1, 1)
    back = torch.where(~grey & (textured < 0.2), backgrounds, back)
    front = torch.where(~grey & (textured > 0.9), backgrounds.roll(1, 0), front)
    return back + masks * (front - back)


def heat(density: Tensor, backgrounds: Tensor) -> Tensor:
    """A density (B, 1, S, S) through a random scale of three colours, upon black, a colour or a texture."""
    count = len(density)
    stops = torch.rand(count, 3, 3, 1, 1)
    low = (2 * density).clamp(0, 1)
    high = (2 * density - 1).clamp(0, 1)
    colours = stops[:, 0] + low * (stops[:, 1] - stops[:, 0]) + high * (stops[:, 2] - stops[:, 1])
    kind = torch.rand(count, 1, 1, 1)
    flat = torch.where(kind < 0.5, torch.zeros(()), torch.rand(count, 3, 1, 1)).expand_as(backgrounds)
    back = torch.where(kind > 0.85, backgrounds, flat)
    return back + (4 * density).clamp(0, 1) * (colours - back)


def lay(pictures: Tensor, backgrounds: Tensor) -> Tensor:
    """Colour and opacity (B, 4, S, S) upon white, a colour or a texture: (B, 3, S, S)."""
    count = len(pictures)
    kind = torch.rand(count, 1, 1, 1)
    flat = torch.where(kind < 0.6, torch.ones(()), torch.rand(count, 3, 1, 1)).expand_as(backgrounds)
    back = torch.where(kind > 0.85, backgrounds, flat)
    return back + pictures[:, 3:] * (pictures[:, :3] - back)


def light(pictures: Tensor, strength: float = 0.6, grey: float = 0.1) -> Tensor:
    """Brightness, contrast, gamma, a mixing of the channels, and (a share ``grey``) no colour at all."""
    count = len(pictures)
    weights = torch.tensor([0.3, 0.59, 0.11]).expand(3, 3)
    saturation = torch.where(torch.rand(count) < grey, 0.0, uniform(count, 1 - 0.6 * strength, 1 + 0.4 * strength))
    mixing = torch.eye(3) + 0.12 * strength * torch.randn(count, 3, 3)
    mixing = saturation[:, None, None] * mixing + (1 - saturation[:, None, None]) * weights
    contrast = uniform(count, -0.5 * strength, 0.4 * strength).exp()[:, None]
    shift = uniform(count, -0.15 * strength, 0.15 * strength)[:, None]
    flat = torch.baddbmm((shift + 0.5 * (1 - contrast))[:, :, None], mixing * contrast[:, :, None], pictures.flatten(2))
    return flat.view_as(pictures).clamp(0, 1)


def coarse(pictures: Tensor, share: float) -> Tensor:
    """Shrink a random ``share`` to a few pixels and blow it up again, as small scans look when they are resized."""
    chosen = torch.nonzero(torch.rand(len(pictures)) < share).flatten()
    for part in chosen.chunk(2):
        if len(part):
            small = COARSE[int(torch.randint(len(COARSE), ()))]
            shrunk = F.interpolate(pictures[part], (small, small), mode="area")
            pictures[part] = F.interpolate(shrunk, pictures.shape[2:], mode="bilinear", align_corners=False)
    return pictures


def spoil(pictures: Tensor, share: float = 0.1) -> Tensor:
    """Blur one part, add noise to another, and cover a rectangle of a third."""
    count, side = len(pictures), pictures.shape[-1]
    fate = torch.rand(count)
    blurred, noisy = fate < share / 2, fate > 1 - share / 2
    if blurred.any():
        pictures[blurred] = F.avg_pool2d(pictures[blurred], 3, stride=1, padding=1, count_include_pad=False)
    if noisy.any():
        part = pictures[noisy]
        pictures[noisy] = (part + 0.08 * torch.rand(len(part), 1, 1, 1) * torch.randn_like(part)).clamp(0, 1)
    for row in torch.nonzero(torch.rand(count) < share).flatten().tolist():
        height, width = (int(value) for value in torch.randint(side // 8, side // 3, (2,)))
        top, left = int(torch.randint(side - height, ())), int(torch.randint(side - width, ()))
        pictures[row, :, top : top + height, left : left + width] = torch.rand(3, 1, 1)
    return pictures


def uniform(count: int, low: float, high: float) -> Tensor:
    """(count,) numbers in [low, high)."""
    return low + (high - low) * torch.rand(count)
