"""Items without labels, as ``predict`` takes them: folders of files, one file, a table of paths, a list, arrays.

Shapes: N rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headstart.core.errors import ConfigError, DataError, Problem
from headstart.core.registry import suggest
from headstart.data.reading.arrays import as_pictures, with_rate
from headstart.data.reading.collection import printable
from headstart.data.reading.columns import from_columns, holds
from headstart.data.reading.folders import item_of, walk
from headstart.data.reading.guess import EXTENSIONS
from headstart.data.reading.objects import table_of
from headstart.data.reading.tables import TABLES, Table, as_list, read_table
from headstart.data.splits import UNLABELLED, Rows

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings


class Usual(NamedTuple):
    """What a run learned from, which is taken of other data where nothing else is told."""

    input_column: str | None = None  # of tables that have it
    sampling_rate: int | None = None  # of samples that are given as arrays alone


NOTHING = Usual()


def find_unlabelled(
    source: Any, modality: str, settings: DataSettings, usual: str | None = None
) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a source, and what was left out, in sentences.

    Args:
        usual: the column of a table where no other is told and the table has it.

    Raises:
        ConfigError: a column is told, and there is no table.
        DataError: nothing there, or files that do not exist (all of them named); of a table only where all are missing.
    """
    if settings.input_column is not None and not _has_table(source):
        what = f"input_column is '{settings.input_column}', and no table is given"
        raise ConfigError(what, where="data.input_column", remedy=f"leave it out; tables end in {', '.join(TABLES)}")
    notes: list[str] = []
    items: Sequence[Any]
    names: Sequence[str]
    if isinstance(source, (set, frozenset)):
        raise DataError("a set has no order: which answer is whose?", where="data", remedy="give a list")
    if isinstance(source, Iterator) and not hasattr(source, "read"):
        source = list(source)
    if modality == "text" and _is_text(source):
        items, names = [source], ["row 0"]
    elif isinstance(source, (str, os.PathLike)):
        items, names = _from_path(os.fspath(source), modality, settings, usual, notes)
    elif (table := table_of(source)) is not None:
        items, names = _from_table(table, modality, settings, usual, notes)
    elif _names_texts(source) if modality == "text" else _names_folders(source):
        items, names = _from_paths([os.fspath(part) for part in source], modality, settings, usual, notes)
    else:
        items, names = _from_object(source, modality, settings, notes)
    if not len(items):
        where = str(source) if isinstance(source, (str, os.PathLike)) else ""
        raise DataError(f"there is nothing to predict{''.join(f'; {note}' for note in notes)}", where=where)
    labels = np.full(len(items), UNLABELLED, dtype=np.int64)
    return Rows(items=items, labels=labels, names=tuple(map(printable, names))), tuple(notes)


def unknown_path(written: str) -> DataError:
    """There is no such path: the nearest name beside it, or where the path ends to exist."""
    if "://" in written:
        remedy = "download it and give the files; Hub datasets are hf://datasets/owner/name"
        return DataError("an address on the network is not read", where=written, remedy=remedy)
    parent, missing = os.path.split(os.path.abspath(os.path.expanduser(written)))
    while not os.path.isdir(parent):
        parent, missing = os.path.split(parent)
    near = suggest(missing, (name for name in os.listdir(parent) if not name.startswith(".")))
    remedy = f"in {parent}{near}" if near else f"'{missing}' is not in {parent}; a Hub dataset is named owner/name"
    return DataError("there is no such file or folder", where=written, remedy=remedy)


def _has_table(source: Any) -> bool:
    if table_of(source) is not None:
        return True
    parts = [source] if isinstance(source, (str, os.PathLike)) else source if isinstance(source, (list, tuple)) else []
    return any(isinstance(part, (str, os.PathLike)) and os.fspath(part).lower().endswith(TABLES) for part in parts)


def _from_path(
    written: str, modality: str, settings: DataSettings, usual: str | None, notes: list[str]
) -> tuple[Sequence[Any], Sequence[str]]:
    if not written.strip():
        raise DataError(
            "an empty name is no file and no folder", where="data", remedy="'.' is the folder of this process"
        )
    path = os.path.abspath(os.path.expanduser(written))
    if os.path.isdir(path):
        found = walk(path, modality)
        notes += found.notes()
        if found.denied:
            raise DataError(problems=[Problem("the folder cannot be listed", place) for place in found.denied])
        return [item_of(os.path.join(path, name), modality) for name in found.files], found.files
    if not os.path.exists(path):
        raise unknown_path(written)
    if os.path.splitext(path)[1].lower() in TABLES:
        return _from_table(read_table(path, written), modality, settings, usual, notes)
    return [item_of(path, modality)], [os.path.basename(path)]  # whatever its extension: the decoder decides


