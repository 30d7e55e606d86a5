"""Cells as class names: what a string, a number, a truth value or nothing in a label column means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


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


def _named(value: Any, class_names: tuple[str, ...] | None) -> str | None:
    if class_names is None or isinstance(value, str):
        return as_label(value)
    if value is None or value == -1:
        return None
    if not 0 <= int(value) < len(class_names):
        raise IndexError(f"label {value} has no name among the {len(class_names)} of the column")
    return class_names[int(value)]
