"""Batches of alike length: the same rows as ever, the sizes that were told, hardly any padding, and chance as keyed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.lengths import evened
from headstart.data.modalities import text
from headstart.data.modalities.text import TextSpec
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine.streams import Examples, Order

from .. import words


def lengths(count: int, seed: int = 0) -> np.ndarray:
    """Tokens of reviews as Indonesia writes them (SmSA): a median of 41, a twentieth below 9 or above 101."""
    return np.random.default_rng(seed).lognormal(np.log(41), 0.6, count).clip(4, 256).astype(np.int64)


def order(count: int, batch_size: int, sizes: np.ndarray | None, **other: Any) -> Order:
    rows = Rows([""] * count, np.zeros(count, np.int64), tuple(map(str, range(count))))
    return Order(7, 1, rows, batch_size, lengths=sizes, **other)


def efficiency(batches: list[np.ndarray], sizes: np.ndarray) -> float:
    """The share of tokens among all places of padded batches."""
    return float(sizes.sum() / sum(len(batch) * evened(int(sizes[batch].max()), 256) for batch in batches))


@pytest.mark.parametrize("most", [50, 128, 500])
def test_batches_have_one_of_few_lengths_and_hardly_more_than_they_need(most: int) -> None:
    found = {longest: evened(longest, most) for longest in range(1, most + 1)}
    assert all(longest <= places <= min(most, longest * 17 / 16) for longest, places in found.items())
    assert all(evened(places, most) == places for places in found.values())  # a part of a batch may be as long
    octaves = [{places for longest, places in found.items() if low <= longest < 2 * low} for low in (32, 64, 128, 256)]
    assert max(map(len, octaves)) <= 17
    assert evened(most + 3, most) == most + 3  # what an augmentation of the user's own has made longer stays whole


@pytest.mark.parametrize("count", [1, 7, 64, 1003, 2000])
@pytest.mark.parametrize("batch_size", [1, 16, 32])
def test_every_row_comes_once_in_batches_of_the_told_sizes(count: int, batch_size: int) -> None:
    alike = order(count, batch_size, lengths(count))
    for epoch in (0, 1):
        found = alike.batches(epoch)
        assert [len(batch) for batch in found] == alike.sizes == order(count, batch_size, None).sizes
        assert sorted(np.concatenate(found).tolist()) == list(range(count))


def test_hardly_anything_is_padded() -> None:
    for count, batch_size, least in ((2000, 16, 0.95), (2000, 32, 0.935), (11_000, 16, 0.95), (11_000, 32, 0.95)):
        sizes = lengths(count)
        for epoch in range(2):  # 63 batches that hold all lengths are of wider spans
            assert efficiency(order(count, batch_size, sizes).batches(epoch), sizes) >= least
        assert efficiency(order(count, batch_size, None).batches(0), sizes) < 0.6


def test_chance_decides_which_rows_meet_and_when() -> None:
    sizes = lengths(2000)
    alike = order(2000, 16, sizes)
    first, again, second = alike.batches(0), alike.batches(0), alike.batches(1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    partner = [{row: frozenset(batch.tolist()) for batch in batches for row in batch} for batches in (first, second)]
    assert np.mean([partner[0][row] == partner[1][row] for row in range(2000)]) < 0.05  # the longest few
    means = [sizes[batch].mean() for batch in first]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.2  # not from long to short


def test_drawn_rows_keep_their_shares() -> None:
    sizes = lengths(600)
    weights = np.r_[np.full(300, 3.0), np.full(300, 1.0)]
    drawn = np.concatenate(order(600, 16, sizes, weights=weights / weights.sum()).batches(0))
    plain = np.concatenate(order(600, 16, None, weights=weights / weights.sum()).batches(0))
    assert sorted(drawn.tolist()) == sorted(plain.tolist())


def test_batches_of_examples_are_padded_to_the_next_length_of_their_own_longest() -> None:
    texts, labels = words.reviews(40, longest=40)
    spec = TextSpec(words.tokenizer(), 64)
    rows = Rows(texts, np.array([words.CLASSES.index(each) for each in labels]), tuple(map(str, range(40))))
    examples = Examples("train", rows, Store.build(rows, spec, modality="text"), spec)
    sizes = examples.store.lengths
    assert sizes.tolist() == [text.decode(each, spec).shape[1] for each in texts]
    sorted_rows = examples.by_length(np.arange(40))
    assert (np.diff(sizes[sorted_rows]) <= 0).all()
    for batch in examples.batches(sorted_rows, batch_size=8):
        assert batch.inputs.shape == (8, 2, evened(int(sizes[batch.rows].max()), 64))
        assert ((batch.inputs[:, 0] != text.PAD).sum(1) == sizes[batch.rows]).all()
        for row, value in zip(batch.rows, batch.inputs, strict=True):
            assert value[:, : sizes[row]].tolist() == text.decode(texts[row], spec).tolist()


@pytest.mark.real
def test_indonesian_reviews_are_hardly_padded(shared_data: Path) -> None:
    lines = (
        (shared_data / "text" / "indonlu_smsa_doc-sentiment-prosa" / "train_preprocess.tsv").read_text().splitlines()
    )
    sizes = np.array([len(line.split()) + 2 for line in lines[:2000]])
    assert efficiency(order(2000, 16, sizes).batches(0), sizes) >= 0.95
