"""Near duplicates among many recordings: small spectrograms, compared where they are alike as a whole.

Shapes: N rows, P pairs, E numbers of an outline.
"""

from __future__ import annotations

import numpy as np

LIMIT = 100_000  # rows; the cost grows with the square
LOUD = (
    60  # steps of a sketch (30 dB) below its loudest place; what is softer is lost in MP3 and noise, and not compared
)
LEAST = 0.985  # correlation of the spectrograms: other takes of one word reach .976, copies as OGG .997, as MP3 .986
FLAT = 2.0  # contrast below which a sketch (silence) tells nothing
BLOCK = 512


def near(sketches: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Near pairs (P, 2), each row with the earlier one it is most like, their correlation (P,), and the least asked."""
    flat = sketches.reshape(len(sketches), -1).astype(np.float32)
    flat = np.maximum(flat, flat.max(axis=1, keepdims=True) - LOUD)
    told = np.flatnonzero(flat.std(axis=1) >= FLAT)
    outlines = flat[told] - flat[told].mean(axis=1, keepdims=True)
    outlines /= np.maximum(np.linalg.norm(outlines, axis=1, keepdims=True), 1e-6)
    pairs, scores = [], []
    for start in range(0, len(told), BLOCK):
        part = outlines[start : start + BLOCK] @ outlines[: start + BLOCK].T
        part[np.arange(start, start + len(part))[:, None] <= np.arange(part.shape[1])[None]] = -1.0  # earlier rows only
        best = part.argmax(axis=1)
        score = part[np.arange(len(part)), best]
        for row in np.flatnonzero(score >= LEAST):
            pairs.append((told[best[row]], told[start + row]))
            scores.append(float(score[row]))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(scores), LEAST
