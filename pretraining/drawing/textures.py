"""Textures in colour: gratings, coloured noise, dead leaves, cells and tilings. A class is a kind with its numbers.

Dead leaves and noise with a falling spectrum share the statistics of photographs (Lee, Mumford & Huang 2001; Baradad et
al. 2021, Learning to See by Looking at Noise).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128  # pixels
KINDS = ("grating", "noise", "leaves", "cells", "tiling")


@dataclass(frozen=True)
class Texture:
    """Numbers in [0, 1] that each kind reads in its own way."""

    kind: str
    size: float
    shape: float
    order: float


def texture(rng: np.random.Generator) -> Texture:
    """A random class."""
    return Texture(str(rng.choice(KINDS)), *(float(value) for value in rng.random(3)))


def draw(kind: Texture, rng: np.random.Generator) -> np.ndarray:
    """One of its pictures, in random colours: (SIDE, SIDE, 3) uint8."""
    return DRAWN[kind.kind](kind, rng)


def grating(kind: Texture, rng: np.random.Generator) -> np.ndarray:
    """Bars, one or two across each other, from smooth to sharp."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    frequency = 3 * 10**kind.size
    angle = rng.uniform(0, np.pi)
    wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 6))
    if kind.shape > 0.4:
        across = angle + np.pi * (0.2 + 0.3 * kind.shape)
        other = np.sin(2 * np.pi * frequency * (x * np.cos(across) + y * np.sin(across)))
        wave = wave * other if kind.shape > 0.7 else (wave + other) / 2
    return coloured(0.5 + 0.5 * np.tanh(wave * (0.5 + 6 * kind.order**2)), rng)


def noise(kind: Texture, rng: np.random.Generator) -> np.ndarray:
    """Noise with a spectrum 1/f^a, stretched along one direction; channels partly share it."""
    exponent = 0.6 + 2.0 * kind.size
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    angle, stretch = rng.uniform(0, np.pi), 1 + 5 * kind.shape**2
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    spectrum = np.maximum(np.hypot(along * stretch, across), 1 / SIDE) ** -exponent
    fields = np.fft.irfft2(spectrum * np.fft.rfft2(rng.normal(size=(4, SIDE, SIDE))), s=(SIDE, SIDE))
    fields = (fields - fields.mean((1, 2), keepdims=True)) / fields.std((1, 2), keepdims=True)
    if kind.order > 0.6:
        return coloured(1 / (1 + np.exp(-(2 + 10 * kind.order) * fields[0])), rng)
    mixed = 0.8 * fields[:1] + 0.6 * fields[1:]
    levels = rng.uniform(0.2, 0.8, (3, 1, 1)) + rng.uniform(0.08, 0.3) * mixed
    return pixels(levels.transpose(1, 2, 0))


def leaves(kind: Texture, rng: np.random.Generator) -> np.ndarray:
    """Opaque discs, ellipses or polygons of many sizes on top of each other, with shading."""
    picture = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(picture)
    palette = rng.integers(0, 256, (int(rng.integers(3, 12)), 3))
    corners = int(3 + 6 * kind.shape)
    for _ in range(160):
        radius = SIDE * min(0.02 * (0.2 + kind.size) * rng.random() ** -(0.5 + 0.5 * kind.order), 0.5)
        x, y = rng.uniform(-5, SIDE + 5, 2)
        colour = tuple(int(c) for c in np.clip(palette[rng.integers(len(palette))] + rng.normal(0, 15, 3), 0, 255))
        if corners > 7:
            flat = radius * rng.uniform(0.4, 1)
            pen.ellipse((x - radius, y - flat, x + radius, y + flat), fill=colour)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if kind.order > 0.5 else np.arange(corners)
            angles = angles * (1 if kind.order > 0.5 else 2 * np.pi / corners) + rng.uniform(0, 6)
            pen.polygon([(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles], fill=colour)
    return np.asarray(picture)


def cells(kind: Texture, rng: np.random.Generator) -> np.ndarray:
    """Distances to random points (Worley 1996): stones, membranes or bubbles."""
    count = int(12 * 10**kind.size)
    points = rng.random((count, 2)) * SIDE
    y, x = np.mgrid[:SIDE:2, :SIDE:2]
    squared = (x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2
    near = np.sqrt(np.partition(squared, 1, axis=2)[..., :2]) / (SIDE / np.sqrt(count))
    first, second = near[..., 0], near[..., 1]
    value = first if kind.shape < 0.33 else second - first if kind.shape < 0.66 else first / (second + 1e-6)
    value = np.clip(value, 0, 1) ** (0.4 + 1.6 * kind.order)
    return coloured(value.repeat(2, 0).repeat(2, 1), rng)


def tiling(kind: Texture, rng: np.random.Generator) -> np.ndarray:
    """A small random patch repeated by translation, by reflection or turned (wallpaper groups)."""
    side = int(8 + 24 * kind.size)
    patch = leaves(Texture("leaves", kind.order, kind.shape, 0.3), rng)[:side, :side]
    if kind.shape > 0.66:
        patch = np.concatenate([patch, patch[:, ::-1]], 1)
        patch = np.concatenate([patch, patch[::-1]], 0)
    elif kind.shape > 0.33:
        patch = np.concatenate([patch, np.rot90(patch)], 1)
        patch = np.concatenate([patch, patch[:, ::-1]], 0)
    repeats = (SIDE // patch.shape[0] + 1, SIDE // patch.shape[1] + 1, 1)
    return np.ascontiguousarray(np.tile(patch, repeats)[:SIDE, :SIDE])


def coloured(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A field in [0, 1] through a random scale of three colours: (H, W, 3) uint8."""
    stops = rng.random((3, 3))
    place = np.clip(value, 0, 1) * 2
    low = np.minimum(place.astype(np.int64), 1)
    share = (place - low)[..., None]
    return pixels(stops[low] * (1 - share) + stops[low + 1] * share)


def pixels(picture: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)


DRAWN = {"grating": grating, "noise": noise, "leaves": leaves, "cells": cells, "tiling": tiling}
