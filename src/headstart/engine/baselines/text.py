"""Texts: which words and pairs of words occur (TF-IDF), the bar that every encoder has to pass.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import numpy as np

from headstart.data.texts import reading
from headstart.engine.streams import Examples

NAME = "tf-idf"
STRENGTHS = (1.0, 4.0, 16.0)
FLOOR = -30.0  # log-probability of a class that the rows do not have


def answers(train: Examples, val: Examples, num_classes: int, rows: np.ndarray) -> np.ndarray:
    """Logits (N, K) on the validation rows of logistic regression; its strength is chosen on them, as a probe's is."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        seen = words.fit_transform(_texts(train, rows))
    except ValueError:  # no text has a word
        return np.zeros((len(val), num_classes), np.float32)
    asked, labels = words.transform(_texts(val, np.arange(len(val)))), train.rows.labels[rows]
    best: tuple[float, np.ndarray] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(seen, labels)
        logits = np.full((len(val), num_classes), FLOOR)
        logits[:, model.classes_] = model.predict_log_proba(asked)
        loss = log_loss(val.rows.labels, np.exp(logits), labels=np.arange(num_classes))
        if best is None or loss < best[0]:
            best = (loss, logits)
    assert best is not None
    return best[1]


def _texts(examples: Examples, rows: np.ndarray) -> list[str]:
    return [" ".join(reading.read(examples.rows.items[int(row)])[0]) for row in rows]
