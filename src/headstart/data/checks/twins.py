"""The audit of copies: the same or nearly the same content within a split, in two splits, or under two labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from headstart.core.plural import plural
from headstart.data.checks.duplicates import Duplicates, find
from headstart.data.checks.findings import Finding, Severity, View, listed
from headstart.data.splits import UNLABELLED

Place = tuple[View, int]  # a row of a split
_WORDS = {"exact": "the same", "near": "nearly the same"}  # picture, text, recording


def check(views: list[View], classes: tuple[str, ...], twins: Duplicates | None) -> list[Finding]:
    """Exact and near copies over all splits together; across splits they are leaks."""
    place = [(view, row) for view in views for row in range(len(view.store))]
    if twins is None:
        digests = [digest for view in views for digest in view.store.digests]
        twins = find(digests, np.concatenate([view.store.sketches for view in views]), views[0].store.modality)
    findings = _by_splits("exact", (pair for rows in twins.exact for pair in _links(rows, place)), place)
    findings += _by_splits("near", ((a, b) for a, b, _ in twins.near), place)
    findings += _conflicts(twins, place, classes)
    if not twins.searched_near:
        text = f"near duplicates were not looked for among {len(place)} rows, only exact ones"
        findings.append(Finding("near-duplicates-skipped", "info", views[0].split, (), (), text))
    return findings


def _links(rows: tuple[int, ...], place: list[Place]) -> Iterable[tuple[int, int]]:
    """Each row of a group with the first of its own split, and with the first of every earlier split."""
    firsts: dict[str, int] = {}
    for row in rows:
        split = place[row][0].split
        yield from ((first, row) for other, first in firsts.items() if other != split)
        if split in firsts:
            yield firsts[split], row
        firsts.setdefault(split, row)


def _by_splits(kind: str, pairs: Iterable[tuple[int, int]], place: list[Place]) -> list[Finding]:
    grouped: dict[tuple[str, str], list[tuple[Place, Place]]] = {}
    for a, b in pairs:
        grouped.setdefault((place[a][0].split, place[b][0].split), []).append((place[a], place[b]))
    return [_finding(kind, first, second, found) for (first, second), found in grouped.items()]


def _finding(kind: str, first: str, second: str, pairs: list[tuple[Place, Place]]) -> Finding:
    later = {row: f"{view.rows.names[row]} = {other.rows.names[twin]}" for (other, twin), (view, row) in pairs}
    rows, told = tuple(sorted(later)), listed([later[row] for row in sorted(later)])
    view = pairs[0][1][0]
    noun = view.store.kind.NOUN[0]
    names = tuple(view.rows.names[row] for row in rows)
    of = f"of {len(view.store):,}"
    if first == second:
        are = plural(len(rows), f"{of} is", f"{of} are")
        message = f"{are} {_WORDS[kind]} {noun} as another row: {told}"
        remedy = "remove the copies; where Headstart makes the split, copies stay together"
        return Finding(f"{kind}-duplicates", "info", first, rows, names, message, remedy)
    are = plural(len(rows), f"{of} {second} rows is", f"{of} {second} rows are")
    message = f"{are} {_WORDS[kind]} {noun} as a row of {first}: {told}"
    remedy = f"remove them from one of the two: what is measured on {second} is too good with them"
    return Finding(f"{kind}-duplicates-across", "warning", f"{first}+{second}", rows, names, message, remedy)


def _conflicts(twins: Duplicates, place: list[Place], classes: tuple[str, ...]) -> list[Finding]:
    """One content under two labels: at least one of them is wrong."""
    near = [(a, b) for a, b, _ in twins.near]
    findings = _conflicting("exact", "conflicting-labels", "warning", twins.exact, place, classes)
    return findings + _conflicting("near", "conflicting-labels-near", "info", near, place, classes)


def _named(place: Place, classes: tuple[str, ...]) -> str:
    """A row with its split and label: train a.png (cat)."""
    view, row = place
    label = _label(place)
    own = [classes[index] for index in np.flatnonzero(label)] if isinstance(label, tuple) else []
    own = [classes[label]] if isinstance(label, int) and label != UNLABELLED else own
    return f"{view.split} {view.rows.names[row]} ({', '.join(own) or 'no label'})"


def _label(place: Place) -> int | tuple[int, ...]:
    """The class of a row, or the marks of all labels where it may have several."""
    view, row = place
    found = view.rows.labels[row].tolist()
    return tuple(found) if isinstance(found, list) else int(found)


def _conflicting(
    kind: str,
    name: str,
    severity: Severity,
    groups: Sequence[tuple[int, ...]],
    place: list[Place],
    classes: tuple[str, ...],
) -> list[Finding]:
    by_split: dict[str, dict[int, tuple[str, ...]]] = {}  # a row, and the two sides of what is told of it
    for group in groups:
        labels = {row: _label(place[row]) for row in group}
        if len(set(labels.values()) - {UNLABELLED}) < 2:
            continue
        for row, label in labels.items():
            view, own = place[row]
            other = next(twin for twin, its in labels.items() if its not in (label, UNLABELLED))
            sides = (_named(place[row], classes), _named(place[other], classes))
            by_split.setdefault(view.split, {})[own] = sides
    views = {view.split: view for view, _ in place}
    noun = place[0][0].store.kind.NOUN[0]
    findings = []
    for split, told in by_split.items():
        rows = sorted(told)
        pairs = {frozenset(told[row]): " = ".join(told[row]) for row in reversed(rows)}  # once, by its first row
        text = f"{_WORDS[kind]} {noun} under two labels: {listed([*reversed(pairs.values())])}"
        names = tuple(views[split].rows.names[row] for row in rows)
        findings.append(Finding(name, severity, split, tuple(rows), names, text, "correct or remove them"))
    return findings
