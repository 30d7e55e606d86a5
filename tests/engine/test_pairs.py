"""The updates of contrastive fine-tuning: what belongs together in a pair, what an epoch sees, and what ranks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError
from headstart.data import loaders
from headstart.engine import streams
from headstart.engine.pairs import PairStream
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples, Update

Make = Callable[..., Examples]


def stream(examples: Examples, world: int = 1, **given: Any) -> PairStream:
    runtime = Runtime("cpu")
    runtime.world = world
    return PairStream(runtime, examples, **{"pairs": 4, "batch_size": 5, "key": (7, 1), **given})


def members(update: Update, examples: Examples) -> np.ndarray:
    """(P, 2) the rows whose pictures these are."""
    whole = next(loaders.batches(examples.store, examples.rows.labels, examples.spec, batch_size=99, order=ALL))
    places = {value.tobytes(): row for row, value in zip(whole.rows, whole.inputs, strict=True)}
    return np.array([[places[value.numpy().tobytes()] for value in pair] for pair in update.inputs])


ALL = np.arange(9)


def test_a_target_belongs_to_the_two_rows_of_its_pair(examples: Make) -> None:
    rows = examples(9)
    made = stream(rows)
    updates = list(made.epoch(0))
    assert len(updates) == made.per_epoch == 8
    for update in updates:
        found = members(update, rows)
        assert found[:, 0].tolist() == update.rows.tolist()
        alike = rows.rows.labels[found[:, 0]] == rows.rows.labels[found[:, 1]]
        assert update.targets.tolist() == alike.tolist()
        assert update.total == len(found)
    assert sum(update.total for update in updates) == 9 * 4


def test_an_epoch_has_other_pairs_and_goes_on_where_it_stopped(examples: Make) -> None:
    rows = examples(9)
    made = stream(rows)
    first, second = (np.concatenate([members(update, rows) for update in made.epoch(epoch)]) for epoch in (0, 1))
    assert sorted(first.tolist()) != sorted(second.tolist())
    whole, rest = list(made.epoch(0))[3:], list(made.epoch(0, start=3))
    for a, b in zip(whole, rest, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        assert a.total == b.total


def test_two_ranks_see_the_pairs_and_the_views_of_one_process(examples: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = examples(9)

    def seen(world: int) -> tuple[list[tuple[bytes, float]], list[int]]:
        found, totals = [], []
        for rank in range(world):
            monkeypatch.setenv("RANK", str(rank))
            for update in stream(rows, world=world, augment=streams.augmentation("standard")).epoch(0):
                pairs = zip(update.inputs, update.targets, strict=True)
                found += [(pair.numpy().tobytes(), float(target)) for pair, target in pairs]
                totals.append(update.total)
        return sorted(found), totals

    (alone, once), (together, twice) = seen(1), seen(2)
    assert alone == together
    assert twice == once * 2, "the loss is divided by the pairs of all ranks"


def test_batches_that_ranks_cannot_share_are_refused(examples: Make) -> None:
    with pytest.raises(ConfigError, match="2 ranks cannot share batches of 1 pair"):
        stream(examples(9), world=2, batch_size=1)
