"""Kept features are known by all that they depend on: what changes them changes their key, and nothing else does."""

from __future__ import annotations

import pytest

from headstart.engine.frontier import Frontiers
from headstart.engine.runtime import Runtime
from headstart.engine.streams import augmentation


@pytest.fixture
def frontiers(model):
    net = model()

    def make(precision="fp32", seed=7):
        runtime = Runtime("cpu")
        runtime.precision = precision
        return Frontiers(net, runtime, lambda event: None, seed, 10**9, None)

    return make


def test_another_precision_is_another_key(frontiers, examples):
    rows = examples()
    keys = {frontiers(precision).key(rows) for precision in ("fp32", "bf16", "fp32")}
    assert len(keys) == 2


def test_the_seed_counts_where_something_is_drawn(frontiers, examples):
    rows, drawn = examples(), augmentation("standard")
    first, second = frontiers(seed=7), frontiers(seed=8)
    assert first.key(rows) == second.key(rows), "a plain picture is what it is"
    assert first.key(rows, drawn, 1) != second.key(rows, drawn, 1)
    assert first.key(rows, drawn, 1) == frontiers(seed=7).key(rows, drawn, 1)
    assert len({first.key(rows, drawn, view) for view in (1, 2, 3)}) == 3
    assert first.key(rows, augmentation("light"), 1) != first.key(rows, drawn, 1)
