"""Splits and folds: a partition, stratified, whole groups, every class in training. Shapes: N rows, K classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from headstart.core.errors import DataError
from headstart.data.reading.splitting import folds, joined, sample, split
from headstart.data.splits import Rows

SHARES = {"val": 0.15, "test": 0.15}


def rows_of(labels: Sequence[int] | np.ndarray, groups: Sequence[object] | np.ndarray | None = None) -> Rows:
    named = None if groups is None else tuple(map(str, groups))
    return Rows(items=range(len(labels)), labels=np.asarray(labels), names=(), groups=named)


def is_partition(parts: dict[str, np.ndarray], count: int) -> bool:
    return sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))


def straddling(parts: dict[str, np.ndarray], groups: Sequence[object]) -> set[object]:
    homes: dict[object, set[str]] = {}
    for name, rows in parts.items():
        for row in rows:
            homes.setdefault(groups[row], set()).add(name)
    return {group for group, where in homes.items() if len(where) > 1}


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_a_stratified_partition(seed: int) -> None:
    labels = np.random.default_rng(seed).choice(5, 1000, p=[0.4, 0.3, 0.2, 0.07, 0.03])
    parts = split(rows_of(labels), SHARES, seed)
    assert is_partition(parts, 1000)
    assert [len(parts[name]) for name in ("train", "val", "test")] == [700, 150, 150]
    for rows in (parts["val"], parts["test"]):
        assert np.abs(np.bincount(labels[rows]) - 0.15 * np.bincount(labels)).max() <= 1


def test_equal_seeds_give_equal_parts_and_other_seeds_others() -> None:
    labels = np.arange(200) % 4
    first, again, other = (split(rows_of(labels), SHARES, seed)["val"].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_small_classes_stay_in_training_first() -> None:
    labels = [0] * 40 + [1] + [2] * 2 + [3] * 3
    for seed in range(20):
        parts = split(rows_of(labels), SHARES, seed)
        counts = {name: np.bincount(np.asarray(labels)[rows], minlength=4).tolist() for name, rows in parts.items()}
        assert counts["train"][1:] == [1, 1, 1]
        assert counts["val"][1:] == [0, 1, 1]
        assert counts["test"][1:] == [0, 0, 1]


def test_shares_of_many_small_classes_add_up() -> None:
    labels = np.repeat(np.arange(100), 10)  # 1.5 rows a class: some give 1, some 2
    parts = split(rows_of(labels), SHARES, 0)
    assert len(parts["val"]) == len(parts["test"]) == 150
    assert set(np.bincount(labels[parts["val"]]).tolist()) == {1, 2}


@pytest.mark.parametrize("seed", range(10))
def test_groups_never_straddle_and_shares_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.choice(60, 1000, p=rng.dirichlet(np.ones(60)))
    labels = rng.integers(0, 4, 1000)
    parts = split(rows_of(labels, groups), SHARES, seed)
    assert is_partition(parts, 1000)
    assert not straddling(parts, groups.tolist())
    assert all(0.08 < len(parts[name]) / 1000 < 0.22 for name in SHARES)
    for rows in parts.values():  # stratified as well as whole groups allow
        assert np.abs(np.bincount(labels[rows], minlength=4) / len(rows) - np.bincount(labels) / 1000).max() < 0.1


def test_the_straddling_check_catches_a_split_that_ignores_groups() -> None:
    groups = np.repeat(np.arange(50), 4)
    assert straddling(split(rows_of(np.arange(200) % 2), SHARES, 0), groups.tolist())


def test_a_group_that_is_a_class_stays_in_training() -> None:
    labels = np.array([0] * 50 + [1] * 50 + [2] * 30)
    groups = [*range(100), *["all of 2"] * 30]
    parts = split(rows_of(labels, groups), SHARES, 3)
    assert (labels[parts["train"]] == 2).sum() == 30


def test_groups_of_one_class_each_leave_every_class_in_training() -> None:
    for seed in range(20):
        labels = np.repeat([0, 0, 1, 1, 2, 2, 2], 10)
        parts = split(rows_of(labels, np.repeat(np.arange(7), 10)), {"val": 0.3}, seed)
        assert set(labels[parts["train"]]) == {0, 1, 2}
        assert len(parts["val"])


def test_two_large_groups_still_give_a_val_part() -> None:
    labels = np.arange(20) % 2
    parts = split(rows_of(labels, [0] * 12 + [1] * 8), {"val": 0.15}, 0)
    assert (len(parts["train"]), len(parts["val"])) == (12, 8)


def test_no_row_can_be_spared() -> None:
    with pytest.raises(DataError, match="no row can be spared for val"):
        split(rows_of([0, 1, 2]), {"val": 0.15}, 0)
    with pytest.raises(DataError, match="20 rows in 1 group, 2 classes"):
        split(rows_of([0, 1] * 10, ["same"] * 20), {"val": 0.15}, 0)


def test_duplicates_join_groups_in_chains() -> None:
    labels = np.arange(300) % 3
    groups = np.arange(300) // 3
    duplicates = np.arange(300)
    duplicates[[0, 30, 60]] = 1000  # three groups become one
    for seed in range(10):
        parts = split(rows_of(labels, groups), SHARES, seed, duplicates=duplicates)
        assert any({0, 1, 2, 30, 31, 32, 60, 61, 62} <= set(rows.tolist()) for rows in parts.values())


def test_kept_rows_hold_their_groups_in_training() -> None:
    labels, groups = np.arange(200) % 2, np.arange(200) // 4
    keep = np.zeros(200, dtype=bool)
    keep[::40] = True
    for seed in range(10):
        parts = split(rows_of(labels, groups), SHARES, seed, keep=keep)
        assert set(np.flatnonzero(np.isin(groups, groups[keep]))) <= set(parts["train"])
        assert not straddling(parts, groups.tolist())


def test_joined_equals_connected_components() -> None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(0)
    for _ in range(20):
        groups, duplicates = rng.integers(0, 40, 60), rng.integers(0, 40, 60)
        edges = coo_matrix((np.ones(60), (groups, duplicates + 40)), shape=(80, 80))
        expected = connected_components(edges, directed=False)[1][groups]
        found = joined(groups, duplicates)
        assert found is not None
        assert ((found[:, None] == found) == (expected[:, None] == expected)).all()
    assert joined(None, None) is None


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_validate_every_row_once(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 203, p=[0.5, 0.3, 0.15, 0.05])
    groups = rng.integers(0, 70, 203) if grouped else None
    pairs = folds(rows_of(labels, groups), 5, 0)
    assert is_partition({str(i): val for i, (_, val) in enumerate(pairs)}, 203)
    for train, val in pairs:
        assert is_partition({"train": train, "val": val}, 203)
        assert set(labels[val]) <= set(labels[train])
        if groups is not None:
            assert not straddling({"train": train, "val": val}, groups.tolist())
        limit = 1 if groups is None else 5
        assert np.abs(np.bincount(labels[val], minlength=4) - np.bincount(labels) / 5).max() <= limit


def test_folds_without_groups_are_as_equal_as_they_can_be() -> None:
    labels = np.repeat(np.arange(7), 11)
    sizes = [len(val) for _, val in folds(rows_of(labels), 5, 0)]
    assert max(sizes) - min(sizes) <= 1


def test_a_class_of_one_row_is_in_every_training_part() -> None:
    labels = [0] * 10 + [1] * 10 + [2]
    assert all(20 in train and 20 not in val for train, val in folds(rows_of(labels), 5, 0))


@pytest.mark.parametrize("k", [1, 30])
def test_folds_that_cannot_be_made(k: int) -> None:
    with pytest.raises(DataError, match=r"folds? cannot be made of 20"):
        folds(rows_of(np.arange(20) % 2), k, 0)


def test_sample_takes_every_cell_in_proportion() -> None:
    cells = np.array([7] * 900 + [1] * 90 + [4] * 10)
    chosen = sample(cells, 100, 0)
    assert [int((cells[chosen] == cell).sum()) for cell in (7, 1, 4)] == [90, 9, 1]
    assert (sample(cells, 5000, 0) == np.arange(1000)).all()
    assert len(sample(np.arange(50), 10, 0)) == 50  # one a cell at least
    assert (sample(cells, 100, 0) == chosen).all()
    assert (sample(cells, 100, 1) != chosen).any()


@pytest.mark.parametrize(("classes", "groups"), [(10_000, None), (10, 50_000)])
def test_a_hundred_thousand_rows(classes: int, groups: int | None) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 100_000)
    ids = None if groups is None else rng.integers(0, groups, 100_000)
    parts = split(rows_of(labels, ids), SHARES, 0)
    assert is_partition(parts, 100_000)
    assert abs(len(parts["val"]) - 15_000) <= 20
    assert len(np.unique(labels[parts["train"]])) == len(np.unique(labels))
    if ids is not None and groups is not None:
        homes = np.full(groups, -1)
        for code, rows in enumerate(parts.values()):
            assert np.isin(homes[ids[rows]], (-1, code)).all()
            homes[ids[rows]] = code
