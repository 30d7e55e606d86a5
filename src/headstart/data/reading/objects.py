"""Python objects as data: data frames, arrays, lists of pairs, dictionaries of splits, torch and `datasets` datasets.

Recognised by what they offer, so that none of their libraries is imported here.
Shapes: N rows, H height, W width, C channels.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.errors import DataError, Problem
from headstart.core.plural import plural
from headstart.data.reading.arrays import as_pictures, with_rate
from headstart.data.reading.collection import SPLITS, Found, listing, merged, split_name
from headstart.data.reading.columns import LABEL_NAMES, familiar, from_columns
from headstart.data.reading.guess import INPUT_NAMES, of_values
from headstart.data.reading.hub import read_datasets
from headstart.data.reading.labels import matrix_of
from headstart.data.reading.tables import Table, as_list
from headstart.data.splits import LazyItems

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings


def read_object(source: Any, modality: str, settings: DataSettings, read: Callable[[Any], Found]) -> Found:
    """Rows of an object; ``read`` reads what a dictionary holds for a split (any source).

    Raises:
        DataError: nothing that this module knows, or its parts do not fit together.
    """
    library = type(source).__module__.partition(".")[0]
    if library == "datasets":
        return read_datasets(source, modality, settings, f"{type(source).__name__} object")
    if library == "pandas" and hasattr(source, "columns"):
        return from_columns(frame_table(source), modality, settings)
    if isinstance(source, Mapping):
        return _read_mapping(source, modality, settings, read)
    if isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], (str, tuple)):
        return _read_arrays(source[0], source[1], modality, settings)
    if isinstance(source, (list, tuple)):
        return _read_list(source, modality, settings)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "dtype"):
        return _read_torch(source, modality, settings)
    raise DataError(
        f"a {type(source).__name__} is no data that can be learned from",
        where="data.source",
        remedy="give a folder, a table, a Hub id, a DataFrame, (X, y), [(item, label), …], {'train': …, 'val': …}, "
        "a map-style torch Dataset or a datasets.Dataset",
    )


def is_frame(source: Any) -> bool:
    """Whether it is a DataFrame of pandas, or of what is used like it."""
    return hasattr(source, "columns") and hasattr(source, "iloc")


def frame_table(frame: Any) -> Table:
    """A pandas data frame as a table; paths in it are relative to the current folder.

    Raises:
        DataError: two columns have one name.
    """
    names = [str(column) for column in frame.columns]
    source = f"DataFrame ({plural(len(frame), 'row')})"
    if len(set(names)) < len(names):
        raise DataError("column names occur twice", where=source, remedy="rename them")
    return _table({name: frame.iloc[:, index] for index, name in enumerate(names)}, source)


def table_of(source: Any) -> Table | None:
    """A data frame, or a dictionary of columns (sequences as long as each other), as a table; None of anything else."""
    if is_frame(source):
        return frame_table(source)
    if not isinstance(source, Mapping) or not source or any(map(_names_a_split, source)):
        return None
    columns = [each for each in source.values() if hasattr(each, "__len__") and getattr(each, "ndim", 1) > 0]
    columns = [each for each in columns if not isinstance(each, (str, bytes, bytearray, memoryview))]
    if len(columns) < len(source) or len({len(column) for column in columns}) > 1:
        return None
    return _table({str(name): column for name, column in source.items()}, "columns")


def _names_a_split(key: Any) -> bool:
    return isinstance(key, str) and split_name(key) is not None


def _read_mapping(
    source: Mapping[Any, Any], modality: str, settings: DataSettings, read: Callable[[Any], Found]
) -> Found:
    """{"train": …, "val": …} of any sources, or {"image": […], "label": […]}."""
    splits = {key: split_name(key) if isinstance(key, str) else None for key in source}
    if not any(splits.values()):
        table = table_of(source)
        if table is not None:
            return from_columns(table, modality, settings)
    problems = [
        Problem(f"'{key}' names no split", "data.source", f"the keys are {', '.join(SPLITS)}")
        for key, split in splits.items()
        if split is None
    ]
    if len(set(splits.values())) < len(splits) and not problems:
        problems.append(Problem(f"two keys mean one split: {listing(source)}", "data.source"))
    if problems or not source:
        raise DataError("the dictionary's keys must name splits", where="data.source", problems=problems)
    parts: dict[str, Found] = {}
    for key, split in splits.items():
        found = read(source[key])
        if found.given is not None and found.given.any():
            problems.append(
                Problem(f"'{key}' is divided into splits itself", "data.source", "give one split for each key")
            )
        found.names = [f"{split}/{name}" for name in found.names]
        parts[str(split)] = found
    if problems:
        raise DataError(problems=problems)
    described = ", ".join(f"{split}: {found.source}" for split, found in parts.items())
    return merged(parts, f"{{{described}}}")


def _read_arrays(inputs: Any, labels: Any, modality: str, settings: DataSettings) -> Found:
    notes: list[str] = []
    shape = f" of shape {tuple(inputs.shape)}" if hasattr(inputs, "shape") else ""
    source = f"(X, y) with X{shape}"
    if getattr(labels, "ndim", 1) > 2:
        raise DataError(f"y has shape {tuple(labels.shape)}, expected (N,) or (N, K) of 0 and 1", where=source)
    items = as_pictures(with_rate(inputs, source, settings), source, notes)
    if not hasattr(labels, "__len__") or len(items) != len(labels):
        count = len(labels) if hasattr(labels, "__len__") else "no length"
        raise DataError(f"X has {plural(len(items), 'row')}, y has {count}", where=source, remedy="one label a row")
    return _from_pairs(items, labels, source, notes, modality, settings)


def _read_list(source: Sequence[Any], modality: str, settings: DataSettings) -> Found:
    described = f"list of {plural(len(source), 'item')}"
    if source and all(isinstance(entry, Mapping) for entry in source):
        names = dict.fromkeys(name for entry in source for name in entry)
        columns = {str(name): [entry.get(name) for entry in source] for name in names}
        return from_columns(_table(columns, described), modality, settings)
    bad = [
        f"item {row}"
        for row, entry in enumerate(source)
        if isinstance(entry, str) or not hasattr(entry, "__len__") or len(entry) != 2
    ]
    if bad or not source:
        wrong = plural(len(bad), "item is no (item, label) pair", "items are no (item, label) pairs")
        what = f"{wrong}: {listing(bad)}" if bad else "the list is empty"
        raise DataError(
            what,
            where=described,
            remedy="give [(path or value, label), …]; `predict` takes items alone",
        )
    labels = [entry[1] for entry in source]
    items = with_rate([entry[0] for entry in source], described, settings)
    return _from_pairs(items, labels, described, [], modality, settings)


def _read_torch(dataset: Any, modality: str, settings: DataSettings) -> Found:
    """A map-style dataset: its files or arrays where it is torchvision's own, else its items, read when needed."""
    whole, order = dataset, list(range(len(dataset)))
    while hasattr(whole, "dataset") and hasattr(whole, "indices"):  # torch.utils.data.Subset, random_split
        order = [int(whole.indices[row]) for row in order]
        whole = whole.dataset
    source = f"torch dataset {type(whole).__name__} ({plural(len(order), 'row')})"
    if not len(order):
        raise DataError("the dataset is empty", where=source)
    classes = getattr(whole, "classes", None)
    names = tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else None
    notes: list[str] = []
    items = _stored_pictures(whole, source, notes)
    if items is None:
        items = LazyItems(lambda row: _as_picture(_parts(whole[row], source)[0]), order)
        _check_items(items, source, notes)
        labels = _targets(whole, order, source, notes)
    else:
        items = [items[row] for row in order]
        labels = _chosen(_stored_labels(whole), order)
    return _from_pairs(items, labels, source, notes, modality, settings, names)


