"""Baselines that need no backbone: they show whether transfer helps at all.

"majority" answers the training rows' class frequencies; "pixels" is logistic regression on what can be seen without
looking closely: an 8x8 thumbnail, and how bright, how varied and how coloured the picture is.

Shapes: N rows, h and w of a canvas, C channels, F features, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.engine.streams import Examples
from headstart.measure.evaluation import Evaluation
from headstart.stages.solver import solve_path

GRID = 8  # cells of the thumbnail, each way
LEVELS = 8  # bins of a channel's histogram
SEEN = 64  # about so many pixels are looked at, each way
MOST_ROWS = 5_000  # training rows beyond these change such a model little


@dataclass(frozen=True)
class Baseline:
    """What it answered on the validation rows, and the seconds it took."""

    name: str
    evaluation: Evaluation
    seconds: float


def baselines(train: Examples, val: Examples, classes: Sequence[str]) -> list[Baseline]:
    """Majority and pixels, in this order; the latter's strength is chosen on the validation rows, as a probe's is."""
    return [_timed("majority", _majority, train, val, classes), _timed("pixels", _pixels, train, val, classes)]


def _timed(name: str, answer: Any, train: Examples, val: Examples, classes: Sequence[str]) -> Baseline:
    started = time.monotonic()
    logits = answer(train, val, len(classes))
    evaluation = Evaluation("val", np.arange(len(val)), logits, val.rows.labels, tuple(classes))
    return Baseline(name, evaluation, time.monotonic() - started)


def _majority(train: Examples, val: Examples, num_classes: int) -> np.ndarray:
    counts = np.bincount(train.rows.labels, minlength=num_classes)
    return np.tile(np.log(counts + 0.5), (len(val), 1))  # half a row: a class not seen is not impossible


def _pixels(train: Examples, val: Examples, num_classes: int) -> np.ndarray:
    rows = _sample(train.rows.labels)
    path = solve_path(
        features(train, rows),
        train.rows.labels[rows],
        features(val, np.arange(len(val))),
        val.rows.labels,
        num_classes,
    )
    return path.held_out_logits.numpy()


def _sample(labels: np.ndarray) -> np.ndarray:
    """All rows, or the same share of every class (one row at least) where there are many."""
    share = min(1.0, MOST_ROWS / len(labels))
    rng = np.random.default_rng(0)
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(rng.permutation(rows)[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen))


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