def _names_folders(source: Any) -> bool:
    """Whether it is a list of places, not only of pictures."""
    if not isinstance(source, (list, tuple)) or not all(isinstance(part, (str, os.PathLike)) for part in source):
        return False
    return any(
        os.path.isdir(os.path.expanduser(part)) or os.path.splitext(part)[1].lower() in TABLES for part in source
    )


def _from_paths(
    places: Sequence[str], modality: str, settings: DataSettings, usual: str | None, notes: list[str]
) -> tuple[Sequence[Any], Sequence[str]]:
    """Folders and files one after the other; a name begins with the folder as it was written, so that none collide."""
    items: list[Any] = []
    names: list[str] = []
    problems: list[Problem] = []
    for place in places:
        told: list[str] = []
        try:
            found, inside = _from_path(place, modality, settings, usual, told)
        except DataError as error:
            problems += error.problems
            continue
        items += list(found)
        alone = list(found) == [os.path.abspath(os.path.expanduser(place))]
        names += [place] if alone else [os.path.join(place, name) for name in inside]
        notes += [f"{printable(place)}: {note}" for note in told if note]
        if not len(found):
            notes.append(f"{printable(place)}: nothing to predict is in it")
    if problems:
        raise DataError(f"{len(problems)} sources cannot be read", problems=problems)
    return items, names


def _from_table(
    table: Table, modality: str, settings: DataSettings, usual: str | None, notes: list[str]
) -> tuple[Sequence[Any], Sequence[str]]:
    if settings.input_column is None and holds(table.columns, usual):
        settings = replace(settings, input_column=usual)
    found = from_columns(table, modality, settings, labelled=False)
    if found.problems:
        raise DataError(f"{len(found.problems)} problems in {found.source}", problems=found.problems)
    notes += found.notes
    return found.items, found.names


def _names_texts(source: Any) -> bool:
    """Whether a list of strings names places of texts rather than being the texts: all of them are files or end like
    files, or one is a path and no string."""
    if not isinstance(source, (list, tuple)) or not all(isinstance(part, (str, os.PathLike)) for part in source):
        return False
    return any(isinstance(part, os.PathLike) for part in source) or all(map(_is_like_a_file, source))


def _is_like_a_file(part: str) -> bool:
    return os.path.isfile(part) or (len(part.split()) == 1 and part.lower().endswith((*TABLES, *EXTENSIONS["text"])))


def _is_text(source: Any) -> bool:
    """Whether a string is a text rather than a path: several words, or none, and no such file."""
    return isinstance(source, str) and len(source.split()) != 1 and not os.path.exists(os.path.expanduser(source))


def _from_object(
    source: Any, modality: str, settings: DataSettings, notes: list[str]
) -> tuple[Sequence[Any], Sequence[str]]:
    """A list of items, arrays (N, H, W[, C]), or one picture: an array (H, W) or (H, W, 3 or 4), bytes, Pillow's; of
    sounds arrays (N, T), a list of (T,) or (T, A), or one (T,)."""
    if modality != "image":
        pair = isinstance(source, tuple) and len(source) == 2  # two texts, or samples with their rate
        alone = isinstance(source, (bytes, dict)) or (pair and (modality == "text" or not isinstance(source[0], str)))
        numbers = hasattr(source, "detach") or getattr(getattr(source, "dtype", None), "kind", "") in tuple("iuf")
        axes = len(source.shape) if modality == "audio" and numbers else 0
        if alone or axes == 1 or not hasattr(source, "__len__"):
            listed = [source]
        else:
            listed = list(source) if axes else as_list(source)
        if modality == "audio":
            listed = with_rate(listed, "data", settings)
            if listed and len(getattr(listed[0], "shape", ())) == 2:
                raise DataError(
                    "samples without a rate", where="data", remedy="sampling_rate=16_000, or (samples, rate)"
                )
        if modality == "text" or not all(isinstance(item, (str, os.PathLike)) for item in listed):
            return listed, [f"row {row}" for row in range(len(listed))]
        source = listed
    shape = getattr(source, "shape", None)
    alone = shape is not None and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4)))
    if alone or isinstance(source, (bytes, dict)) or not hasattr(source, "__len__"):
        return [source], ["row 0"]
    items = as_pictures(source, "data", notes)
    if isinstance(items, np.ndarray):
        return items, [f"row {row}" for row in range(len(items))]
    names = [
        os.fspath(item) if isinstance(item, (str, os.PathLike)) else f"row {row}" for row, item in enumerate(items)
    ]
    paths = [row for row, item in enumerate(items) if isinstance(item, (str, os.PathLike))]
    if missing := [row for row in paths if not os.path.isfile(names[row])]:
        raise DataError(problems=[Problem("there is no such file", printable(names[row])) for row in missing])
    chosen = {row: os.path.abspath(names[row]) for row in paths}
    return [chosen.get(row, item) for row, item in enumerate(items)], names
