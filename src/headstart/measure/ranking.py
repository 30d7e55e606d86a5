"""Metrics of how well rows are ranked by probability: ROC-AUC, and sensitivity where few are wrongly alarmed.

Shapes: N rows, K classes. Values follow scikit-learn's ``roc_auc_score(multi_class="ovr")`` and ``roc_curve``.
"""

from __future__ import annotations

import math

import numpy as np

SPECIFICITY = 0.95


def roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve: of two classes, else the mean over classes against the rest; NaN where one is missing.

    It is the probability that a row of the class scores higher than another row, ties counting half (Mann-Whitney).
    """
    classes = probabilities.shape[1]
    if classes == 2:
        return _area(labels == 1, probabilities[:, 1])
    return float(np.mean([_area(labels == index, probabilities[:, index]) for index in range(classes)]))


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


def _area(positive: np.ndarray, scores: np.ndarray) -> float:
    count = int(positive.sum())
    if count in (0, len(positive)):
        return math.nan
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of equal scores the mean
    above = ranks[inverse.reshape(-1)][positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))
