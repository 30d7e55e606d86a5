"""How good frozen features are on a development set: logistic regression on a few examples of every class.

Shapes: N rows, D features.
"""

from __future__ import annotations

import numpy as np


def probe(features: np.ndarray, labels: np.ndarray, *, shots: int = 20, draws: int = 5, most: int = 2000) -> float:
    """Mean accuracy over ``draws``: fitted on ``shots`` rows a class, judged on (at most ``most``) others.

    Features (N, D) are standardised by the rows that are fitted.
    """
    return float(
        np.mean([one_draw(features, labels, shots, np.random.default_rng(draw), most) for draw in range(draws)])
    )


def one_draw(features: np.ndarray, labels: np.ndarray, shots: int, rng: np.random.Generator, most: int) -> float:
    """Accuracy with one choice of the labelled rows."""
    from sklearn.linear_model import LogisticRegression

    order = rng.permutation(len(labels))
    fitted = np.concatenate([order[labels[order] == label][:shots] for label in np.unique(labels)])
    rest = np.setdiff1d(order, fitted)
    judged = rng.permutation(rest)[:most]
    centre, spread = features[fitted].mean(0), features[fitted].std(0) + 1e-6
    model = LogisticRegression(C=0.1, max_iter=300)
    model.fit((features[fitted] - centre) / spread, labels[fitted])
    return float(model.score((features[judged] - centre) / spread, labels[judged]))
