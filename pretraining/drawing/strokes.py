"""Made-up handwriting: a class is a programme of pen strokes, an example is one shaky execution of it.

After the idea of Lake, Salakhutdinov & Tenenbaum 2015 (Human-level concept learning through probabilistic program
induction); the programmes are random, so none is a digit by intent.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64  # pixels


def programme(rng: np.random.Generator) -> list[np.ndarray]:
    """One to three strokes of 2 to 6 control points in [-1, 1]²; later strokes often begin on an earlier one."""
    strokes: list[np.ndarray] = []
    for _ in range(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2])):
        points = rng.integers(2, 7) if not strokes else rng.integers(2, 5)
        stroke = np.cumsum(rng.normal(0, 0.75, (points, 2)), axis=0)
        if strokes and rng.random() < 0.7:
            earlier = strokes[rng.integers(len(strokes))]
            stroke += earlier[rng.integers(len(earlier))] - stroke[0]
        if points > 3 and rng.random() < 0.25:
            stroke[-1] = stroke[0]  # a loop
        strokes.append(stroke)
    everything = np.concatenate(strokes)
    low, high = everything.min(0), everything.max(0)
    return [(stroke - (low + high) / 2) / max((high - low).max() / 2, 1e-3) for stroke in strokes]


def draw(strokes: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One execution, ink 255: (SIDE, SIDE) uint8. Points, slant, size and the pen differ each time."""
    scale = 2 * SIDE
    picture = Image.new("L", (scale, scale))
    pen = ImageDraw.Draw(picture)
    width = int(rng.integers(3, 13))
    slant = np.eye(2) + rng.normal(0, 0.14, (2, 2))
    for stroke in strokes:
        shaky = (stroke + rng.normal(0, 0.09, stroke.shape)) @ slant
        path = (curve(shaky, 8) * 0.36 + 0.5) * scale
        pen.line([tuple(point) for point in path], fill=255, width=width, joint="curve")
        for x, y in (path[0], path[-1]):
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def curve(points: np.ndarray, pieces: int) -> np.ndarray:
    """A Catmull-Rom curve through (N, 2) points, ``pieces`` steps between neighbours: (M, 2)."""
    if len(points) < 3:
        return points
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, start, end, after = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = np.linspace(0, 1, pieces, endpoint=False)[None, :, None]
    slope = end - before
    bend = 2 * before - 5 * start + 4 * end - after
    twist = 3 * start - before - 3 * end + after
    path = 0.5 * (2 * start + slope * t + bend * t**2 + twist * t**3)
    return np.concatenate([path.reshape(-1, 2), points[-1:]])
