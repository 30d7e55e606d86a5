"""From a table's columns to rows: which column is what, labels as names, paths that exist, splits and groups.

Tables, data frames and `datasets` objects all pass through here. Shapes: N rows.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headstart.core.errors import DataError, Problem
from headstart.core.plural import plural
from headstart.core.registry import suggest
from headstart.data.modalities.base import Unreadable
from headstart.data.reading import labelling
from headstart.data.reading.collection import SPLITS, Found, clean_label, listing, printable, split_name
from headstart.data.reading.folders import grouping_note, path_groups
from headstart.data.reading.guess import INPUT_NAMES, PAIRED, of_columns
from headstart.data.reading.tables import Table, as_list
from headstart.data.splits import LazyItems

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings

LABEL_NAMES = (
    *("label", "class", "target", "category", "y", "labels", "class_name", "label_name"),
    *("sentiment", "intent", "emotion", "species", "breed"),
)
SPLIT_NAMES = ("split", "subset", "partition")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")


def from_columns(table: Table, modality: str, settings: DataSettings, *, labelled: bool = True) -> Found:
    """Rows of a table.

    Raises:
        DataError: a named column does not exist, or none has a familiar name; all of them at once.
    """
    problems = list(table.problems)
    notes = list(table.notes)
    if modality == "auto":
        named = settings.input_column or next(iter(table.typed), None)
        modality = table.typed[named] if named in table.typed else of_columns(table.columns, named, familiar)
    second = None
    if modality == "text":
        settings, second = _paired(table, settings, notes)
    typed_inputs = [name for name, kind in table.typed.items() if kind == modality]
    inputs = _choose(table, "input", settings.input_column, INPUT_NAMES[modality], problems, notes, typed_inputs)
    labels_in, marked = None, settings.label_column if isinstance(settings.label_column, tuple) else ()
    if labelled and marked:
        for name in marked:
            _choose(table, "label", name, (), problems, notes)
        labels_in = marked[0]
    elif labelled:
        typed, named = tuple(table.class_names), cast("str | None", settings.label_column)
        labels_in = _choose(table, "label", named, LABEL_NAMES, problems, notes, typed)
    if labelled and len(table.columns) == 2 and (inputs is None) != (labels_in is None):
        inputs, labels_in = _other_of_two(table, inputs, labels_in, settings, problems, notes)
    split_in = _choose(table, "split", settings.split_column, SPLIT_NAMES, problems, notes, needed=False)
    notes += _taken(inputs, labels_in, split_in, settings)
    group_by = settings.split.group_by if labelled else None
    group_in = _group_column(table, group_by, modality, problems)
    if inputs is not None and inputs == labels_in:
        what = f"column '{inputs}' is both what is learned from and what is learned"
        problems.append(Problem(what, table.source, "input_column=… and label_column=… name two columns"))
    if inputs is None or (labelled and labels_in is None) or not {*marked} <= {*table.columns}:
        raise DataError(f"{len(problems)} problems in {table.source}", problems=problems)
    found = Found(
        items=table.columns[inputs] if second is None else _pairs(table, inputs, second),
        labels=[],
        names=[f"row {row}" for row in range(len(table.columns[inputs]))],
        source=table.source,
        modality=modality,
        notes=notes,
        problems=problems,
        place=table.place,
    )
    if labels_in is not None:
        labelling.label(found, table, marked or (labels_in,), settings)
    else:
        found.labels = [None] * len(found.items)
    if split_in is not None and labelled:
        found.given = _given(table, split_in, problems)
    if group_in is not None:
        found.groups = _groups(table, group_in, notes)
    pattern = group_by if group_by is not None and "(" in group_by and group_in is None else None
    if modality == "text":
        found.items = found.items if isinstance(found.items, LazyItems) else as_list(found.items)
        return found
    return _with_paths(found, table, settings, pattern, labelled)


def _paired(table: Table, settings: DataSettings, notes: list[str]) -> tuple[DataSettings, str | None]:
    """The column of the second texts, where the rows are pairs: named as ``first,second``, or by a familiar name."""
    named = settings.input_column
    if named is not None and named not in table.columns and "," in named:
        first, _, second = (part.strip() for part in named.partition(","))
        if second in table.columns:
            return replace(settings, input_column=first), second
    by_name = {familiar(name): name for name in table.columns}
    for first, second in PAIRED.items():
        if first in by_name and second in by_name and named is None:
            told = f"pairs of texts: '{by_name[first]}' with '{by_name[second]}'"
            notes.append(f"{told} (input_column=… chooses one column, or two as first,second)")
            return replace(settings, input_column=by_name[first]), by_name[second]
    return settings, None


def holds(columns: Collection[str], named: str | tuple[str, ...] | None) -> bool:
    """Whether a table has the column, or all of the columns (``first,second`` are a pair of texts)."""
    if named is None or named in columns:
        return named is not None
    parts = map(str.strip, named.split(",")) if isinstance(named, str) else named
    return {*parts} <= {*columns}


def _pairs(table: Table, first: str, second: str) -> list[Any]:
    return list(zip(as_list(table.columns[first]), as_list(table.columns[second]), strict=True))


def _taken(inputs: str | None, labels: str | None, splits: str | None, settings: DataSettings) -> list[str]:
    """Which columns were guessed, in one sentence; none where the user named them."""
    found = {
        "input": (inputs, settings.input_column),
        "label": (labels, settings.label_column),
        "split": (splits, settings.split_column),
    }
    guessed = {role: column for role, (column, named) in found.items() if column is not None and named is None}
    if not guessed:
        return []
    told = ", ".join(f"{role} '{column}'" for role, column in guessed.items())
    return [f"columns taken by their names or kinds: {told} ({next(iter(guessed))}_column=… chooses another)"]


def familiar(name: str) -> str:
    """How column names are compared: lower case, with underscores."""
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def _choose(
    table: Table,
    role: str,
    named: str | None,
    familiar_names: Sequence[str],
    problems: list[Problem],
    notes: list[str],
    typed: Sequence[str] = (),
    *,
    needed: bool = True,
) -> str | None:
    """The column for a role: the one that is named, else the one of its type, else the first with a familiar name."""
    shown = listing(table.columns) or "no columns"
    columns = list(typed or table.columns)
    if named is not None:
        if named in table.columns:
            return named
        parts = [part.strip() for part in named.split(",")]  # a pair is missed by the part that is missing
        pair = role == "input" and len(parts) == 2
        missed = next((part for part in parts if part not in table.columns), named) if pair else named
        what = f"there is no column '{missed}'{suggest(missed, table.columns)} (there are: {shown})"
        problems.append(Problem(what, table.source, f"{role}_column=… names one of them"))
        return None
    if len(typed) == 1:
        return typed[0]
    by_name: dict[str, list[str]] = {}
    for column in columns:
        by_name.setdefault(familiar(column), []).append(column)
    hits = [column for name in familiar_names for column in by_name.get(name, [])]
    if hits:
        if len(hits) > 1:
            notes.append(f"{role} column: '{hits[0]}' (not {listing(hits[1:])}; {role}_column=… chooses)")
        return hits[0]
    if needed:
        remedy = f"name it with {role}_column=…; familiar names are {', '.join(familiar_names[:6])}"
        what = f"no column looks like the {role} (there are: {shown})"
        if any(os.path.splitext(column)[1] for column in columns):
            what += "; the first line looks like data: add a header line such as path,label"
        problems.append(Problem(what, table.source, remedy))
    return None


def _other_of_two(
    table: Table,
    inputs: str | None,
    labels: str | None,
    settings: DataSettings,
    problems: list[Problem],
    notes: list[str],
) -> tuple[str | None, str | None]:
    """With two columns of which one is known, the other is the other, unless the user named one that is not there."""
    role, named = ("input", settings.input_column) if inputs is None else ("label", settings.label_column)
    if named is not None:
        return inputs, labels
    other = next(column for column in table.columns if column not in (inputs, labels))
    notes.append(f"{role} column: '{other}', the only other one")
    problems.remove(next(problem for problem in problems if f"looks like the {role}" in problem.what))
    return (other, labels) if inputs is None else (inputs, other)


def _group_column(table: Table, group_by: str | None, modality: str, problems: list[Problem]) -> str | None:
    if group_by is None or group_by in table.columns:
        return group_by
    if "(" in group_by and modality == "text":
        what = f"group_by: a regular expression is searched in the names of files, and texts have none ('{group_by}')"
        problems.append(Problem(what, table.source, "name a column of groups"))
    if "(" not in group_by:
        what = f"group_by: there is no column '{group_by}'{suggest(group_by, table.columns)}"
        problems.append(Problem(what, table.source, "name a column, or give a regular expression with one (group)"))
    return None


def _given(table: Table, column: str, problems: list[Problem]) -> np.ndarray:
    values = [value if isinstance(value, str) else "" for value in as_list(table.columns[column])]
    splits = [split_name(value) for value in values]
    bad = [f"'{values[row]}' ({table.place(row)})" for row, split in enumerate(splits) if split is None]
    if bad:
        what = f"split column '{column}': {plural(len(bad), 'row names', 'rows name')} no split: {listing(bad)}"
        problems.append(Problem(what, table.source, "write train, val or test; rename the column if it means else"))
    return np.array([SPLITS.index(split or "train") for split in splits], dtype=np.int8)


def _groups(table: Table, column: str, notes: list[str]) -> list[str]:
    """Group names of a column; rows without one are groups of their own."""
    names = ["" if value is None or value != value else str(value) for value in as_list(table.columns[column])]
    alone = [row for row, name in enumerate(names) if not name.strip()]
    groups = [f"group:{clean_label(name)}" if name.strip() else f"alone:{row}" for row, name in enumerate(names)]
    if alone:
        places = listing(table.place(row) for row in alone)
        notes.append(f"where column '{column}' is empty, each row is a group of its own: {places}")
    notes.append(grouping_note(column, groups))
    return groups


def _with_paths(found: Found, table: Table, settings: DataSettings, pattern: str | None, labelled: bool) -> Found:
    """Paths made absolute and checked, rows named by them; items that are no paths (arrays, bytes) stay as they are."""
    if not isinstance(found.items, (LazyItems, np.ndarray)):
        found.items = as_list(found.items)
    cells = found.items
    if not any(isinstance(cell, (str, os.PathLike)) for cell in itertools.islice(cells, 100)):
        if pattern is not None:
            what = "group_by as a regular expression needs paths, and the items are none"
            found.problems.append(Problem(what, found.source, "name a column of groups"))
        return found
    missing: dict[int, str] = {}
    written = [os.fspath(cell) if isinstance(cell, (str, os.PathLike)) else "" for cell in cells]
    paths = []
    for row, text in enumerate(written):
        path, reason = _resolved(text, table.base)
        paths.append(path)
        if reason:
            missing[row] = f"{table.place(row)}: {reason}"
    names = _short(written, table.base) if labelled else written
    found.items, found.names = paths, names
    if pattern is not None:
        found.groups = path_groups([name.replace("\\", "/") for name in names], pattern, found.notes)
    _note_contradictions(found)
    if not labelled and len(missing) < len(written):  # each is told where it would have its answer
        found.names = [name if name.strip() else table.place(row) for row, name in enumerate(names)]
        found.items = [
            Unreadable("missing", missing[row]) if row in missing else path for row, path in enumerate(paths)
        ]
        return found
    return _without_missing(found, missing, table.base, settings) if missing else found


def _short(written: Sequence[str], base: str) -> list[str]:
    """Relative paths as they are; absolute ones relative to the table's folder, or to the folder that they share."""
    outside = {os.path.dirname(text) for text in written if os.path.isabs(text) and not text.startswith(base + os.sep)}
    try:
        shared = os.path.commonpath(outside) if outside else base
    except ValueError:  # several drives of Windows
        shared = ""
    starts = tuple(start.rstrip(os.sep) + os.sep for start in (base, shared) if start)
    return [next((text[len(start) :] for start in starts if text.startswith(start)), text) for text in written]


