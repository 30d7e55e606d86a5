"""The pictures of every source, rendered once into memory-mapped files of a run's folder; the same seed, the same pool.

Shapes: N pictures, C channels (1: ink, 3: colour, 4: colour and opacity), S side, K classes, W words.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import manifest
from pretraining.drawing import contours, fractals, glyphs, pictures, strokes, textures


@dataclass(frozen=True)
class Source:
    """Pictures (N, C, S, S) uint8, their classes (N,), and for named pictures their words (K, W)."""

    name: str
    pictures: np.ndarray
    labels: np.ndarray
    classes: int
    words: np.ndarray | None = None


@dataclass(frozen=True)
class Amount:
    """How many classes a generator draws, and how many pictures of each."""

    classes: int
    each: int


AMOUNTS = {
    "strokes": Amount(300, 40),
    "fractals": Amount(150, 24),
    "contours": Amount(150, 24),
    "textures": Amount(100, 40),
}
DRAWERS: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "strokes": (strokes.programme, strokes.draw),
    "fractals": (fractals.system, fractals.draw),
    "contours": (contours.outline, contours.draw),
    "textures": (textures.texture, textures.draw),
}
NAMES = ("glyphs", *DRAWERS, "clip_art", "photographs")


def source(name: str, folder: Path, seed: int, amount: Amount | None = None) -> Source:
    """The source from the folder's cache, which is made where it is missing."""
    place = folder / f"{name}-{seed}"
    if not manifest.is_sealed(place):
        unfinished = folder / f".{place.name}-{os.getpid()}"  # another process may be drawing the same
        unfinished.mkdir(parents=True, exist_ok=True)
        found, labels, words = _drawn(name, seed, amount)
        np.save(unfinished / "pictures.npy", found)
        np.save(unfinished / "labels.npy", labels)
        if words is not None:
            np.save(unfinished / "words.npy", words)
        manifest.seal(unfinished)
        if manifest.is_sealed(place):
            manifest.remove(unfinished)
        else:
            manifest.remove(place)
            unfinished.rename(place)
    labels = np.load(place / "labels.npy")
    words = np.load(place / "words.npy") if (place / "words.npy").exists() else None
    return Source(name, np.load(place / "pictures.npy", mmap_mode="r"), labels, int(labels.max()) + 1, words)


def _drawn(name: str, seed: int, amount: Amount | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if name == "glyphs":
        return *stacked(glyphs.draw_all(glyphs.characters(glyphs.TAUGHT))), None
    if name == "photographs":
        return *stacked((cell, index) for index, cell in enumerate(pictures.photographs())), None
    if name == "clip_art":
        named = list(pictures.clip_art())
        found, labels = stacked((one.pixels, index) for index, one in enumerate(named))
        return found, labels, pictures.tags([one.words for one in named])[1]
    return *stacked(examples(name, seed, amount or AMOUNTS[name])), None


def examples(name: str, seed: int, amount: Amount) -> Iterable[tuple[np.ndarray, int]]:
    """Picture ``n`` of class ``k`` depends on (seed, generator, k, n) alone."""
    make, draw = DRAWERS[name]
    place = list(DRAWERS).index(name)
    for label in range(amount.classes):
        kind = make(np.random.default_rng((seed, place, label)))
        for number in range(amount.each):
            yield draw(kind, np.random.default_rng((seed, place, label, number + 1))), label


def stacked(found: Iterable[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(N, C, S, S) and (N,) from pictures (S, S) or (S, S, C)."""
    planes, labels = [], []
    for picture, label in found:
        planes.append(picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1))
        labels.append(label)
    return np.stack(planes), np.array(labels, dtype=np.int64)
