"""Batches: every row once, in order, and every view a function of its key alone."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from headstart.core import keyed
from headstart.core.errors import ConfigError, DataError
from headstart.data.augment import PRESETS, policy
from headstart.data.loaders import Batch, batches, occurrences
from headstart.data.modalities import image
from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import Rows
from headstart.data.store import Store

from . import corpus

SPEC = ImageSpec((24, 24), 28)
N = 13


@pytest.fixture(scope="module")
def store() -> Store:
    items = [corpus.picture(size=(60 + n, 50), seed=n) for n in range(N)]
    return Store.build(Rows(items, np.arange(N), tuple(map(str, range(N)))), SPEC)


def run(store: Store, **options: Any) -> list[Batch]:
    options = {"batch_size": 4, "order": np.arange(N), **options}
    return list(batches(store, np.arange(N) * 10, SPEC, **options))


def by_row(found: list[Batch]) -> dict[int, bytes]:
    return {int(row): batch.inputs[place].tobytes() for batch in found for place, row in enumerate(batch.rows)}


def test_shapes_order_and_labels(store: Store) -> None:
    order = np.random.default_rng(0).permutation(N)
    found = run(store, order=order)
    assert [len(batch.rows) for batch in found] == [4, 4, 4, 1]
    assert np.concatenate([batch.rows for batch in found]).tolist() == order.tolist()
    assert np.concatenate([batch.labels for batch in found]).tolist() == (order * 10).tolist()
    for batch in found:
        assert batch.inputs.dtype == np.uint8
        assert batch.inputs.shape[1:] == (3, 24, 24)
        assert batch.inputs.flags.c_contiguous
        assert batch.labels.dtype == batch.rows.dtype == np.int64
    assert run(store, order=np.array([], np.int64)) == []


def test_without_augmentation_it_is_what_the_network_sees(store: Store) -> None:
    for row, data in by_row(run(store)).items():
        assert data == image.collate([image.finish(store[row], SPEC)]).tobytes()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_views_depend_on_key_and_row_alone(store: Store, name: str) -> None:
    """Not on order, batch size, prefetching, threads, or where an interrupted epoch goes on."""
    how = policy(name)
    reference = by_row(run(store, augment=how, key=(1, 2), prefetch=0))
    for options in (
        {"prefetch": 5},
        {"batch_size": 1, "prefetch": 3},
        {"order": np.random.default_rng(1).permutation(N), "batch_size": 5},
    ):
        assert by_row(run(store, augment=how, key=(1, 2), **options)) == reference
    resumed = by_row(run(store, augment=how, key=(1, 2), start=2))
    assert resumed == {row: data for row, data in reference.items() if row >= 8}
    other = by_row(run(store, augment=how, key=(1, 3)))
    assert sum(other[row] != reference[row] for row in range(N)) >= 3  # a flip alone leaves half as they are


def test_a_row_drawn_twice_gives_two_views_and_resuming_keeps_them(store: Store) -> None:
    order = np.array([3, 3, 3, 5, 3, 5])
    assert occurrences(order).tolist() == [0, 1, 2, 0, 3, 1]
    assert occurrences(np.array([], np.int64)).tolist() == []
    whole = np.concatenate([b.inputs for b in run(store, order=order, batch_size=2, augment=policy("strong"))])
    assert len({view.tobytes() for view in whole}) == 6
    rest = np.concatenate([b.inputs for b in run(store, order=order, batch_size=2, augment=policy("strong"), start=1)])
    assert np.array_equal(rest, whole[2:])


def test_an_own_callable_gets_the_canvas_and_the_samples_generator(store: Store) -> None:
    def own(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert canvas.shape[0] == 28
        return np.full((50, 60, 3), rng.integers(256), np.uint8)

    first, second = by_row(run(store, augment=own, key=(7,))), by_row(run(store, augment=own, key=(7,), prefetch=0))
    assert first == second
    drawn = {row: keyed.generator(7, row, 0).integers(256) for row in range(N)}
    assert {row: data[0] for row, data in first.items()} == drawn


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (lambda canvas: canvas, "fails: TypeError"),
        (lambda canvas, rng: None, "fails"),
        (lambda canvas, rng: canvas[0, 0, 0], "fails"),
    ],
)
def test_an_own_callable_that_fails_is_told_with_its_signature(store: Store, own: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(run(store, augment=own))
    (problem,) = caught.value.problems
    assert (problem.where, told in problem.what) == ("augment", True)
    assert "a numpy Generator" in problem.remedy


def test_an_unreadable_row_is_an_error_with_its_name() -> None:
    broken = Store.build(Rows([corpus.picture(), b""], np.zeros(2, np.int64), ("good", "bad")), SPEC)
    with pytest.raises(DataError, match="bad: is empty"):
        list(batches(broken, np.zeros(2), SPEC, batch_size=2, order=np.arange(2)))
    assert len(list(batches(broken, np.zeros(2), SPEC, batch_size=2, order=broken.usable))) == 1


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_stopping_early_and_failing_leave_no_thread(store: Store, prefetch: int) -> None:
    for _ in batches(store, np.zeros(N), SPEC, batch_size=2, order=np.arange(N), prefetch=prefetch):
        break

    def failing(_canvas: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
        raise RuntimeError("own mistake")

    with pytest.raises(ConfigError, match="RuntimeError: own mistake"):
        run(store, augment=failing, prefetch=prefetch)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch")]
