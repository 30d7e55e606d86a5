"""Metrics of a classifier: each with its 95 % interval, from labels and probabilities.

Shapes: N rows, K classes. Labels are (N,) int64, probabilities (N, K). Values follow scikit-learn (`accuracy_score`,
`top_k_accuracy_score`, `f1_score(average="macro")`, `balanced_accuracy_score`, `log_loss`, multi-class Brier score);
those of ranking stand in ``ranking``. Labels (N, K) of 0 and 1 say that a row may have several: ``multilabel``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.core.errors import ConfigError, Problem
from headstart.core.registry import suggest
from headstart.measure import calibration, intervals, multilabel, own, ranking
from headstart.measure.intervals import Difference, Measured

OwnMetric = Callable[[np.ndarray, np.ndarray], float]  # (labels, probabilities) -> a number
_SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Metric:
    """What a name stands for: its direction, and what one row contributes to it.

    ``rows`` gives (N,) values whose mean is the metric. ``deff`` is the design effect: how many times larger the
    variance is than that of a plain share of N rows; None where the metric is a loss, not a share. ``decides`` says
    that ``rows`` takes what is given (N, K), the labels whose probability reaches the threshold, not probabilities.
    """

    title: str
    higher_is_better: bool
    rows: Callable[[np.ndarray, np.ndarray], np.ndarray]
    deff: Callable[[np.ndarray, np.ndarray], float] | None = None
    decides: bool = False


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) float64 of logits (N, K)."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, K) float64 of logits (N, K); stable for large logits."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (K, K) int64: true classes down, predicted classes across."""
    cells = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def f1(table: np.ndarray) -> tuple[float, np.ndarray]:
    """Macro F1 of a confusion table (K, K), and each cell's influence on it (K, K), of mean zero over the rows.

    As in scikit-learn, classes that are neither true nor predicted anywhere do not count.
    """
    true, predicted = table.sum(axis=1), table.sum(axis=0)
    size = true + predicted
    present = size > 0
    scores = np.divide(2 * np.diag(table), size, out=np.zeros(len(table)), where=present)
    weight = np.divide(table.sum(), size, out=np.zeros(len(table)), where=present) / max(1, present.sum())
    loss = scores * weight
    influence = -(loss[:, None] + loss[None, :])
    influence[np.diag_indices(len(table))] += 2 * weight
    return float(scores[present].mean()) if present.any() else 0.0, influence


def recall(table: np.ndarray) -> tuple[float, np.ndarray]:
    """Balanced accuracy (mean recall over the classes that occur) of a table (K, K), and each cell's influence."""
    true = table.sum(axis=1)
    present = true > 0
    scores = np.divide(np.diag(table), true, out=np.zeros(len(table)), where=present)
    weight = np.divide(table.sum(), true, out=np.zeros(len(table)), where=present) / max(1, present.sum())
    influence = weight[:, None] * (np.eye(len(table)) - scores[:, None])
    return float(scores[present].mean()) if present.any() else 0.0, influence


def _from_table(score: Callable[[np.ndarray], tuple[float, np.ndarray]]) -> Callable[..., np.ndarray]:
    def rows(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        predicted = probabilities.argmax(axis=1)
        value, influence = score(confusion(labels, predicted, probabilities.shape[1]))
        return value + influence[labels, predicted]

    return rows


def _design_effect(score: Callable[[np.ndarray], tuple[float, np.ndarray]]) -> Callable[..., float]:
    """The variance of a table's score over that of a plain share, from a table with two rows more a class, one wrong.

    Without smoothing, a class of five rows that are all right would claim to have no variance at all; "one right and
    one wrong" is Agresti and Coull's (1998) remedy. It touches the design effect only, never the estimate.
    """

    def effect(labels: np.ndarray, probabilities: np.ndarray) -> float:
        table = confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1]).astype(np.float64)
        present = (table.sum(axis=1) + table.sum(axis=0)) > 0
        table = table[np.ix_(present, present)]
        k = len(table)
        if k < 2:
            return 1.0
        smoothing = np.full((k, k), 1 / (k - 1))
        np.fill_diagonal(smoothing, 1.0)
        table = table + smoothing * (table.sum(axis=1, keepdims=True) > 0)
        value, influence = score(table)
        variance = float((table * influence**2).sum() / table.sum())
        return variance / (value * (1 - value)) if 0 < value < 1 else 1.0

    return effect


def _correct(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return (probabilities.argmax(axis=1) == labels).astype(np.float64)


def _top5(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    own = probabilities[np.arange(len(labels)), labels][:, None]
    index = np.arange(probabilities.shape[1])
    ahead = (probabilities > own) | ((probabilities == own) & (index < labels[:, None]))  # ties: the first class wins
    return (ahead.sum(axis=1) < 5).astype(np.float64)


def _log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST))