def _stored_pictures(dataset: Any, source: str, notes: list[str]) -> Sequence[Any] | None:
    """Paths or arrays behind a dataset whose ``__getitem__`` is known code; None for the user's own datasets."""
    owner = getattr(type(dataset).__getitem__, "__module__", "")
    if getattr(dataset, "target_transform", None) is not None:
        return None
    if owner.startswith("torch.utils.data") and len(getattr(dataset, "tensors", ())) == 2:
        return as_pictures(dataset.tensors[0], source, notes)
    labels = _stored_labels(dataset)
    if not owner.startswith("torchvision.datasets") or labels is None:
        return None
    for attribute in ("samples", "_image_files", "data"):
        stored = getattr(dataset, attribute, None)
        if stored is not None and len(stored) == len(labels):
            if getattr(dataset, "transform", None) is not None:
                notes.append("the dataset's transform is not used: the backbone's own preprocessing is, and augment=…")
            paths = [str(entry[0]) for entry in stored] if attribute == "samples" else stored
            return [str(path) for path in paths] if attribute == "_image_files" else as_pictures(paths, source, notes)
    return None


def _stored_labels(dataset: Any) -> Sequence[Any] | None:
    if len(getattr(dataset, "tensors", ())) == 2:
        labels = dataset.tensors[1]
        return list(labels.numpy()) if labels.ndim == 2 else labels.tolist()
    for attribute in ("targets", "labels", "_labels"):
        stored = getattr(dataset, attribute, None)
        if stored is not None and hasattr(stored, "__len__") and len(stored) == len(dataset):
            return as_list(stored)
    return None


