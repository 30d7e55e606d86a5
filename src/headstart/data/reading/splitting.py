"""Stratified, grouped, seeded splits and folds: whole groups move together, every class stays in training.

Rows that may have several labels are shared out by their strata (see ``data.splits``), in place of classes.

Shapes: N rows, K classes, S parts (val, test, … or folds), U units (a unit is a group, or a row without one).
Everything is vectorised but for one pass over the groups of more than one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headstart.core.errors import DataError
from headstart.core.plural import plural
from headstart.data.splits import Rows, of_class, strata

_COVERED_FROM = 0.25  # a class whose share amounts to at least this many rows gets one row in the part
_ALWAYS_TRAIN = -1


def split(
    rows: Rows,
    shares: Mapping[str, float],
    seed: int,
    *,
    duplicates: np.ndarray | None = None,
    keep: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Draw parts such as ``{"val": 0.15, "test": 0.15}``; the rest is ``"train"``.

    Args:
        rows: labels and, where given, groups; a group never straddles two parts.
        shares: share of all rows for each part, in order of precedence for classes with few rows.
        seed: equal seeds and rows give equal parts.
        duplicates: (N,) further group ids (near duplicates); groups that touch are joined.
        keep: (N,) True for rows that must stay in train, with all of their group.

    Returns:
        Sorted row indices by part name. A class with one unit is in train only; one with two is in train and in the
        first part; val and test rows of every class follow its share, rounded by largest remainder.

    Raises:
        DataError: a part with a share above zero cannot get a row.
    """
    labels = strata(rows.labels)
    groups = joined(rows.groups, duplicates)
    if groups is None:
        groups = np.arange(len(labels))
    drawable = np.ones(len(labels), dtype=bool) if keep is None else ~np.isin(groups, groups[np.asarray(keep)])
    names = [name for name, share in shares.items() if share > 0]
    rng = np.random.default_rng(seed)
    quotas = _quotas(labels, groups, drawable, [shares[name] for name in names], rng)
    part = _assign(labels, groups, quotas, drawable, rng)
    _fill_empty(part, labels, groups, drawable, len(names))
    _keep_in_training(part, rows.labels, groups, 0)
    for index, name in enumerate(names, start=1):
        if not (part == index).any():
            raise DataError(
                f"no row can be spared for {name}: {plural(len(labels), 'row')} in "
                f"{plural(len(np.unique(groups)), 'group')}, {plural(len(np.unique(labels)), 'class')}",
                remedy="add rows, or give the split yourself; rows of the same contents stay together, and those of a "
                "group (data.split.group_by)",
            )
    return {name: np.flatnonzero(part == index) for index, name in enumerate(["train", *names])}


