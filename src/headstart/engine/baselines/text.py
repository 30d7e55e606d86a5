"""Texts: which words and pairs of words occur (TF-IDF), the bar that every encoder has to pass.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.data.texts import reading
from headstart.engine.baselines import Learnt
from headstart.engine.streams import Examples
from headstart.measure import multilabel

NAME = "tf-idf"
STRENGTHS = (1.0, 4.0, 16.0)
FLOOR = -30.0  # log-probability of a class that the rows do not have


def learn(train: Examples, val: Examples, num_classes: int, rows: np.ndarray) -> Learnt:
    """Logistic regression from the training ``rows``; its strength is chosen on validation rows, as a probe's is."""
    held_out = _texts(val, np.arange(len(val)))
    try:
        model = fitted(_texts(train, rows), train.rows.labels[rows], held_out, val.rows.labels)
    except ValueError:  # no text has a word
        model = None

    def logits(asked: Sequence[str]) -> np.ndarray:
        if model is None:
            return np.zeros((len(asked), num_classes), np.float32)
        if train.rows.labels.ndim == 2:
            told = model.predict_proba(asked).clip(1e-12, 1 - 1e-12)
            return np.log(told / (1 - told))
        found = np.full((len(asked), num_classes), FLOOR)
        found[:, model.classes_] = model.predict_log_proba(asked)
        return found

    return Learnt(logits(held_out), lambda asked: logits(_texts(asked, np.arange(len(asked)))))


def fitted(texts: Sequence[str], labels: np.ndarray, asked: Sequence[str], wanted: np.ndarray) -> Any:
    """scikit-learn's pipeline for texts with labels (N,), of the strength that answers ``asked`` best (``wanted``).

    Of labels (N, K), of which a text may have several, it holds a regression for each.

    Raises:
        ValueError: no text has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    seen = words.fit_transform(texts)
    given = words.transform(asked)
    best: tuple[float, Any] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000)
        if labels.ndim == 2:
            model = _fitted(_each(model), seen, labels)
            loss = float(multilabel.log_losses(wanted, model.predict_proba(given)).mean())
        else:
            model = _fitted(model, seen, labels)
            told = np.full((len(asked), int(max(labels.max(), wanted.max())) + 1), FLOOR)
            told[:, model.classes_] = model.predict_log_proba(given)
            loss = -float(told[np.arange(len(asked)), wanted].mean())
        if best is None or loss < best[0]:
            best = (loss, model)
    assert best is not None
    return make_pipeline(words, best[1])


def _fitted(model: Any, seen: Any, labels: np.ndarray) -> Any:
    with warnings.catch_warnings():  # of many classes; reading the labels has told what to say of them
        warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
        return model.fit(seen, labels)


def _each(model: Any) -> Any:
    from sklearn.multiclass import OneVsRestClassifier

    return OneVsRestClassifier(model)


def _texts(examples: Examples, rows: np.ndarray) -> list[str]:
    return [" ".join(reading.read(examples.rows.items[int(row)])[0]) for row in rows]
