"""What a frozen encoder knows: the topics of quotations, and, where the set is there, the emotions of tweets.

The quotations were read in pretraining, but not which file they come from; the tweets were not read. Beside the encoder
stand the same network with random weights, and TF-IDF.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import PreTrainedTokenizerFast

from pretraining.writing.formats import fortunes

TOPICS = ("art", "education", "food", "kids", "law", "love", "medicine", "men-women", "pets", "politics", "science")
TOPICS = (*TOPICS, "sports", "work")


def topic(path: str, content: bytes) -> list[tuple[str, str]]:
    """Topic and quotation for each of a fortune file, if its name is a topic."""
    name = path.rpartition("/")[2]
    return [(name, text) for text in fortunes(content) if len(text) > 20] if name in TOPICS else []


def topics(file: Path) -> list[tuple[str, str]]:
    """Topic and text of the corpus's quotations."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [(name, text) for name, _, text in (line.partition("\t") for line in lines)]


def emotions(folder: Path) -> list[tuple[str, str]]:
    """Emotion and text of the tweets of IndoNLU's "emot" (Wilie et al., 2020), all three parts."""
    found = []
    for file in sorted(folder.glob("*_preprocess.csv")):
        with file.open(newline="", encoding="utf-8") as opened:
            found += [(row["label"], row["tweet"]) for row in csv.DictReader(opened)]
    return found


def scores(
    encoders: dict[str, nn.Module], tokenizer: PreTrainedTokenizerFast, rows: list[tuple[str, str]], draws: int = 5
) -> dict[str, float]:
    """Accuracy by number of rows and method (mean over ``draws``), on a third that is never learned from."""
    labels, texts = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=object)
    order = np.random.default_rng(1).permutation(len(rows))
    learn, test = order[: 2 * len(rows) // 3], order[2 * len(rows) // 3 :]
    known = {name: means(encoder, tokenizer, list(texts)) for name, encoder in encoders.items()}
    inputs = {name: (_probe(), values) for name, values in known.items()} | {"TF-IDF": (_counts(), texts)}
    found: dict[str, list[float]] = {}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        few = [rng.permutation(learn[labels[learn] == name])[:20] for name in sorted(set(labels))]
        for size, chosen in (("20 a class", np.concatenate(few)), ("500 in all", rng.permutation(learn)[:500])):
            for name, (classifier, values) in inputs.items():
                accuracy = classifier.fit(values[chosen], labels[chosen]).score(values[test], labels[test])
                found.setdefault(f"{size}, {name}", []).append(accuracy)
    return {name: round(float(np.mean(accuracies)), 3) for name, accuracies in found.items()}


@torch.no_grad()
def means(encoder: nn.Module, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """Means over real tokens (B, D), the features of a probe."""
    encoder.eval()
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    parts = []
    for start in range(0, len(order), 64):
        rows = [texts[row] for row in order[start : start + 64]]
        batch = tokenizer(rows, padding=True, truncation=True, return_tensors="pt")
        states = encoder(batch["input_ids"], attention_mask=batch["attention_mask"])[0].float()
        weights = batch["attention_mask"][..., None].float()
        parts.append((states * weights).sum(1) / weights.sum(1))
    return torch.cat(parts)[torch.tensor(order).argsort()].numpy()


def _probe() -> GridSearchCV:
    strengths = {"logisticregression__C": [0.003, 0.03, 0.3]}
    return GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), strengths, cv=3)


def _counts() -> Pipeline:
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=500))
