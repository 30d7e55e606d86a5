"""Near duplicates among many pictures, without comparing every pair in Python.

Shapes: N rows, P pairs, S = 32 the side of a sketch, E = 64 numbers of an outline.

1. *Outline*: the sketch averaged to 8x8, mean removed, length 1. Pairs whose outlines' cosine is high are found by
   blocked matrix products; a row keeps its few best (100,000 rows take about half a minute on two cores).
2. *Alignment*: one sketch is scaled and shifted (up to about 13 % and 8 %) onto the other by Gauss-Newton steps on the
   squared difference (Lucas and Kanade 1981), so that a cropped copy fits; the score is the correlation where both
   overlap. Brightness and contrast drop out.
3. *Decoys*: the same search against the sketches turned by 180 degrees, which cannot be copies, shows how alike the
   pictures of this collection are by nature (handwritten digits are very much so). The least score that at most 0.1 %
   of the decoys reach is asked of the pairs (target-decoy search, Elias and Gygi 2007).

Mirrored and turned copies are not looked for.
"""

from __future__ import annotations

import numpy as np

from headstart.core import workers

SIDE = 32
OUTLINE = 8
CANDIDATES = 5  # of a row that are looked at closely
OUTLINE_COSINES = (0.75, 0.8, 0.85, 0.9, 0.95, 0.98)  # the first that leaves at most CROWD pairs a row is used
CROWD = 64
SCORES = (0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998)
COARSE_MARGIN = 0.08  # a pair that reaches a score finely is never so much below it coarsely
DECOY_SHARE = 0.001
DECOY_ROWS = 2000
FLAT_CONTRAST = 2.0  # grey levels; below it a picture has nothing to compare
LIMIT = 150_000  # rows; the cost of step 1 grows with the square
BLOCK = 256
PART = 512  # pairs that are aligned at once; NumPy leaves the interpreter to other threads meanwhile


