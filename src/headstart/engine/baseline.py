"""Baselines that need no backbone: they show whether transfer helps at all.

"majority" answers the training rows' class frequencies; the other is of the modality (``baselines/``): "pixels",
"tf-idf" or "log-mel", each with logistic regression.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core import registry
from headstart.data.splits import counted, strata
from headstart.engine.baselines import Answers, Learnt
from headstart.engine.streams import Examples
from headstart.measure.evaluation import Evaluation

MOST_ROWS = 5_000  # training rows beyond these change such a model little


@dataclass(frozen=True)
class Baseline:
    """What it answered on the validation rows, the seconds it took, and what it answers on others (see ``on``)."""

    name: str
    evaluation: Evaluation
    seconds: float
    answers: Answers

    def on(self, examples: Examples) -> Evaluation:
        """Its answers to another split."""
        rows, logits = np.arange(len(examples)), self.answers(examples)
        known = (examples.rows.labels, self.evaluation.classes)
        return Evaluation(examples.split, rows, logits, *known, threshold=self.evaluation.threshold)


def baselines(train: Examples, val: Examples, classes: Sequence[str], threshold: float = 0.5) -> list[Baseline]:
    """Majority and the modality's own, in this order; ``threshold`` gives labels, where a row may have several."""
    kind = registry.find("headstart.engine.baselines", train.store.modality)
    rows, found = _sample(train.rows.labels), []
    for name, learn in (("majority", _majority), (kind.NAME, kind.learn)):
        started = time.monotonic()
        learnt: Learnt = learn(train, val, len(classes), rows)
        known = (val.rows.labels, tuple(classes))
        evaluation = Evaluation("val", np.arange(len(val)), learnt.logits, *known, threshold=threshold)
        found.append(Baseline(name, evaluation, time.monotonic() - started, learnt.answers))
    return found


def _majority(train: Examples, val: Examples, num_classes: int, rows: np.ndarray) -> Learnt:
    counts = counted(train.rows.labels, num_classes)
    logits = np.log(counts + 0.5)  # half a row: a class not seen is not impossible
    if train.rows.labels.ndim == 2:
        logits -= np.log(len(train) - counts + 0.5)

    def answers(asked: Examples) -> np.ndarray:
        return np.tile(logits, (len(asked), 1))

    return Learnt(answers(val), answers)


def _sample(labels: np.ndarray) -> np.ndarray:
    """All rows, or the same share of every class (one row at least) where there are many."""
    share = min(1.0, MOST_ROWS / len(labels))
    rng = np.random.default_rng(0)
    chosen, kinds = [], strata(labels)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        chosen.append(rng.permutation(rows)[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen))
