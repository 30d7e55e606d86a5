"""Metrics of the user's own: a function that gives a finite number, or an error that says what it gets."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from headstart.core.errors import ConfigError

REMEDY = "it gets labels (N,), or (N, K) of 0 and 1, and probabilities (N, K), and gives a finite number"


def value(name: str, metric: Callable[..., float], labels: np.ndarray, probabilities: np.ndarray) -> float:
    """What the function gives for labels (N,), or (N, K) of 0 and 1, and probabilities (N, K).

    Raises:
        ConfigError: it fails, or gives no finite number.
    """
    found = tried(name, metric, labels, probabilities)
    if len(labels) and not math.isfinite(found):
        raise ConfigError(f"the metric '{name}' gives {found} on {len(labels):,} rows", where="metric", remedy=REMEDY)
    return found


def tried(name: str, metric: Callable[..., float], labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The same, finite or not.

    Raises:
        ConfigError: it fails, or gives no number.
    """
    try:
        return float(metric(labels, probabilities))
    except Exception as error:  # whatever a function of the user's own raises
        what = f"the metric '{name}' fails: {type(error).__name__}: {error}"
        raise ConfigError(what, where="metric", remedy=REMEDY) from error