def _briers(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    own = probabilities[np.arange(len(labels)), labels]
    return (probabilities**2).sum(axis=1) - 2 * own + 1


def _plain(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return 1.0


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", True, _correct, _plain),
    "top5": Metric("top-5 accuracy", True, _top5, _plain),
    "macro_f1": Metric("macro F1", True, _from_table(f1), _design_effect(f1)),
    "balanced_accuracy": Metric("balanced accuracy", True, _from_table(recall), _design_effect(recall)),
    "log_loss": Metric("log-loss", False, _log_losses),
    "brier": Metric("Brier score", False, _briers),
    "roc_auc": Metric("ROC-AUC", True, ranking.roc_auc, ranking.design_effect),
}


def _several(
    title: str, rows: Callable[..., np.ndarray], *, higher_is_better: bool = True, decides: bool = False
) -> Metric:
    return Metric(title, higher_is_better, rows, lambda *found: multilabel.design_effect(rows(*found)), decides)


# Of rows that may have several labels. The first is what runs are judged by unless told: it needs no threshold, which
# nobody has tuned, and every label counts the same, the rare ones too.
MULTILABEL: dict[str, Metric] = {
    "mAP": _several("mean average precision", multilabel.mean_average_precision),
    "macro_f1": _several("macro F1", multilabel.macro_f1, decides=True),
    "micro_f1": _several("micro F1", multilabel.micro_f1, decides=True),
    "subset_accuracy": Metric("subset accuracy", True, multilabel.subset_accuracy, _plain, decides=True),
    "hamming_loss": _several("Hamming loss", multilabel.hamming_loss, higher_is_better=False, decides=True),
    "log_loss": Metric("log-loss", False, multilabel.log_losses),
    "brier": Metric("Brier score", False, multilabel.briers),
}
# Of all rows together: their intervals are bootstrapped, as those of own callables are.
OF_ALL: dict[str, OwnMetric] = {"sensitivity": ranking.sensitivity}
RANKING = ("roc_auc", "sensitivity", "mAP")  # of the order of rows by probability
NAMES = tuple(dict.fromkeys((*METRICS, "ece", *OF_ALL, *MULTILABEL)))


def of_labels(labels: np.ndarray) -> tuple[str, ...]:
    """The names of the metrics that such labels have: (N,) one a row, (N, K) any number a row."""
    return (*MULTILABEL, "ece") if labels.ndim == 2 else (*METRICS, "ece", *OF_ALL)


def usual(metric: str | OwnMetric, labels: np.ndarray) -> str | OwnMetric:
    """What a run is judged by: ``metric``, or for "auto" accuracy, and mAP where a row may have several labels."""
    return of_labels(labels)[0] if metric == "auto" else metric


def higher_is_better(metric: str | OwnMetric) -> bool:
    """The direction of a metric; an own callable may carry an attribute ``higher_is_better`` (True otherwise)."""
    if callable(metric):
        return bool(getattr(metric, "higher_is_better", True))
    return metric != "ece" and (metric in OF_ALL or {**MULTILABEL, **METRICS}[check(metric)].higher_is_better)


def limits(name: str) -> tuple[float, float]:
    """The least and the most that a metric can be; an own one can be anything."""
    if name not in NAMES:
        return -math.inf, math.inf
    return 0.0, math.inf if name in METRICS and METRICS[name].deff is None else 1.0


def name_of(metric: str | OwnMetric) -> str:
    """What a metric is called in tables and files."""
    return metric if isinstance(metric, str) else str(getattr(metric, "__name__", type(metric).__name__))


def check(name: str, labels: np.ndarray | None = None) -> str:
    """The name itself where it is known, and says something about ``labels`` where they are given.

    Raises:
        ConfigError: there is no such metric.
    """
    found = problems(name, labels)
    if found:
        raise ConfigError(problems=found)
    return name


def problems(metric: str | OwnMetric, labels: np.ndarray | None = None) -> list[Problem]:
    """What is wrong with a metric's name, with the nearest known one."""
    known = NAMES if labels is None else of_labels(labels)
    if metric == "sensitivity" and labels is not None and labels.ndim == 1 and labels.max(initial=0) > 1:
        what = f"'sensitivity' is the share of one of two classes that is found, and these are {labels.max() + 1}"
        return [Problem(what, "metric", "macro_f1 or balanced_accuracy weigh all classes alike")]
    if not isinstance(metric, str) or metric in known:
        return []
    remedy = f"known: {', '.join(known)}; or give a function"
    if metric in NAMES:
        rows = "one class each" if labels is not None and labels.ndim == 1 else "any number of labels"
        return [Problem(f"'{metric}' says nothing of rows with {rows}", "metric", remedy)]
    return [Problem(f"unknown metric '{metric}'{suggest(metric, known)}", "metric", remedy)]


def measure(
    metric: str | OwnMetric, labels: np.ndarray, probabilities: np.ndarray, *, seed: int = 0, threshold: float = 0.5
) -> Measured:
    """The metric with its 95 % interval. ``threshold``: from which a label is given, where a row may have several.

    Shares take Wilson's interval (at the effective number of rows where classes weigh differently), losses the
    skewness-corrected interval of a mean, ECE and own callables the bootstrap (resampled within classes), sensitivity
    the wider of that and of Wilson's, on each side.
    """
    n = len(labels)
    metric = OF_ALL.get(metric, metric) if isinstance(metric, str) else metric
    if callable(metric):
        value = own.value(name_of(metric), metric, labels, probabilities)
        low, high = intervals.bootstrap(
            lambda rows: float(metric(labels[rows], probabilities[rows])), n, seed=seed, strata=_strata(labels)
        )
        if metric is ranking.sensitivity:  # near 0 and 1 hardly a resample differs from the rows
            alike = intervals.wilson(value * (labels == 1).sum(), (labels == 1).sum())
            low, high = min(low, alike[0]), max(high, alike[1])
        return Measured(value, min(low, value), max(high, value), n)
    if check(metric, labels) == "ece":
        return calibration.ece_measured(probabilities, labels, seed=seed)
    entry = _entry(metric, labels)
    seen = probabilities >= threshold if entry.decides else probabilities
    rows = entry.rows(labels, seen)
    value = float(rows.mean()) if n else math.nan
    if entry.deff is None:
        return Measured(value, *_non_negative(intervals.mean(rows)), n)
    return share(value, entry.deff(labels, seen) if n and not math.isnan(value) else 1.0, n)


def share(value: float, effect: float, n: int) -> Measured:
    """A share of ``n`` rows with Wilson's interval at the effective number of rows, by its design effect."""
    if math.isnan(value):
        return Measured(value, math.nan, math.nan, n)
    effective = n / max(effect, 1e-9) if n else 0.0
    value = min(1.0, max(0.0, value))
    return Measured(value, *intervals.wilson(value * effective, effective), n)


def compare(
    metric: str | OwnMetric,
    labels: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    seed: int = 0,
    thresholds: tuple[float, float] = (0.5, 0.5),
) -> Difference:
    """Metric of A minus metric of B, probabilities (N, K) on the same rows; the sign is not turned for losses."""
    metric = OF_ALL.get(metric, metric) if isinstance(metric, str) else metric
    if not callable(metric) and check(metric, labels) != "ece":
        entry = _entry(metric, labels)
        seen = [p >= least for p, least in zip((a, b), thresholds, strict=True)] if entry.decides else [a, b]
        rows_a, rows_b = (entry.rows(labels, each) for each in seen)
        if entry.deff is None:
            return intervals.paired_losses(rows_a, rows_b)
        if entry.deff is _plain:
            return intervals.paired(rows_a > 0, rows_b > 0)
        return intervals.paired_scores(rows_a, rows_b)

    def score(rows: np.ndarray, index: int) -> float:
        if callable(metric):
            return float(metric(labels[rows], (a, b)[index][rows]))
        return calibration.ece((a, b)[index][rows], labels[rows])

    everything = np.arange(len(labels))
    value = score(everything, 0) - score(everything, 1)
    strata = _strata(labels)
    found = intervals.resamples(lambda rows: score(rows, 0) - score(rows, 1), len(labels), seed=seed, strata=strata)
    found = found[np.isfinite(found)]
    low, high = (float(q) for q in np.quantile(found, [0.025, 0.975])) if len(found) else (math.nan, math.nan)
    tail = min((found <= 0).sum(), (found >= 0).sum()) + 1
    return Difference(value, min(low, value), max(high, value), min(1.0, 2 * tail / (len(found) + 1)), len(labels))


def _entry(metric: str, labels: np.ndarray) -> Metric:
    return MULTILABEL[metric] if labels.ndim == 2 else METRICS[metric]


def _strata(labels: np.ndarray) -> np.ndarray | None:
    """Rows are drawn within classes, which rows that may have several do not have."""
    return None if labels.ndim == 2 else labels


def _non_negative(interval: tuple[float, float]) -> tuple[float, float]:
    return max(0.0, interval[0]), interval[1]
