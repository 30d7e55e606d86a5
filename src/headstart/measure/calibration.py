"""Calibration: whether a confidence of 0.9 is right nine times in ten, and one temperature that mends it.

Shapes: N rows, K classes, M bins, R draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.measure import intervals
from headstart.measure.intervals import Measured

SMALLEST_HONEST_N = 500  # below this a perfectly calibrated model shows an ECE so large that no verdict is possible
DRAWS = 1000


@dataclass(frozen=True)
class Reliability:
    """Bins of equal mass, ordered by confidence, with what a perfectly calibrated model would show in each."""

    confidence: np.ndarray  # (M,) mean confidence
    accuracy: np.ndarray  # (M,) share that was right
    count: np.ndarray  # (M,) rows
    low: np.ndarray  # (M,) Wilson interval of the accuracy
    high: np.ndarray  # (M,)
    null_low: np.ndarray  # (M,) 95 % band of the accuracy under perfect calibration
    null_high: np.ndarray  # (M,)
    ece: float
    ece_null: tuple[float, float, float]  # 2.5 %, mean, 97.5 % of the ECE under perfect calibration at this n
    n: int

    @property
    def verdict(self) -> str:
        """What the diagram says in words; no judgement below 500 rows."""
        if self.n < SMALLEST_HONEST_N:
            return "too few rows"
        if self.ece <= self.ece_null[2]:
            return "consistent with perfect calibration"
        gap = float(((self.confidence - self.accuracy) * self.count).sum() / self.n)
        if abs(gap) < self.ece / 2:
            return "miscalibrated"
        return "overconfident" if gap > 0 else "underconfident"

    def as_json(self) -> dict[str, Any]:
        arrays = ("confidence", "accuracy", "count", "low", "high", "null_low", "null_high")
        lists = {name: getattr(self, name).tolist() for name in arrays}
        return {**lists, "ece": self.ece, "ece_null": list(self.ece_null), "n": self.n, "verdict": self.verdict}


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T > 0 that minimises the log-loss of ``logits / T`` (Guo et al. 2017); argmax never changes.

    As Platt (1999) does, the targets are smoothed by one row's mass spread over all classes: where every
    validation row is right, the log-loss alone would ask for infinite confidence.

    Labels (N, K) of 0 and 1 are each a yes or no of its own: the sum of their log-losses is minimised.

    Args:
        logits: (N, K), of validation rows.
        labels: (N,), or (N, K) where a row may have several.
    """
    n, k = logits.shape
    if labels.ndim == 2:  # yes against no: two classes, the logit of "no" being zero
        both = np.stack([np.zeros(n * k), np.asarray(logits, dtype=np.float64).ravel()], axis=1)
        return fit_temperature(both, labels.ravel().astype(np.int64))
    if n == 0 or k < 2:
        return 1.0
    scores = np.asarray(logits, dtype=np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    smoothing = 1 / (n + 1)
    target = (1 - smoothing) * scores[np.arange(n), labels] + smoothing * scores.mean(axis=1)

    def slope(log_beta: float) -> float:  # of the log-loss by the inverse temperature; rises with it (convex)
        weights = np.exp(math.exp(log_beta) * scores)
        return float(((weights * scores).sum(axis=1) / weights.sum(axis=1) - target).mean())

    low, high = math.log(1e-2), math.log(1e2)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def bins_for(n: int) -> int:
    """How many bins of equal mass ``n`` rows can fill: 15 as usual, fewer where a bin would hold less than 20 rows."""
    return max(1, min(15, n // 20))


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int | None = None) -> float:
    """Expected calibration error of the top class over bins of equal mass (Nguyen & O'Connor 2015)."""
    confidence, correct = top_class(probabilities, labels)
    return ece_of(confidence, correct, bins)


def ece_of(confidence: np.ndarray, correct: np.ndarray, bins: int | None = None) -> float:
    """``ece`` of confidences (N,) and whether each was right (N,)."""
    order = np.argsort(confidence, kind="stable")
    return _ece(confidence[order], correct[order], _edges(len(order), bins))


def top_class(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence in the predicted class and whether it was right (0.0 or 1.0), both (N,) float64.

    Of labels (N, K) of 0 and 1, what was said of each: its probability, and whether the row has it, both (N K,).
    """
    if labels.ndim == 2:
        return probabilities.ravel().astype(np.float64), labels.ravel().astype(np.float64)
    confidence = probabilities.max(axis=1).astype(np.float64)
    return confidence, (probabilities.argmax(axis=1) == labels).astype(np.float64)


def ece_measured(probabilities: np.ndarray, labels: np.ndarray, *, seed: int = 0, bins: int | None = None) -> Measured:
    """ECE with a basic (bias-correcting) bootstrap interval, clipped at 0 and widened to hold the estimate.

    Resampling adds noise to every bin, so that the estimate is biased upwards; the basic interval reflects the
    bias back. Rows are resampled within their bins, which is a draw of right answers a bin. Labels of a row that may
    have several are taken for answers of their own: where they hang together, the interval is a little too narrow.

    Where every bin holds right answers alone, or none, there is nothing to draw: then the share of right answers may be
    as far off as Wilson's interval for so many answers that all agree reaches, and so may the gaps.
    """
    confidence, correct = _sorted(probabilities, labels)
    n, edges = len(confidence), _edges(len(confidence), bins)
    if n == 0:
        return Measured(math.nan, math.nan, math.nan, 0)
    value, count = _ece(confidence, correct, edges), np.diff(edges)
    right = np.add.reduceat(correct, edges[:-1])
    gap_mean = np.add.reduceat(confidence, edges[:-1])
    if ((right == 0) | (right == count)).all():
        off = 1 - intervals.wilson(n, n)[0]
        return Measured(value, max(0.0, value - off), max(value, off - value), n)
    rng = np.random.default_rng(seed)
    drawn = rng.binomial(count, right / count, size=(DRAWS, len(count)))
    found = np.abs(drawn - gap_mean).sum(axis=1) / n
    low, high = (float(2 * value - q) for q in np.quantile(found, [0.975, 0.025]))
    return Measured(value, max(0.0, min(low, value)), max(high, value), n)


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int | None = None, seed: int = 0
) -> Reliability:
    """The reliability diagram's numbers, with the null band that perfect calibration would show at this n.

    The band draws right answers a bin as a binomial of the bin's mean confidence (Bröcker & Smith 2007).
    """
    confidence, correct = _sorted(probabilities, labels)
    n, edges = len(confidence), _edges(len(confidence), bins)
    count = np.diff(edges)
    mean_confidence = np.add.reduceat(confidence, edges[:-1]) / count
    right = np.add.reduceat(correct, edges[:-1])
    rng = np.random.default_rng(seed)
    null = rng.binomial(count, np.clip(mean_confidence, 0, 1), size=(DRAWS, len(count))) / count
    null_low, null_high = np.quantile(null, [0.025, 0.975], axis=0)
    null_ece = (np.abs(null - mean_confidence) * count).sum(axis=1) / n
    low_ece, high_ece = np.quantile(null_ece, [0.025, 0.975])
    spans = np.array([intervals.wilson(float(r), float(c)) for r, c in zip(right, count, strict=True)])
    return Reliability(
        confidence=mean_confidence,
        accuracy=right / count,
        count=count,
        low=spans[:, 0],
        high=spans[:, 1],
        null_low=null_low,
        null_high=null_high,
        ece=_ece(confidence, correct, edges),
        ece_null=(float(low_ece), float(null_ece.mean()), float(high_ece)),
        n=n,
    )


def _sorted(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and correctness (N,) float64, by rising confidence."""
    confidence, correct = top_class(probabilities, labels)
    order = np.argsort(confidence, kind="stable")
    return confidence[order], correct[order]


def _edges(n: int, bins: int | None) -> np.ndarray:
    """Where bins of equal mass begin and end in the sorted rows: (M + 1,) int64, no bin empty."""
    return np.unique(np.linspace(0, n, (bins or bins_for(n)) + 1).round().astype(np.int64))


def _ece(confidence: np.ndarray, correct: np.ndarray, edges: np.ndarray) -> float:
    if len(edges) < 2:
        return math.nan
    return float(np.abs(np.add.reduceat(correct - confidence, edges[:-1])).sum() / edges[-1])
