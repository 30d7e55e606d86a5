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
    """``total`` rows (default N), each in proportion to its weight (N,), in random order.

    Systematic resampling (Kitagawa 1996): every row comes the whole number of times below or above its expected count,
    and so does every set of rows of equal weight, such as a class under balanced weights. The expected counts are those
    of torch's WeightedRandomSampler, without its chance imbalance and without its state.

    Raises:
        ValueError: weights are negative, not finite, or all zero.
    """
    shares = np.asarray(weights, dtype=np.float64)
    if shares.ndim != 1 or not np.isfinite(shares).all() or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError("row weights must be finite and not negative, and at least one must be above zero")
    size = len(shares) if total is None else total
    rng = generator(seed, "weighted order", stage, epoch)
    shuffled = rng.permutation(len(shares))
    shuffled = shuffled[np.argsort(shares[shuffled], kind="stable")]  # equal weights side by side
    edges = np.cumsum(shares[shuffled])
    marks = (rng.random() + np.arange(size)) / max(size, 1)
    chosen = np.searchsorted(edges / edges[-1], np.minimum(marks, np.nextafter(1.0, 0.0)), side="right")
    return rng.permutation(shuffled[chosen])
