"""Development sets of our own: letters of scripts, and pen programmes, that no backbone is taught.

Shapes: N pictures, S side.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pretraining.drawing import glyphs, paint, pool

EACH = 40  # pictures of a class
SEED = 1_000_003  # apart from every pool's


def letters(side: int) -> tuple[Tensor, np.ndarray]:
    """Georgian, Cherokee and Lao letters in every font that has them, bent and coarse: (N, 3, S, S) in [0, 1]."""
    found, labels = pool.stacked(glyphs.draw_all(glyphs.characters(glyphs.HELD_OUT)))
    rng = np.random.default_rng(SEED)
    rows = np.concatenate([rng.choice(np.flatnonzero(labels == label), EACH) for label in np.unique(labels)])
    return _written(found[rows], "glyphs", side), labels[rows]


def programmes(side: int) -> tuple[Tensor, np.ndarray]:
    """Forty new pen programmes, executed forty times: (N, 3, S, S) in [0, 1]."""
    found, labels = pool.stacked(pool.examples("strokes", SEED, pool.Amount(40, EACH)))
    return _written(found, "strokes", side), labels


def _written(masks: np.ndarray, name: str, side: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        warped = paint.warp(torch.from_numpy(masks).float() / 255, paint.WARPS[name], side)
        return paint.coarse(paint.ink(warped, torch.full((len(warped), 3, side, side), 0.5), plain=1.0), 0.7)
