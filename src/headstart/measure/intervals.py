"""95 % intervals: of a share, of a mean, of any statistic, and of the difference between two models on the same rows.

Shapes: N rows, R resamples. All intervals are two-sided at 95 %, are deterministic, and contain their estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval and the count of rows behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (n = {self.n})"


@dataclass(frozen=True)
class Difference:
    """How much one model's score exceeds another's on the same rows: interval, p-value, rows."""

    value: float
    low: float
    high: float
    p: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether zero lies outside of the interval."""
        return self.low > 0 or self.high < 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:+.4g} [{self.low:+.4g}, {self.high:+.4g}] (p = {self.p:.2g}, n = {self.n})"


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927); it keeps its coverage where the share is near 0 or 1.

    ``n`` need not be whole: an effective sample size gives the interval of a weighted share (Korn & Graubard 1998).
    """
    if n <= 0:
        return 0.0, 1.0
    share, z2 = successes / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(max(share * (1 - share), 0.0) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mean(values: np.ndarray) -> tuple[float, float]:
    """Interval of the mean of ``values`` (N,), corrected for skewness: losses have a long tail to the right.

    The studentised mean's Edgeworth expansion (Hall 1992, The Bootstrap and Edgeworth Expansion, §3.10) with a
    Cornish-Fisher approximation of Student's quantile: second-order correct like BCa, without resampling.
    """
    n = len(values)
    centre = float(np.mean(values)) if n else math.nan
    if n < 2:
        return (centre, math.inf) if n else (math.nan, math.nan)
    deviations = np.asarray(values, dtype=np.float64) - centre
    spread = math.sqrt(float(np.mean(deviations**2)) * n / (n - 1))
    if spread <= 1e-12 * max(1.0, abs(centre)):
        return centre, centre
    skewness = float(np.mean(deviations**3)) / spread**3
    quantile = Z95 + (Z95**3 + Z95) / (4 * (n - 1))
    shift = skewness * (2 * Z95**2 + 1) / (6 * math.sqrt(n))
    error = spread / math.sqrt(n)
    return centre - error * max(0.0, quantile - shift), centre + error * max(0.0, quantile + shift)


def resamples(
    statistic: Callable[[np.ndarray], float],
    n_rows: int,
    *,
    seed: int = 0,
    draws: int = 500,
    strata: np.ndarray | None = None,
) -> np.ndarray:
    """``statistic(row indices)`` on ``draws`` resamples with replacement: (R,) float64.

    With ``strata`` (N,), such as the labels, rows are drawn within each stratum, so that no class goes missing.
    """
    rng = np.random.default_rng(seed)
    groups = [np.arange(n_rows)] if strata is None else [np.flatnonzero(strata == s) for s in np.unique(strata)]
    found = np.empty(draws)
    for draw in range(draws):
        chosen = [rows[rng.integers(0, len(rows), len(rows))] for rows in groups]
        found[draw] = statistic(np.concatenate(chosen))
    return found


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    n_rows: int,
    *,
    seed: int = 0,
    draws: int = 500,
    strata: np.ndarray | None = None,
) -> tuple[float, float]:
    """Percentile interval of ``statistic(row indices)`` (Efron 1979); resamples that give no number are left out."""
    found = resamples(statistic, n_rows, seed=seed, draws=draws, strata=strata)
    found = found[np.isfinite(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided mid-P value that A and B are equally good (McNemar 1947, binomial form).

    ``only_a`` rows were right in A alone, ``only_b`` in B alone; the rows both got right or wrong say nothing. What was
    seen counts half (Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91): the exact test is so
    conservative that it calls chance what the interval beside it does not.
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    i = np.arange(1, fewer + 1)
    tail = np.exp(np.concatenate([[0.0], np.cumsum(np.log((n - i + 1) / i))]) - n * math.log(2))
    return min(1.0, float(2 * tail.sum() - tail[-1]))


def paired(a_correct: np.ndarray, b_correct: np.ndarray) -> Difference:
    """Accuracy of A minus accuracy of B, both (N,) bool over the same rows.

    Interval of Bonett & Price (2012), p-value of the mid-P McNemar test: both among those that Fagerland, Lydersen &
    Laake (2014, Statistics in Medicine 33) recommend; they agree with each other closely, and none is degenerate.
    """
    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    difference = paired_scores(a.astype(np.float64), b.astype(np.float64))
    return Difference(difference.value, difference.low, difference.high, mcnemar(only_a, only_b), len(a))


def paired_scores(a: np.ndarray, b: np.ndarray) -> Difference:
    """Mean of A minus mean of B for contributions (N,) to scores between 0 and 1, on the same rows.

    The Bonett-Price interval: two rows are added, one where only A is right and one where only B is. For 0/1
    contributions this is their interval exactly; for influence values (macro-F1) the same smoothing applies.
    """
    differences, n = a - b, len(a)
    value = float(differences.mean()) if n else 0.0
    centre = float(differences.sum()) / (n + 2)
    spread = max(0.0, (float((differences**2).sum()) + 2) / (n + 2) - centre**2)
    error = math.sqrt(spread / (n + 2))
    low, high = max(-1.0, centre - Z95 * error), min(1.0, centre + Z95 * error)
    return Difference(value, min(low, value), max(high, value), normal_p(centre / error if error else 0.0), n)


def paired_losses(a: np.ndarray, b: np.ndarray) -> Difference:
    """Mean of A minus mean of B for losses a row (N,), on the same rows: skewness-corrected, p from the same z."""
    differences, n = a - b, len(a)
    low, high = mean(differences)
    spread = float(differences.std(ddof=1)) if n > 1 else 0.0
    z = float(differences.mean()) / (spread / math.sqrt(n)) if spread > 0 else 0.0
    return Difference(float(differences.mean()), low, high, normal_p(z), n)


def normal_p(z: float) -> float:
    """Two-sided p-value of a standard normal deviate."""
    return math.erfc(abs(z) / math.sqrt(2))
