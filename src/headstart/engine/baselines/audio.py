"""Sounds: how loud each of 40 mel bands is on average, how much that varies, and how fast.

Shapes: N rows, T samples, F frames, G mel bands, K classes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from headstart.engine.baselines import Learnt, linear
from headstart.engine.streams import Examples

NAME = "log-mel"
BANDS, FRAME, HOP = 40, 512, 256


def learn(train: Examples, val: Examples, num_classes: int, rows: np.ndarray) -> Learnt:
    """From the training ``rows``."""
    return linear(features, train, val, num_classes, rows)


def features(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """(N, 3 G) float32 of these rows of the examples."""
    return np.stack([statistics(examples.store[int(row)], examples.spec.rate) for row in rows])


def statistics(samples: np.ndarray, rate: int) -> np.ndarray:
    """(T,) int16 -> (3 G,) float32: mean, spread and mean change of every band's level in bels."""
    padded = np.pad(samples, (0, max(0, 2 * FRAME - len(samples)))).astype(np.float32) / 32768
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(FRAME).astype(np.float32), axis=1)) ** 2
    levels = np.log10(power @ _filters(rate) + 1e-8)
    change = np.abs(np.diff(levels, axis=0)).mean(0)
    return np.concatenate([levels.mean(0), levels.std(0), change]).astype(np.float32)


@lru_cache(maxsize=4)
def _filters(rate: int) -> np.ndarray:
    from headstart.models.intakes.spectrograms import mel_filters

    return mel_filters(BANDS, FRAME, rate, 20.0, rate / 2, "kaldi", slaney=False).numpy()
