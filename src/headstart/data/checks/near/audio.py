"""Near duplicates among many recordings: small spectrograms that are alike as a whole, and in how they move.

Sounds that hardly move, of one machine or of rain, are alike as a whole without being copies: what is left of them
without each band's mean tells. Shapes: N rows, P pairs, G bands, M moments.
"""

from __future__ import annotations

import numpy as np

LIMIT = 100_000  # rows; the cost grows with the square
LOUD = 80  # steps of a sketch (40 dB) below its loudest place; what is softer is lost in noise, and not compared
LEAST = 0.985  # correlation of the spectrograms: other takes of one word reach .976, copies as OGG .992
MOVES = 0.85  # correlation without the bands' means: other recordings of one machine reach .2, copies as OGG .9
FLAT = 2.0  # contrast below which a sketch (silence) tells nothing
BLOCK = 512


def near(sketches: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Near pairs (P, 2), each row with the earlier one it is most like, their correlation (P,), and the least asked."""
    levels = sketches.astype(np.float32)  # (N, G, M)
    levels = np.maximum(levels, levels.max(axis=(1, 2), keepdims=True) - LOUD)
    told = np.flatnonzero(levels.std(axis=(1, 2)) >= FLAT)
    whole = _outlines(levels[told])
    moving = _outlines(levels[told] - levels[told].mean(axis=2, keepdims=True))
    pairs, scores = [], []
    for start in range(0, len(told), BLOCK):
        alike = whole[start : start + BLOCK] @ whole[: start + BLOCK].T
        earlier = np.arange(start, start + len(alike))[:, None] > np.arange(alike.shape[1])[None]
        alike[~earlier] = -1.0
        for row in np.flatnonzero((alike >= LEAST).any(axis=1)):
            others = np.flatnonzero(alike[row] >= LEAST)
            others = others[moving[others] @ moving[start + row] >= MOVES]
            if len(others):
                best = others[alike[row, others].argmax()]
                pairs.append((told[best], told[start + row]))
                scores.append(float(alike[row, best]))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(scores), LEAST


def _outlines(levels: np.ndarray) -> np.ndarray:
    """(N, G, M) as rows (N, G M) of mean 0 and length 1, whose products are correlations."""
    flat = levels.reshape(len(levels), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))
