"""Which rows of a table of words a run trains: those that its training texts name, or all where more may come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import headstart

from .. import words

VOCABULARY = 300  # of the network; the texts name fewer than 60
OTHER = 250  # a word that no text names


def other_words(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Texts (2, T) of one word, which stands in none."""
    changed = value.copy()
    changed[0, 1:-1] = OTHER
    return changed


@pytest.mark.parametrize("method", ["thaw", "contrastive"])
@pytest.mark.parametrize("augment", ["none", other_words])
def test_the_words_of_the_training_texts_train(method: str, augment: Any, tmp_path: Path) -> None:
    reader = words.network(tmp_path / "net", vocab_size=VOCABULARY)
    texts, labels = words.reviews(60, seed=4)
    texts[-6:] = ["usual"] * 6  # few words: most of those that train stand in no validation text
    splits = {"train": list(zip(texts[:-6], labels, strict=False)), "val": list(zip(texts, labels, strict=True))[-6:]}
    stage = {"epochs": 1, "lr": 1e-3, "batch_size": 16, "augment": augment}
    stage["weight_decay"] = 0.1 if augment == "none" else 0.0  # which would move every word of a whole table
    events: list[Any] = []
    run = headstart.fit(
        splits,
        backbone=str(reader),
        plan=[{method: stage | ({"pairs": 2} if method == "contrastive" else {"gate": {"on_fail": "warn"}})}],
        device="cpu",
        precision="fp32",
        output_dir=str(tmp_path / "runs"),
        force=True,
        baseline=False,
        on_event=events.append,
    )
    named = {part for text in texts[:-6] for part in text.replace("!", " !").replace(".", " .").split()}
    told = [event.choice for event in events if getattr(event, "topic", "") == "words"]
    first, last = (
        next(value for name, value in load_file(file).items() if name.endswith("word_embeddings.weight"))
        for file in (reader / "model.safetensors", run.model_folder / "model.safetensors")
    )
    moved = np.flatnonzero((first != last).any(axis=1))
    if augment == "none":
        assert told == [f"{len(named) + 4} of {VOCABULARY} train"], "these words, padding, mask, and both ends"
        assert 30 < len(moved) <= len(named) + 4
        assert OTHER not in moved
    else:
        assert told == []
        assert OTHER in moved
