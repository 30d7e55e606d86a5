"""The bar of words and pairs of words: what scikit-learn's own pipeline answers, at its best strength on these rows."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data.modalities.text import TextSpec
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine import baseline
from headstart.engine.baselines import text
from headstart.engine.streams import Examples

from .. import words

SPEC = TextSpec(words.tokenizer(), 64)


def examples(texts: list[str], labels: list[int], split: str = "train") -> Examples:
    rows = Rows(texts, np.array(labels), tuple(map(str, range(len(texts)))))
    return Examples(split, rows, Store.build(rows, SPEC, modality="text"), SPEC)


def reviews(count: int, seed: int, split: str = "train") -> Examples:
    texts, labels = words.reviews(count, seed)
    return examples(texts, [words.CLASSES.index(label) for label in labels], split)


def test_it_is_logistic_regression_on_tf_idf() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline

    train, val = reviews(90, 1), reviews(60, 2, "val")
    losses, answers = [], []
    for strength in text.STRENGTHS:
        words_of = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        model = make_pipeline(words_of, LogisticRegression(C=strength, max_iter=1000))
        model.fit(train.rows.items, train.rows.labels)
        answers.append(model.predict_proba(val.rows.items))
        losses.append(log_loss(val.rows.labels, answers[-1]))
    learnt = text.learn(train, val, 3, np.arange(90))
    found = learnt.logits
    assert np.exp(found) == pytest.approx(answers[int(np.argmin(losses))], abs=1e-6)
    others = reviews(20, 3, "test")
    wanted = text.fitted(train.rows.items, train.rows.labels, val.rows.items, val.rows.labels)
    assert np.array_equal(learnt.answers(others).argmax(1), wanted.predict(others.rows.items))
    evaluation = baseline.baselines(train, val, words.CLASSES)[1].evaluation
    assert evaluation.metric("accuracy").value >= 0.9


def test_a_class_without_rows_and_texts_without_words() -> None:
    train = examples(["good film", "bad film", "good soup", "bad soup"], [0, 2, 0, 2])
    found = text.learn(train, examples(["good", "bad"], [0, 2], "val"), 3, np.arange(4)).logits
    assert found.argmax(1).tolist() == [0, 2]
    assert np.isfinite(found).all()
    assert (found[:, 1] == text.FLOOR).all()
    nothing = examples(["!", "?", "!!", "??"], [0, 1, 0, 1])
    silent = text.learn(nothing, nothing, 2, np.arange(4))
    assert not silent.logits.any()
    assert silent.answers(examples(["!"], [0], "test")).shape == (1, 2)
