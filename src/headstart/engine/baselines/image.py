"""Pictures: what can be seen without looking closely, an 8x8 thumbnail, and how bright, varied and coloured it is.

Shapes: N rows, h and w of a canvas, C channels, F features, K classes.
"""

from __future__ import annotations

import numpy as np

from headstart.engine.streams import Examples
from headstart.stages.solver import solve_path

NAME = "pixels"
GRID = 8  # cells of the thumbnail, each way
LEVELS = 8  # bins of a channel's histogram
SEEN = 64  # about so many pixels are looked at, each way


def answers(train: Examples, val: Examples, num_classes: int, rows: np.ndarray) -> np.ndarray:
    """Logits (N, K) on the validation rows of logistic regression; its strength is chosen on them, as a probe's is."""
    seen = features(train, rows), features(val, np.arange(len(val)))
    path = solve_path(seen[0], train.rows.labels[rows], seen[1], val.rows.labels, num_classes)
    return path.held_out_logits.numpy()


def features(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """(N, F) float32 of these rows of the examples."""
    return np.stack([look(examples.store[int(row)]) for row in rows])


def look(canvas: np.ndarray) -> np.ndarray:
    """(h, w, C) uint8 -> (F,) float32 in 0..1: thumbnail, and mean, spread and histogram of every channel."""
    height, width, channels = canvas.shape
    seen = canvas[:: max(1, height // SEEN), :: max(1, width // SEEN)]
    height, width = seen.shape[:2]
    down, across = _cells(height), _cells(width)
    sums = np.add.reduceat(np.add.reduceat(seen, down, axis=0, dtype=np.float32), across, axis=1)
    areas = np.outer(np.diff(down, append=height).clip(1), np.diff(across, append=width).clip(1))
    flat = seen.reshape(-1, channels)
    bins = (flat.astype(np.int64) * LEVELS) // 256 + np.arange(channels) * LEVELS
    histogram = np.bincount(bins.ravel(), minlength=channels * LEVELS) / len(flat)
    moments = np.concatenate([flat.mean(0), flat.std(0)])
    return np.concatenate([(sums / areas[:, :, None]).ravel() / 255, moments / 255, histogram]).astype(np.float32)


def _cells(length: int) -> np.ndarray:
    """Where the cells of the thumbnail begin; a side shorter than the grid repeats its pixels."""
    return np.arange(GRID) * length // GRID