def folds(
    rows: Rows, k: int, seed: int, *, duplicates: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """``k`` pairs (train, val) of sorted row indices: every row is validated once, stratified, groups kept whole.

    A class with a single unit cannot be validated without leaving training: it is in every train and in no val.

    Raises:
        DataError: fewer than ``k`` units can be validated, or ``k`` is below 2.
    """
    labels = strata(rows.labels)
    groups = joined(rows.groups, duplicates)
    if groups is None:
        groups = np.arange(len(labels))
    lonely = np.isin(labels, np.flatnonzero(_units_per_class(labels, groups) < 2))
    movable = ~np.isin(groups, groups[lonely])
    units = len(np.unique(groups[movable]))
    if k < 2 or units < k:
        parts = plural(units, "independent row or group", "independent rows or groups")
        raise DataError(f"{plural(k, 'fold')} cannot be made of {parts}", remedy="choose 2 ≤ k ≤ rows")
    rng = np.random.default_rng(seed)
    quotas = _fold_quotas(np.bincount(labels[movable], minlength=int(labels.max()) + 1), k)
    fold = np.full(len(labels), _ALWAYS_TRAIN)
    inside = np.flatnonzero(movable)
    fold[inside] = _assign(labels[inside], groups[inside], quotas, np.ones(len(inside), dtype=bool), rng, rest=False)
    _keep_in_training(fold, rows.labels, groups, _ALWAYS_TRAIN)
    return [(np.flatnonzero(fold != index), np.flatnonzero(fold == index)) for index in range(k)]


def sample(cells: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """``limit`` sorted indices, every cell (split and class) in proportion and with one row at least.

    Args:
        cells: (N,) int64, the cell of every row.
    """
    _, cells, counts = np.unique(cells, return_inverse=True, return_counts=True)
    if limit >= len(cells):
        return np.arange(len(cells))
    rng = np.random.default_rng(seed)
    want = counts * (limit / len(cells))
    quota = _rounded(want, np.maximum(1, np.floor(want)).astype(np.int64), counts, limit, rng)
    return np.flatnonzero(_ranks(cells, rng) < quota[cells])


def joined(groups: Sequence[str] | np.ndarray | None, duplicates: np.ndarray | None) -> np.ndarray | None:
    """(N,) int64 group ids such that rows sharing a group *or* a duplicate id share the result; None without either."""
    ids = [np.unique(np.asarray(part), return_inverse=True)[1] for part in (groups, duplicates) if part is not None]
    if len(ids) < 2:
        return ids[0].astype(np.int64) if ids else None
    parent = list(range(int(ids[0].max(initial=-1)) + 1))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first_of: dict[int, int] = {}
    for group, duplicate in np.unique(np.stack(ids), axis=1).T.tolist():
        parent[root(group)] = root(first_of.setdefault(duplicate, group))
    return np.array([root(node) for node in range(len(parent))], dtype=np.int64)[ids[0]]


def _units_per_class(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    return np.bincount(pairs[0], minlength=int(labels.max(initial=-1)) + 1)


def _quotas(
    labels: np.ndarray, groups: np.ndarray, drawable: np.ndarray, shares: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """(S, K) rows that each part should get of each class; every class keeps a row for train."""
    counts = np.bincount(labels)
    units = _units_per_class(labels, groups)
    left = np.minimum(counts - 1, np.bincount(labels[drawable], minlength=len(counts)))
    quotas = np.zeros((len(shares), len(counts)), dtype=np.int64)
    for part, share in enumerate(shares):
        want = share * counts
        room = np.where(units >= part + 2, left, 0)
        base = np.minimum(np.maximum(np.floor(want), want >= _COVERED_FROM).astype(np.int64), room)
        quotas[part] = _rounded(np.minimum(want, room), base, room, round(share * len(labels)), rng)
        left = left - quotas[part]
    return quotas


def _rounded(want: np.ndarray, base: np.ndarray, room: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Largest remainder: add one to the cells furthest below ``want`` until the total is reached (ties by chance)."""
    missing = max(0, total - int(base.sum()))
    short = np.where(base < room, want - base, 0.0)
    order = np.lexsort((rng.random(len(want)), -short))[:missing]
    quota = base.copy()
    quota[order[short[order] > 0]] += 1
    return quota


def _fold_quotas(counts: np.ndarray, k: int) -> np.ndarray:
    """(k, K) rows of each class per fold, the remainders dealt on from class to class so that folds stay equal."""
    start = np.concatenate([[0], np.cumsum(counts % k)[:-1]])
    place = (np.arange(k)[:, None] - start[None, :]) % k
    return counts // k + (place < counts % k)


def _ranks(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) position of every row in a random order of its own cell."""
    order = np.lexsort((rng.random(len(cells)), cells))
    starts = np.concatenate([[0], np.cumsum(np.bincount(cells))[:-1]])
    ranks = np.empty(len(cells), dtype=np.int64)
    ranks[order] = np.arange(len(cells)) - starts[cells[order]]
    return ranks


def _assign(
    labels: np.ndarray,
    groups: np.ndarray,
    quotas: np.ndarray,
    drawable: np.ndarray,
    rng: np.random.Generator,
    *,
    rest: bool = True,
) -> np.ndarray:
    """(N,) part of every row. With ``rest`` part 0 is what no quota asks for; otherwise parts are the quotas' rows."""
    counts = np.bincount(labels, minlength=quotas.shape[1])
    targets = np.concatenate([(counts - quotas.sum(axis=0))[None, :], quotas]) if rest else quotas
    _, unit, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    part = np.zeros(len(labels), dtype=np.int64)
    grouped = sizes[unit] > 1
    if grouped.any():
        part_of_unit = _place_groups(labels, unit, sizes, targets, drawable, rng, rest)
        part[grouped] = part_of_unit[unit[grouped]]
    filled = np.zeros_like(targets)
    np.add.at(filled, (part[grouped], labels[grouped]), 1)
    open_rows = np.flatnonzero(~grouped & drawable)
    remaining = np.maximum(0, targets - filled)
    if rest:  # what is left over goes to train, so train comes last
        remaining = np.roll(remaining, -1, axis=0)
        remaining[-1] = len(labels)
    bounds = np.cumsum(remaining, axis=0)
    if len(open_rows):
        ranks = _ranks(labels[open_rows], rng)
        chosen = (ranks[None, :] >= bounds[:, labels[open_rows]]).sum(axis=0)
        part[open_rows] = (chosen + 1) % len(targets) if rest else np.minimum(chosen, len(targets) - 1)
    return part


def _place_groups(
    labels: np.ndarray,
    unit: np.ndarray,
    sizes: np.ndarray,
    targets: np.ndarray,
    drawable: np.ndarray,
    rng: np.random.Generator,
    rest: bool,
) -> np.ndarray:
    """(U,) part of every unit of more than one row: largest first, each where chi-square to the targets falls most."""
    part_of_unit = np.zeros(len(sizes), dtype=np.int64)
    rows = np.flatnonzero(sizes[unit] > 1)
    pairs, counts = np.unique(np.stack([unit[rows], labels[rows]]), axis=1, return_counts=True)
    content: dict[int, list[tuple[int, int]]] = {}
    for (key, label), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        content.setdefault(key, []).append((label, count))
    fixed = set(unit[~drawable].tolist())
    units = np.array(sorted(content))
    order = units[np.lexsort((rng.random(len(units)), -sizes[units]))].tolist()
    goal = np.maximum(targets, 1e-9).tolist()
    need = targets.astype(float).tolist()
    covered: set[int] = set()
    for key in order:
        classes = content[key]
        chosen = 0
        if key not in fixed and not (rest and any(label not in covered for label, _ in classes)):
            cost = [sum((n * n - 2 * n * need[p][c]) / goal[p][c] for c, n in classes) for p in range(len(goal))]
            chosen = cost.index(min(cost))
        if rest and chosen == 0:
            covered.update(label for label, _ in classes)
        for label, count in classes:
            need[chosen][label] -= count
        part_of_unit[key] = chosen
    return part_of_unit


def _fill_empty(part: np.ndarray, labels: np.ndarray, groups: np.ndarray, drawable: np.ndarray, parts: int) -> None:
    """Give every part that came out empty the smallest unit that train can spare (few, large groups)."""
    for index in range(1, parts + 1):
        if (part == index).any():
            continue
        units, sizes = np.unique(groups[(part == 0) & drawable], return_counts=True)
        for unit in units[np.argsort(sizes, kind="stable")]:
            inside = groups == unit
            if np.isin(labels[inside], labels[(part == 0) & ~inside]).all():
                part[inside] = index
                break


def _keep_in_training(part: np.ndarray, labels: np.ndarray, groups: np.ndarray, train: int) -> None:
    """Move the smallest unit of every label that all lies in one part, and not in ``train``, there.

    Strata keep classes in training; a label that always comes beside rarer ones is none of them.
    """
    for index in range(labels.shape[1] if labels.ndim == 2 else 0):
        rows = np.flatnonzero(of_class(labels, index))
        if not len(rows) or train in part[rows] or (train < 0 and len(np.unique(part[rows])) > 1):
            continue
        units, sizes = np.unique(groups[np.isin(groups, groups[rows])], return_counts=True)
        part[groups == units[sizes.argmin()]] = train
