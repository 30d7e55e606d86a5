"""Closed outlines: radial contours (Kataoka et al. 2022) and visual atoms (Takashima et al. 2023), as lines or filled.

A class is how many corners or waves the outline has, how deep they are and how often it is nested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 96  # pixels


@dataclass(frozen=True)
class Outline:
    """Corners of the polygon underneath (0: a circle), waves upon it, nesting, and how elongated it is."""

    corners: int
    waves: tuple[int, int]
    depth: tuple[float, float]
    nested: int
    aspect: float
    filled: bool


def outline(rng: np.random.Generator) -> Outline:
    """A random class."""
    first, second = rng.integers(1, 13, 2)
    return Outline(
        corners=int(rng.choice([0, 0, 3, 4, 5, 6, 8])),
        waves=(int(first), int(second)),
        depth=(float(rng.uniform(0, 0.45)), float(rng.uniform(0, 0.3))),
        nested=int(rng.choice([1, 1, 2, 4, 8])),
        aspect=float(rng.uniform(0.5, 1)),
        filled=bool(rng.random() < 0.5),
    )


def draw(kind: Outline, rng: np.random.Generator) -> np.ndarray:
    """One of its pictures: (SIDE, SIDE) uint8."""
    scale = 2 * SIDE
    picture = Image.new("L", (scale, scale))
    pen = ImageDraw.Draw(picture)
    angles = np.linspace(0, 2 * np.pi, 181)
    radius = np.ones_like(angles)
    if kind.corners:
        sector = np.pi / kind.corners
        radius = np.cos(sector) / np.cos(np.mod(angles, 2 * sector) - sector)
    phases = rng.uniform(0, 2 * np.pi, 2)
    for waves, depth, phase in zip(kind.waves, kind.depth, phases, strict=True):
        radius = radius * (1 + depth * rng.uniform(0.8, 1.2) * np.sin(waves * angles + phase))
    radius = radius / np.abs(radius).max()
    turned = angles + rng.uniform(0, 2 * np.pi)
    shape = np.stack([radius * np.cos(turned), kind.aspect * radius * np.sin(turned)], 1)
    width = int(rng.integers(2, 7))
    drift = rng.normal(0, 0.03, 2)
    for level in range(kind.nested):
        size = 0.46 * (1 - level / (kind.nested + 0.5))
        path = [tuple(point) for point in (shape * size + 0.5 + drift * level) * scale]
        shade = int(255 * (1 - 0.8 * level / kind.nested)) if level % 2 == 0 else int(rng.integers(30, 120))
        if kind.filled:
            pen.polygon(path, fill=shade)
        else:
            pen.line(path, fill=int(rng.integers(150, 256)), width=width, joint="curve")
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
