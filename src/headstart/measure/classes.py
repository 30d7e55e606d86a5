"""How well each class is found: precision, recall and F1, and of labels that a row may have beside others, AP.

Shapes: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.measure import metrics, multilabel
from headstart.measure.intervals import Measured, wilson


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class; ``recall.n`` is the count of its rows.

    ``average_precision`` is of rows that may have several labels, and None of others.
    """

    name: str
    precision: Measured
    recall: Measured
    f1: Measured
    average_precision: Measured | None = None


def of_table(table: np.ndarray, classes: Sequence[str]) -> list[ClassScore]:
    """Every class of a confusion table (K, K)."""
    counts = zip(np.diag(table), table.sum(axis=1), table.sum(axis=0), classes, strict=True)
    return [_score(name, int(hits), int(true), int(said)) for hits, true, said, name in counts]


def of_labels(
    labels: np.ndarray, given: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> list[ClassScore]:
    """Every label of rows that may have several: labels (N, K), those given, and their probabilities."""
    found = []
    for index, name in enumerate(classes):
        true, said = labels[:, index] > 0, given[:, index]
        rows = multilabel.average_precision(true, probabilities[:, index])
        value = float(rows.mean()) if len(rows) else float("nan")
        precision = metrics.share(value, multilabel.design_effect(rows) if value == value else 1.0, len(rows))
        found.append(_score(name, int((true & said).sum()), int(true.sum()), int(said.sum()), precision))
    return found


def _score(name: str, hits: int, true: int, said: int, average_precision: Measured | None = None) -> ClassScore:
    """Each with a Wilson interval.

    Given the rows that are of the class or predicted as it, the share that is both is binomial, and F1 is a rising
    function of that share (Jaccard's index J): F1 = 2 J / (1 + J), and so are its bounds.
    """
    union = true + said - hits
    bounds = [2 * bound / (1 + bound) for bound in (_share(hits, union), *wilson(hits, union))]
    return ClassScore(
        name=name,
        precision=Measured(_share(hits, said), *wilson(hits, said), said),
        recall=Measured(_share(hits, true), *wilson(hits, true), true),
        f1=Measured(bounds[0], bounds[1], bounds[2], union),
        average_precision=average_precision,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
