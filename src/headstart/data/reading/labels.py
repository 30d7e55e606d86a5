"""Cells as class names: what a string, a number, a truth value, a list or nothing in a label column means.

Shapes: N rows, K labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headstart.core.errors import DataError


def as_label(value: Any) -> str | None:
    """A cell as a class name: strings as they are, whole numbers without a point, nothing for None and NaN.

    Raises:
        TypeError: the cell is no name (a list, a fraction).
    """
    if isinstance(value, str):
        return value
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        if float(value).is_integer():
            return str(int(value))
        raise TypeError(f"{value:g} is a number with a fraction: a measurement, not a class")
    raise TypeError(f"a {type(value).__name__} is not a class name")


def as_labels(
    values: Sequence[Any], class_names: tuple[str, ...] | None, place: Callable[[int], str]
) -> tuple[list[str | None], dict[str, list[str]]]:
    """Class names of cells, and the places of those that are none by reason.

    ``class_names`` name whole numbers, of which -1 means unlabelled (as the Hub's test splits have it).
    """
    known: dict[tuple[type, Any], str | None] = {}
    bad: dict[str, list[str]] = {}
    labels: list[str | None] = []
    for row, value in enumerate(values):
        try:
            key = (type(value), value)
            if key not in known:
                known[key] = _named(value, class_names)
            labels.append(known[key])
        except (TypeError, IndexError) as error:
            reason = f"a {type(value).__name__} is not a class name" if "unhashable" in str(error) else str(error)
            bad.setdefault(reason, []).append(place(row))
            labels.append("?")
    return labels, bad


SEPARATORS = "|;,"
_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def is_list(value: Any) -> bool:
    """Whether a cell holds any number of labels."""
    return isinstance(value, (list, tuple, set, frozenset)) or getattr(value, "ndim", 0) == 1


def separator_of(values: Sequence[Any], place: str) -> str | None:
    """The one sign that parts the labels of rows that are known to have several; None where none occurs.

    Raises:
        DataError: more than one sign may be it.
    """
    texts = [value for value in values if isinstance(value, str)]
    found = [sign for sign in SEPARATORS if any(sign in text for text in texts)]
    if len(found) > 1:
        what = f"the labels hold {' and '.join(map(repr, found))}: what parts the labels of a row?"
        raise DataError(what, where=place, remedy=f"label_separator='{found[0]}'")
    return found[0] if found else None


def as_label_sets(
    values: Sequence[Any], separator: str | None, class_names: tuple[str, ...] | None, place: Callable[[int], str]
) -> tuple[list[tuple[str, ...] | None], dict[str, list[str]]]:
    """Class names of cells that may hold several, and the places of cells that cannot be read, by reason.

    A cell is a list, or a text that ``separator`` parts. An empty list or text says that a row has no label; None is a
    row that nobody labelled, but in a column of texts, where nothing is written for it either.
    """
    bad: dict[str, list[str]] = {}
    found: list[tuple[str, ...] | None] = []
    texts = not any(is_list(value) for value in values)
    for row, value in enumerate(values):
        try:
            found.append(_label_set(value, separator, class_names, texts))
        except (TypeError, IndexError, ValueError) as error:
            bad.setdefault(str(error), []).append(place(row))
            found.append(())
    return found, bad


def _label_set(
    value: Any, separator: str | None, class_names: tuple[str, ...] | None, texts: bool
) -> tuple[str, ...] | None:
    if is_list(value):
        named = [_named(each, class_names) for each in value]
        if None in named:
            raise TypeError("a list with an empty place: leave it out")
        return tuple(dict.fromkeys(str(each) for each in named))
    name = _named(value, class_names)
    if name is None:
        return () if texts else None
    parts = name.split(separator) if separator else [name]
    return tuple(dict.fromkeys(part for part in parts if part.strip()))


def remedy_of_missing(labels: Sequence[Any], several: bool) -> str:
    """What to do about rows without a label: where other cells look like several, an empty one may mean none."""
    if several:
        return "label them ([] says that a row has none), or remove them"
    joined = next((label for label in labels if isinstance(label, str) and any(s in label for s in SEPARATORS)), None)
    if joined is None:
        return "label them, or remove them"
    means = f"if '{joined}' is several labels, task=multilabel says so, and an empty cell has none"
    return f"{means}; else label them, or remove them"


def as_marks(values: Sequence[Any], place: Callable[[int], str]) -> tuple[list[bool], dict[str, list[str]]]:
    """Whether each row has the label that a column of 0 and 1 is about, and the places of other cells by reason."""
    bad: dict[str, list[str]] = {}
    marks: list[bool] = []
    for row, value in enumerate(values):
        mark = _MARKS.get(str(value).strip().lower())
        if mark is None:
            bad.setdefault(f"'{str(value)[:40]}' is neither 0 nor 1", []).append(place(row))
        marks.append(bool(mark))
    return marks, bad


def matrix_of(labels: Any, task: str, source: str, notes: list[str]) -> np.ndarray | None:
    """(N, K) bool where the labels are a matrix of 0 and 1, or a vector of these a row; None where they are names.

    Raises:
        DataError: a matrix of other numbers, or every row has exactly one 1 and nobody says what that means.
    """
    rows = labels.to_numpy() if hasattr(labels, "to_numpy") else labels
    if getattr(rows, "ndim", 1) != 2:
        vectors = isinstance(rows, list) and rows and all(getattr(row, "ndim", 0) == 1 for row in rows)
        if not vectors or len({len(row) for row in rows}) > 1 or np.asarray(rows[0]).dtype.kind not in "buif":
            return None
        rows = np.stack([np.asarray(row) for row in rows])
    values = np.asarray(rows)
    if not np.isin(values, (0, 1)).all():
        what = f"y has shape {values.shape} and values besides 0 and 1"
        raise DataError(what, where=source, remedy="write 1 where a row has the label, else 0")
    if task == "auto" and (values.sum(axis=1) == 1).all():
        remedy = "one-hot rows: give y.argmax(1); where rows may have several labels, say task=multilabel"
        raise DataError(f"y has shape {values.shape}, and a single 1 in every row", where=source, remedy=remedy)
    notes.append(f"a matrix of 0 and 1 {values.shape}: a row may have several labels, or none (task multilabel)")
    return values > 0


def _named(value: Any, class_names: tuple[str, ...] | None) -> str | None:
    if class_names is None or isinstance(value, str):
        return as_label(value)
    if value is None or value == -1:
        return None
    if not 0 <= int(value) < len(class_names):
        raise IndexError(f"label {value} has no name among the {len(class_names)} of the column")
    return class_names[int(value)]