def _resolved(written: str, base: str) -> tuple[str, str]:
    """(absolute path, reason why it cannot be used or "")."""
    if not written.strip() or "\0" in written:
        return written, "no path" if not written.strip() else "zero bytes in the path"
    if _ADDRESS.match(written):
        return written, f"{written} is an address; download the files and give their paths"
    path = os.path.join(base, written)
    if os.path.isfile(path):
        return path, ""
    if "\\" in written and os.path.isfile(other := os.path.join(base, written.replace("\\", "/"))):
        return other, ""
    if os.path.exists(path):
        return path, f"{written} is a folder" if os.path.isdir(path) else f"{written} is no regular file"
    return path, f"{written} does not exist"


def _without_missing(found: Found, missing: dict[int, str], base: str, settings: DataSettings) -> Found:
    """Few missing files are left out and named, many are a mistake (``on_unreadable``, ``max_unreadable``)."""
    total = len(found.items)
    what = f"{len(missing):,} of {total:,} files cannot be found: {listing(missing.values())}"
    if settings.on_unreadable == "stop" or len(missing) > settings.max_unreadable * total:
        remedy = f"relative paths start at {printable(base)}; data.max_unreadable is the share that may be left out"
        found.problems.append(Problem(what, found.source, remedy))
        return found
    found.notes.append(f"{what}; left out")
    return found.keep([row for row in range(total) if row not in missing])


def _note_contradictions(found: Found) -> None:
    """One file, two labels: at most one of them is right."""
    first: dict[str, str | tuple[str, ...] | None] = {}
    torn = [
        name
        for name, path, label in zip(found.names, found.items, found.labels, strict=True)
        if first.setdefault(path, label) != label
    ]
    if torn:
        found.notes.append(f"rows that give a file another label than an earlier row: {listing(torn)}")
