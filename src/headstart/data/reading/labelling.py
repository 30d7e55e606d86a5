"""What the label columns of a table say of its rows: one class each, or any number of labels.

Shapes: N rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.core.errors import Problem
from headstart.data.reading.collection import Found, listing
from headstart.data.reading.labels import as_label_sets, as_labels, as_marks, is_list, separator_of
from headstart.data.reading.tables import Table, as_list

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings

MANY, DIFFERENT = 20, 0.8  # different numbers, and their share, from which on labels may be a quantity


def label(found: Found, table: Table, columns: Sequence[str], settings: DataSettings) -> None:
    """Label the rows of ``found`` by one column, or by several of 0 and 1; mistakes go to its problems."""
    if isinstance(settings.label_column, tuple):
        found.several, found.classes = True, tuple(columns)
        found.labels = _marked(table, columns, found.problems)
        return
    found.several = _several(table, columns[0], settings, found.notes)
    found.classes = table.class_names.get(columns[0])
    if found.several:
        found.labels = _label_sets(table, columns[0], settings, found)
    else:
        found.labels = _labels(table, columns[0], found.problems)


def _several(table: Table, column: str, settings: DataSettings, notes: list[str]) -> bool:
    """Whether a row may have several labels: asked for, or certain, as the cells are lists; said aloud then."""
    if settings.task != "auto" or settings.label_separator is not None:
        return settings.task != "classify"
    values = as_list(table.columns[column])
    if any(map(is_list, values)) and all(value is None or is_list(value) for value in values):
        notes.append(f"column '{column}' holds lists: a row may have several labels, or none (task multilabel)")
        return True
    hint = _looks_parted(values)
    if hint:
        notes.append(f"labels such as '{hint}' are taken as they are; where they are several, say task=multilabel")
    if _look_measured(values):
        what = f"column '{column}' holds decimal numbers, nearly all of them different"
        notes.append(f"{what}: each is a class of its own here, where a quantity should be put into a few bins first")
    return False


def _look_measured(values: Sequence[Any]) -> bool:
    """Whether labels seem to be a quantity: decimal numbers, nearly all of them different."""
    try:
        numbers = [float(value) for value in values if value is not None]
    except (TypeError, ValueError, OverflowError):
        return False
    numbers = [number for number in numbers if math.isfinite(number)]
    different = set(numbers)
    decimal = any(not number.is_integer() for number in different)
    return decimal and len(different) > max(MANY, DIFFERENT * len(numbers))


def _looks_parted(values: Sequence[Any]) -> str:
    """A label whose parts, at a bar or semicolon, all stand in others of the column too; "" where there is none."""
    names = {value for value in values if isinstance(value, str)}
    for sign in "|;":
        times = Counter(part for name in names for part in {*name.split(sign)})
        parted = (name for name in sorted(names) if sign in name and min(times[part] for part in name.split(sign)) > 1)
        if found := next(parted, ""):
            return found
    return ""


def _labels(table: Table, column: str, problems: list[Problem]) -> list[str | None]:
    values = as_list(table.columns[column])
    labels, bad = as_labels(values, table.class_names.get(column), table.place)
    _tell_bad(bad, table, problems, "labels are names or whole numbers")
    return labels


def _label_sets(table: Table, column: str, settings: DataSettings, found: Found) -> list[tuple[str, ...] | None]:
    values = as_list(table.columns[column])
    separator = settings.label_separator
    if separator is None and not any(map(is_list, values)):
        separator = separator_of(values, f"{table.source}, column '{column}'")
        how = "no sign parts them: one label a row" if separator is None else f"'{separator}' parts them"
        found.notes.append(f"labels of column '{column}': {how} (label_separator=… says otherwise)")
    labels, bad = as_label_sets(values, separator, table.class_names.get(column), table.place)
    _tell_bad(bad, table, found.problems, "labels are names or whole numbers, and lists of these")
    return labels


def _marked(table: Table, columns: Sequence[str], problems: list[Problem]) -> list[tuple[str, ...]]:
    """The labels of rows of which every label has a column of 0 and 1."""
    marks = []
    for name in columns:
        found, bad = as_marks(as_list(table.columns[name]), table.place)
        told = {f"column '{name}': {reason}": places for reason, places in bad.items()}
        _tell_bad(told, table, problems, "write 1 where a row has the label, else 0")
        marks.append(found)
    return [tuple(name for name, mark in zip(columns, row, strict=True) if mark) for row in zip(*marks, strict=True)]


def _tell_bad(bad: dict[str, list[str]], table: Table, problems: list[Problem], remedy: str) -> None:
    for reason, places in list(bad.items())[:10]:
        problems.append(Problem(f"{reason}: {listing(places)}", table.source, remedy))
