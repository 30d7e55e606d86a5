"""Randomness as a pure function of its key: (seed, purpose, stage, epoch, sample or step).

No generator lives longer than the draw it serves, so resuming needs no iterator state and order, batch size and
threads cannot matter. The key is hashed by BLAKE2b to the 128-bit key of Philox, a counter-based generator
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so that neighbouring keys are unrelated.

Shapes: N rows.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np

KeyPart = str | SupportsIndex


def digest(seed: KeyPart, *key: KeyPart) -> int:
    """The 128-bit integer of a key: BLAKE2b-128 (little endian) of the compact JSON list ``[seed, *key]``.

    Strings and integers stay apart ("1" is not 1) and so do (1, 23) and (12, 3); numpy integers equal Python's.

    Raises:
        TypeError: a part is neither a string nor an integer (a float would hash by its last bit).
    """
    parts = [part if isinstance(part, str) else operator.index(part) for part in (seed, *key)]
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=True)
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=16).digest(), "little")


def generator(seed: KeyPart, *key: KeyPart) -> np.random.Generator:
    """A fresh generator for this key alone; the same key always starts it at the same place."""
    return np.random.Generator(np.random.Philox(key=digest(seed, *key)))


def torch_seed(seed: KeyPart, *key: KeyPart) -> int:
    """A seed in [0, 2^63) for ``torch.manual_seed``: set before every step for layers that draw (dropout)."""
    return digest(seed, *key) & (2**63 - 1)


def order(seed: KeyPart, stage: KeyPart, epoch: KeyPart, n: int) -> np.ndarray:
    """The order (N,) int64 in which an epoch visits its rows: every row once."""
    return generator(seed, "order", stage, epoch).permutation(n)


def weighted_order(
    seed: KeyPart, stage: KeyPart, epoch: KeyPart, weights: Sequence[float] | np.ndarray, total: int | None = None
) -> np.ndarray:
    """``total`` rows (default N) drawn with replacement, each in proportion to its weight (N,).

    The law of torch's WeightedRandomSampler, without its state.

    Raises:
        ValueError: weights are negative, not finite, or all zero.
    """
    shares = np.asarray(weights, dtype=np.float64)
    if shares.ndim != 1 or not np.isfinite(shares).all() or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError("row weights must be finite and not negative, and at least one must be above zero")
    rng = generator(seed, "weighted order", stage, epoch)
    return rng.choice(len(shares), size=len(shares) if total is None else total, p=shares / shares.sum())