def _targets(dataset: Any, order: Sequence[int], source: str, notes: list[str]) -> list[Any]:
    """The labels without loading pictures where the dataset lists them truly, else by reading every row once."""
    stored = _stored_labels(dataset)
    probes = {order[0], order[len(order) // 2], order[-1]}
    if stored is not None and all(
        np.array_equal(_plain(stored[row]), _parts(dataset[row], source)[1]) for row in probes
    ):
        return _chosen(stored, order)
    notes.append("the labels were read by going through the whole dataset once; a `targets` list would save that")
    return [_parts(dataset[row], source)[1] for row in order]


def _chosen(labels: Sequence[Any] | None, order: Sequence[int]) -> list[Any]:
    return [_plain((labels or ())[row]) for row in order]


def _parts(row: Any, source: str) -> tuple[Any, Any]:
    """(item, label) of what a dataset returned for one row.

    Raises:
        DataError: the row is neither a pair nor a dictionary with familiar keys.
    """
    if isinstance(row, Mapping):
        keys = {familiar(str(key)): key for key in row}
        item = next((keys[name] for names in INPUT_NAMES.values() for name in names if name in keys), None)
        label = next((keys[name] for name in LABEL_NAMES if name in keys), None)
        if item is not None and label is not None:
            return row[item], _plain(row[label])
    elif isinstance(row, (tuple, list)) and len(row) >= 2:
        return row[0], _plain(row[1])
    raise DataError(f"a row is a {type(row).__name__}, expected (item, label)", where=source)


def _as_picture(picture: Any) -> Any:
    """A tensor (C, H, W) as an array (H, W, C); anything else as it is."""
    if not hasattr(picture, "detach"):
        return picture
    array = picture.detach().cpu().numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 and array.shape[0] < min(array.shape[1:]) else array


def _check_items(items: LazyItems, source: str, notes: list[str]) -> None:
    """What goes wrong silently with a dataset's own transforms: normalised pictures, and chance that is frozen."""
    first, again = items[0], items[0]
    if not np.array_equal(np.asarray(first), np.asarray(again)):
        notes.append("the dataset's transforms draw at random; each row is read once, so use augment=… instead")
    for row in range(min(8, len(items))):
        picture = items[row]
        if isinstance(picture, np.ndarray):
            as_pictures(picture[None], f"{source}, row {row}", [])


def _plain(label: Any) -> Any:
    return label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label


def _from_pairs(
    items: Sequence[Any],
    labels: Any,
    source: str,
    notes: list[str],
    modality: str,
    settings: DataSettings,
    class_names: tuple[str, ...] | None = None,
) -> Found:
    marks = matrix_of(labels, settings.task, source, notes)
    if marks is not None:
        own = class_names or tuple(map(str, getattr(labels, "columns", range(marks.shape[1]))))
        labels = [[own[index] for index in np.flatnonzero(row)] for row in marks]
        class_names = None  # the cells hold names already
    table = _table({"input": items, "label": labels}, source, notes)
    if modality == "auto":
        lazy = isinstance(items, LazyItems)
        modality = of_values([items[0]] if lazy else items)
    first = items[0] if isinstance(items, (np.ndarray, list)) and len(items) else None
    if isinstance(first, np.ndarray) and first.ndim == 3 and first.shape[2] == 4 and settings.channels == 3:
        told = "arrays of four bands were taken as RGBA and laid over white"
        table.notes.append(f"{told}; where the fourth band is no alpha, say channels=4 (data.channels)")
    if class_names is not None:
        table.class_names = {"label": class_names}
    chosen = dataclasses.replace(settings, input_column="input", label_column="label", split_column=None)
    return from_columns(table, modality, chosen)


def _table(columns: Mapping[str, Sequence[Any]], source: str, notes: list[str] | None = None) -> Table:
    return Table(columns, source, os.getcwd(), lambda row: f"row {row}", notes=notes or [])
