"""Pictures: what can be seen without looking closely, an 8x8 thumbnail, and how bright, varied and coloured it is.

Shapes: N rows, h and w of a canvas, C channels, F features, K classes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from headstart.engine.baselines import Learnt, linear
from headstart.engine.streams import Examples

NAME = "pixels"
GRID = 8  # cells of the thumbnail, each way
LEVELS = 8  # bins of a channel's histogram
VALUES = 256  # of a pixel
SEEN = 64  # about so many pixels are looked at, each way

_VALUES = np.arange(VALUES, dtype=np.float64)


def learn(train: Examples, val: Examples, num_classes: int, rows: np.ndarray) -> Learnt:
    """From the training ``rows``."""
    return linear(features, train, val, num_classes, rows)


def features(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """(N, F) float32 of these rows of the examples."""
    return np.stack([look(examples.store[int(row)]) for row in rows])


def look(canvas: np.ndarray) -> np.ndarray:
    """(h, w, C) uint8 -> (F,) float32 in 0..1: thumbnail, and mean, spread and histogram of every channel."""
    height, width, channels = canvas.shape
    seen = canvas[:: max(1, height // SEEN), :: max(1, width // SEEN)]
    height, width = seen.shape[:2]
    lines = _cells(height) @ seen.reshape(height, -1).astype(np.float32)
    thumbnail = _cells(width) @ lines.reshape(GRID, width, channels)
    values = seen + np.arange(0, VALUES * channels, VALUES)  # another range of numbers for every channel
    counts = np.bincount(values.ravel(), minlength=VALUES * channels).reshape(channels, VALUES)
    shares = counts / (height * width)
    mean = shares @ _VALUES
    spread = np.sqrt((shares @ _VALUES**2 - mean**2).clip(0))
    histogram = shares.reshape(channels, LEVELS, -1).sum(2)
    seen_as = (thumbnail.ravel() / 255, mean / 255, spread / 255, histogram.ravel())
    return np.concatenate(seen_as).astype(np.float32)


@lru_cache(maxsize=256)
def _cells(length: int) -> np.ndarray:
    """(GRID, length): what takes the mean of every cell of the thumbnail; a side shorter than the grid repeats its
    pixels."""
    begins = np.arange(GRID) * length // GRID
    means = np.zeros((GRID, length), np.float32)
    for cell, (begin, end) in enumerate(zip(begins, np.append(begins[1:], length), strict=True)):
        means[cell, begin : max(end, begin + 1)] = 1 / max(end - begin, 1)
    return means