def near(sketches: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Near pairs (P, 2), their scores (P,), and the score that was asked of them, given the sketches (N, 32, 32)."""
    told = np.flatnonzero(sketches.std(axis=(1, 2)) >= FLAT_CONTRAST)
    pictures = sketches[told]
    if len(told) < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0), SCORES[0]
    outlines = _outlines(pictures)
    least = _least_score(pictures, outlines)
    pairs = _candidates(outlines, outlines, later_only=True)
    scores = _scores(pictures, pictures, pairs, least)
    kept = scores >= least
    return told[pairs[kept]], scores[kept], least


def _least_score(pictures: np.ndarray, outlines: np.ndarray) -> float:
    """The least score of SCORES that almost no decoy reaches."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, DECOY_ROWS).astype(int))
    turned = pictures[chosen][:, ::-1, ::-1]
    pairs = _candidates(_outlines(turned), outlines, later_only=False)
    pairs = pairs[chosen[pairs[:, 0]] != pairs[:, 1]]  # a symmetric picture is its own decoy
    best = np.zeros(len(chosen))
    np.maximum.at(best, pairs[:, 0], _scores(turned, pictures, pairs, SCORES[0]))
    strictness = sum((best >= score).mean() > DECOY_SHARE for score in SCORES)
    if strictness:  # natural likeness is worse the right way up: one notch more than the decoys ask for
        strictness = min(strictness + 1, len(SCORES) - 1)
    return SCORES[strictness]


def _outlines(sketches: np.ndarray) -> np.ndarray:
    """(N, E) float32, mean 0 and length 1."""
    cell = SIDE // OUTLINE
    small = sketches.reshape(-1, OUTLINE, cell, OUTLINE, cell).mean(axis=(2, 4), dtype=np.float32)
    flat = small.reshape(len(sketches), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _candidates(left: np.ndarray, right: np.ndarray, *, later_only: bool) -> np.ndarray:
    """(P, 2) rows of ``left`` and ``right`` with like outlines, at most CANDIDATES a row of ``left``."""
    found, level = [np.zeros((0, 2), np.int64)], 0
    for start in range(0, len(left), BLOCK):
        offset = start if later_only else 0
        cosines = left[start : start + BLOCK] @ right[offset:].T
        if later_only:
            corner = cosines[:, : len(cosines)]
            corner[np.tri(*corner.shape) > 0] = -1.0
        level = max(0, level - 1)  # a crowd here is most often one in the next block too
        while len(flat := np.flatnonzero(cosines > OUTLINE_COSINES[level])) > CROWD * len(cosines):
            if level == len(OUTLINE_COSINES) - 1:
                break
            level += 1
        rows, columns = np.divmod(flat, cosines.shape[1])
        order = np.lexsort((-cosines.reshape(-1)[flat], rows))
        rows, columns = rows[order], columns[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = rank < CANDIDATES
        found.append(np.stack([rows[best] + start, columns[best] + offset], axis=1))
    return np.concatenate(found)


def _scores(left: np.ndarray, right: np.ndarray, pairs: np.ndarray, least: float) -> np.ndarray:
    """(P,) correlation of each pair after alignment: coarsely for all, finely for those that may reach ``least``."""

    def scored(start: int) -> np.ndarray:
        part = slice(start, start + PART)
        a, b = left[pairs[part, 0]], right[pairs[part, 1]]
        scores = _aligned(_halved(a), _halved(b), steps=3)
        likely = scores >= least - COARSE_MARGIN
        if likely.any():
            scores[likely] = _aligned(a[likely].astype(np.float32), b[likely].astype(np.float32), steps=5)
        return scores

    return np.concatenate([np.zeros(0), *workers.in_order(scored, range(0, len(pairs), PART))])


def _halved(sketches: np.ndarray) -> np.ndarray:
    half = SIDE // 2
    return sketches.reshape(-1, half, 2, half, 2).mean(axis=(2, 4), dtype=np.float32)


def _aligned(a: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
    """(P,) the best correlation of ``a``, scaled and shifted by Gauss-Newton steps, with ``b``; both (P, S, S)."""
    count, side, _ = a.shape
    scale, shift = np.ones((count, 2), np.float32), np.zeros((count, 2), np.float32)  # rows, columns
    place = (np.arange(side, dtype=np.float32) - (side - 1) / 2)[:, None]
    best = np.full(count, -1.0, np.float32)
    for step in range(steps + 1):
        down, inside_down = _sampling(scale[:, 0], shift[:, 0], side)
        across, inside_across = _sampling(scale[:, 1], shift[:, 1], side)
        inside = (inside_down[:, :, None] & inside_across[:, None, :]).astype(np.float32)
        moved = _standardised(down @ a @ across.transpose(0, 2, 1), inside)
        target = _standardised(b, inside)
        best = np.maximum(best, (moved * target).sum(axis=(1, 2)))
        if step == steps:
            break
        steep_down, steep_across = np.gradient(moved, axis=1) * inside, np.gradient(moved, axis=2) * inside
        slopes = np.stack([steep_down * place, steep_down, steep_across * place.T, steep_across, moved], axis=-1)
        slopes = slopes.reshape(count, -1, 5)
        normal = slopes.transpose(0, 2, 1) @ slopes
        damping = 2e-4 * np.trace(normal, axis1=1, axis2=2) + 1e-9
        normal += damping[:, None, None] * np.eye(5, dtype=np.float32)
        slope_error = slopes.transpose(0, 2, 1) @ (target - moved).reshape(count, -1, 1)
        change = np.linalg.solve(normal, slope_error)[:, :, 0]
        scale = (scale + change[:, [0, 2]]).clip(1 / 1.15, 1.15)
        shift = (shift + change[:, [1, 3]]).clip(-0.08 * side, 0.08 * side)
    return best


def _sampling(scale: np.ndarray, shift: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(P, S, S) matrices that sample linearly at scaled and shifted places, and (P, S) whether those are inside."""
    middle = (side - 1) / 2
    source = (np.arange(side) - middle)[None] * scale[:, None] + shift[:, None] + middle
    inside = (source >= -0.5) & (source <= side - 0.5)
    distance = np.abs(source.clip(0, side - 1)[:, :, None] - np.arange(side))
    return np.maximum(0.0, 1.0 - distance).astype(np.float32), inside


def _standardised(pictures: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1 over the places inside, 0 elsewhere."""
    mean = (pictures * inside).sum(axis=(1, 2), keepdims=True) / inside.sum(axis=(1, 2), keepdims=True)
    centred = (pictures - mean) * inside
    length = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(centred / np.maximum(length, 1e-6), dtype=np.float32)
