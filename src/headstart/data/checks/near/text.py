"""Near duplicates among many texts: MinHash with banding (Broder 1997; Leskovec et al., Mining of Massive Datasets).

Shapes: N rows, P pairs, H = 64 numbers of a MinHash.
"""

from __future__ import annotations

import numpy as np

LIMIT = 2_000_000  # rows; the cost grows with the number of rows alone
BAND = 4  # numbers that must agree for two rows to be compared: half of the pairs with a likeness of .5 are, of .8 all
LEAST = 0.75  # share of equal numbers, which estimates the Jaccard likeness of the shingles


def near(sketches: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Near pairs (P, 2), each with the first row it is like; their likeness (P,); and the likeness that was asked."""
    numbers = np.ascontiguousarray(sketches).reshape(len(sketches), sketches.shape[1]).view("<u4")
    told = np.flatnonzero(numbers.any(axis=1))
    best: dict[int, tuple[float, int]] = {}
    for start in range(0, numbers.shape[1], BAND):
        first: dict[bytes, list[int]] = {}
        for row in told.tolist():
            others = first.setdefault(numbers[row, start : start + BAND].tobytes(), [])
            for other in others:
                likeness = float((numbers[row] == numbers[other]).mean())
                if likeness >= LEAST and (likeness, -other) > best.get(row, (0.0, 0)):
                    best[row] = (likeness, -other)
            if len(others) < 3:  # a crowd of copies is joined through its first ones
                others.append(row)
    pairs = np.array([(-other, row) for row, (_, other) in sorted(best.items())], dtype=np.int64).reshape(-1, 2)
    return pairs, np.array([best[row][0] for row in sorted(best)]), LEAST
