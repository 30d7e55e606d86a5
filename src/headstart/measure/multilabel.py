"""Metrics where a row may have several labels, or none: every label is a yes or no of its own.

Shapes: N rows, K labels. ``labels`` (N, K) are 0 or 1; ``given`` (N, K) bool are the labels that a model gives. Values
follow scikit-learn (`average_precision_score`, `f1_score`, `accuracy_score`, `hamming_loss` of indicator matrices).

Each function gives (N,) values whose mean is the metric, and whose spread is that of its estimate: the metric plus the
influence of every row on it (Hampel 1974). Rows are what is drawn, so labels of one row may hang together in any way.
"""

from __future__ import annotations

import math

import numpy as np

_SMALLEST = float(np.finfo(np.float64).tiny)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 of logits of any shape; each is one of its own."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))


def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) binary cross-entropy summed over the labels of a row, in nats; exact for large logits."""
    scores = np.asarray(logits, dtype=np.float64)
    return np.logaddexp(0.0, np.where(labels > 0, -scores, scores)).sum(axis=1)


def mean_average_precision(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The mean over labels that have rows of the average precision; NaN where none has."""
    found = [average_precision(labels[:, k] > 0, probabilities[:, k]) for k in np.flatnonzero(labels.any(axis=0))]
    return np.mean(found, axis=0) if found else np.full(len(labels), math.nan)


def average_precision(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(N,) values of one label: ``positive`` (N,) bool, ``scores`` (N,).

    The mean over positive rows of the precision at their own score, AP = E[y g(s)] / pi. A row moves it by being one
    of these (y (g - AP)), and by being above others: it changes the precision g = A / B there by (y - g) / B.
    """
    n, share = len(scores), float(positive.mean()) if len(scores) else 0.0
    if not share:
        return np.full(n, math.nan)
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], positive[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # rows of one score are told apart by none
    lengths = np.diff(np.r_[starts, n])
    group = np.repeat(np.arange(len(starts)), lengths)
    above = (starts + lengths)[group] / n  # share of rows with this score or a higher one
    precision = np.cumsum(hit)[(starts + lengths - 1)[group]] / (n * above)
    value = float((hit * precision).sum() / (n * share))
    passed = np.cumsum((hit / above)[::-1])[::-1][starts[group]] / n
    lost = np.cumsum((hit * precision / above)[::-1])[::-1][starts[group]] / n
    found = np.empty(n)
    found[order] = value + (hit * (precision - value + passed) - lost) / share
    return found


def micro_f1(labels: np.ndarray, given: np.ndarray) -> np.ndarray:
    """F1 over all labels of all rows; zero where there is none."""
    hits, size = (labels * given).sum(axis=1), labels.sum(axis=1) + given.sum(axis=1)
    return _f1(hits[:, None].astype(np.float64), size[:, None].astype(np.float64))


def macro_f1(labels: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The mean F1 of the labels; those that no row has or is given do not count."""
    return _f1((labels * given).astype(np.float64), labels.astype(np.float64) + given)


def _f1(hits: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The mean over columns of 2 hits / size, both (N, C) a row."""
    present = size.any(axis=0)
    if not present.any():
        return np.zeros(len(hits))
    hits, size = hits[:, present], size[:, present]
    whole = size.mean(axis=0)
    value = 2 * hits.mean(axis=0) / whole
    return (value + (2 * hits - value * size) / whole).mean(axis=1)


def subset_accuracy(labels: np.ndarray, given: np.ndarray) -> np.ndarray:
    """1 where all labels of a row are right, else 0."""
    return (labels == given).all(axis=1).astype(np.float64)


def hamming_loss(labels: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The share of a row's labels that are wrong."""
    return (labels != given).mean(axis=1)


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Binary cross-entropy summed over the labels of a row."""
    own = np.where(labels > 0, probabilities, 1 - probabilities)
    return -np.log(np.maximum(own, _SMALLEST)).sum(axis=1)


def briers(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The squared distance of a row's probabilities from its labels."""
    return ((probabilities - labels) ** 2).sum(axis=1)


def design_effect(rows: np.ndarray) -> float:
    """How many times larger the variance of a metric is than that of a plain share of N rows.

    Two rows are added that move it as much as the most telling one does, up and down: otherwise a metric that hardly
    any row of few has moved would claim to be known exactly (as Agresti & Coull 1998 have it for shares).
    """
    value = float(rows.mean())
    if not 0 < value < 1:
        return 1.0
    moved = (rows - value) ** 2
    return float((moved.sum() + 2 * moved.max()) / (len(rows) + 2)) / (value * (1 - value))
