"""The MinHash of a text, from which near duplicates are told.

Shapes: T tokens.
"""

from __future__ import annotations

import numpy as np

SHINGLE, HASHES = 3, 64  # tokens in a shingle, and numbers of a MinHash
SHAPE = (HASHES * 4,)  # as bytes
LEAST = 8  # shingles of a text that can be told from others


def minhash(ids: np.ndarray) -> np.ndarray:
    """MinHash (Broder 1997) of the shingles of three tokens of ids (T,), uint8; zeros where there are fewer than 8."""
    ids = ids.astype(np.uint64)
    if len(ids) < LEAST + SHINGLE - 1:
        return np.zeros(SHAPE, np.uint8)
    shingles = ids[:-2] * np.uint64(1_000_003) + ids[1:-1]
    shingles = np.unique(shingles * np.uint64(1_000_033) + ids[2:])
    mixed = (shingles[:, None] * _FACTORS + _OFFSETS) >> np.uint64(32)  # multiply-shift hashing, modulo 2**64
    return mixed.min(axis=0).astype("<u4").view(np.uint8)


_DRAWN = np.random.Generator(np.random.Philox(20)).integers(0, 2**63, (2, HASHES), dtype=np.uint64)
_FACTORS, _OFFSETS = _DRAWN[0] * np.uint64(2) + np.uint64(1), _DRAWN[1]
