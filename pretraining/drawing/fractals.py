"""Fractals by iterated function systems, as in Kataoka et al. 2020 (Pre-training without Natural Images).

A class is a system of 2 to 6 affine maps; an example is the system with slightly other numbers.
"""

from __future__ import annotations

import numpy as np

SIDE = 96  # pixels
POINTS = 1500  # walkers of the chaos game
STEPS = 40


def system(rng: np.random.Generator) -> np.ndarray:
    """Contractions (N, 2, 3) whose picture covers at least an eighth of its square.

    The singular values are bounded as in Anderson & Farrell 2022 (Improving Fractal Pre-training), so that the system
    neither collapses nor flies apart.
    """
    while True:
        count = int(rng.integers(2, 7))
        turns, tilts = rng.uniform(0, 2 * np.pi, (2, count))
        large = rng.uniform(0.35, 0.92, count)
        small = large * rng.uniform(0.25, 1.0, count)
        flips = rng.choice([-1.0, 1.0], count)
        scales = np.zeros((count, 2, 2))
        scales[:, 0, 0], scales[:, 1, 1] = large, small * flips
        maps = np.concatenate([rotation(turns) @ scales @ rotation(tilts), rng.uniform(-1, 1, (count, 2, 1))], axis=2)
        if (draw(maps, rng, jitter=0.0) > 0).mean() > 0.125:
            return maps


def rotation(angles: np.ndarray) -> np.ndarray:
    """(N,) radians to (N, 2, 2)."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def draw(maps: np.ndarray, rng: np.random.Generator, jitter: float = 0.06) -> np.ndarray:
    """How often the walkers come by, on a logarithmic scale: (SIDE, SIDE) uint8."""
    maps = maps + jitter * rng.normal(size=maps.shape) * np.abs(maps)
    weights = np.abs(np.linalg.det(maps[:, :, :2])) + 0.02
    chosen = rng.choice(len(maps), (STEPS, POINTS), p=weights / weights.sum())
    points = np.zeros((POINTS, 2))
    seen = []
    for step in range(STEPS):
        now = maps[chosen[step]]
        points = np.einsum("pij,pj->pi", now[:, :, :2], points) + now[:, :, 2]
        points = np.clip(points, -1e3, 1e3)
        if step >= 8:
            seen.append(points)
    everything = np.concatenate(seen)
    low, high = np.quantile(everything, 0.01, axis=0), np.quantile(everything, 0.99, axis=0)
    span = max((high - low).max() * 1.1, 1e-6)
    cells = np.floor(((everything - (low + high) / 2) / span + 0.5) * SIDE).astype(np.int64)
    cells = cells[((cells >= 0) & (cells < SIDE)).all(1)]
    counts = np.bincount(cells[:, 0] * SIDE + cells[:, 1], minlength=SIDE * SIDE).reshape(SIDE, SIDE)
    density = np.log1p(counts) / max(np.log1p(counts.max()), 1e-6)
    return np.round(255 * density**0.6).astype(np.uint8)
