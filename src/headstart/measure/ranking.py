"""Metrics of how well rows are ranked by probability: ROC-AUC, and sensitivity where few are wrongly alarmed.

Shapes: N rows, K classes. Values follow scikit-learn's ``roc_auc_score(multi_class="ovr")`` and ``roc_curve``.
"""

from __future__ import annotations

import math

import numpy as np

SPECIFICITY = 0.95


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) values whose mean is the area under the ROC curve, and whose spread is DeLong's (1988).

    Of two classes, else the mean over classes against the rest; NaN where one is missing. The area is the probability
    that a row of the class scores higher than another row, ties counting half (Mann-Whitney).
    """
    classes = probabilities.shape[1]
    if classes == 2:
        return _placed(labels == 1, probabilities[:, 1])
    return np.mean([_placed(labels == index, probabilities[:, index]) for index in range(classes)], axis=0)


def design_effect(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """How many times larger the variance of the area is than that of a plain share of N rows; 1 at least.

    Without that floor, an area of one would claim to have no variance at all.
    """
    rows = roc_auc(labels, probabilities)
    value = float(rows.mean())
    return max(1.0, float(rows.var()) / (value * (1 - value))) if 0 < value < 1 else 1.0


def sensitivity(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of the second of two classes that is found by the lowest threshold at which 95 % of the first are let go.

    NaN where there are not two classes, or one has no rows.
    """
    ill = labels == 1
    if probabilities.shape[1] != 2 or ill.all() or not ill.any():
        return math.nan
    scores = probabilities[:, 1]
    healthy = np.sort(scores[~ill])
    allowed = math.floor((1 - SPECIFICITY) * len(healthy) + 1e-9)  # so many may be alarmed wrongly
    threshold = healthy[len(healthy) - 1 - allowed]
    return float((scores[ill] > threshold).mean())


def _placed(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(N,) the area, plus how much each row moves it: the share of the other side that it is ranked against rightly."""
    count, rest = int(positive.sum()), int((~positive).sum())
    if not count or not rest:
        return np.full(len(scores), math.nan)
    ranks = _ranks(scores)
    right = np.empty(len(scores))
    right[positive] = (ranks[positive] - _ranks(scores[positive])) / rest
    right[~positive] = 1 - (ranks[~positive] - _ranks(scores[~positive])) / count
    area = right[positive].mean()
    weight = np.where(positive, len(scores) / count, len(scores) / rest)
    return area + weight * (right - area)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """(N,) ranks from 1, equal scores sharing their mean."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]
