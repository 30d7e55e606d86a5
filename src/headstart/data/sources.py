"""Where data comes from: one door for folders, tables, Hub ids and Python objects, and the way from there to splits.

``collect`` finds and labels all rows; ``divide`` draws the splits that the user did not give (after the caller decoded
the rows and knows the near duplicates, if it wants them kept together); ``arranged`` makes the Splits. ``read`` is all.
Shapes: N rows, K classes.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from types import NoneType
from typing import TYPE_CHECKING, Any

from headstart.core import registry
from headstart.core.errors import ConfigError, DataError, HeadstartError, Problem
from headstart.core.registry import suggest
from headstart.data.reading import guess, hub, objects, unlabelled
from headstart.data.reading.collection import Collection, Found, indexed, labelled, merged, split_name
from headstart.data.reading.columns import from_columns
from headstart.data.reading.division import Division, arranged, divide, fingerprint, insist_divisible, together
from headstart.data.reading.folders import read_folder, walk
from headstart.data.reading.guess import EXTENSIONS
from headstart.data.reading.tables import ARCHIVES, TABLES, read_table
from headstart.data.reading.unlabelled import NOTHING, Usual
from headstart.data.splits import Rows, Splits

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings

__all__ = [
    "Collection",
    "Division",
    "arranged",
    "collect",
    "columns_of",
    "divide",
    "find_unlabelled",
    "fingerprint",
    "insist_divisible",
    "modality_of",
    "read",
    "read_labelled",
    "read_unlabelled",
    "texts_of",
    "together",
]


def collect(source: Any, settings: DataSettings, *, seed: int = 0, offline: bool = False) -> Collection:
    """All rows of a source, labelled and counted, in a fixed order; nothing is decoded.

    Args:
        source: a folder, a table, a Hub id, or one of the objects that ``objects.read_object`` knows. A path that
            exists wins over a Hub id that is written the same; hf://datasets/OWNER/NAME is always the Hub's.
        settings: columns, grouping and limit (the shares are for ``divide``).
        seed: draws the rows when ``settings.limit`` is set.
        offline: never ask the Hub.

    Raises:
        DataError: what is wrong with the data, all mistakes at once.
        Unreachable: a Hub dataset that neither the Hub nor the local cache gives.
        MissingExtra: an optional reader is not installed.
    """
    found = _find(source, _modality(settings), settings, offline)
    return indexed(found, limit=settings.limit, seed=seed)


def modality_of(settings: DataSettings) -> str:
    """What the rows are, where that is said or the source is on this machine and can be read; else pictures."""
    if settings.modality != "auto":
        return settings.modality
    if isinstance(settings.source, (str, os.PathLike)) and os.path.exists(settings.source):
        with suppress(HeadstartError):
            return collect(settings.source, settings, offline=True).modality
    return "image"


def read(source: Any, settings: DataSettings, *, seed: int, offline: bool = False) -> Splits:
    """From what the user has to splits (see ``collect`` and ``divide`` for what can be wrong)."""
    collection = collect(source, settings, seed=seed, offline=offline)
    return arranged(collection, divide(collection, settings, seed=seed))


def read_labelled(
    source: Any,
    settings: DataSettings | None = None,
    *,
    split: str | None = None,
    offline: bool = False,
    modality: str = "auto",
) -> tuple[Rows, tuple[str, ...]]:
    """Labelled rows for a model that exists already (``evaluate``), and the classes that their labels index.

    Args:
        settings: columns and the like; without them, a missing file is an error.
        split: only this split of the source; None takes every row.

    Raises:
        DataError: what is wrong with the data (but one class is enough), or no rows.
    """
    if settings is None:
        from headstart.data.settings import DataSettings

        settings = DataSettings(on_unreadable="stop", modality=modality)
    return labelled(_find(source, _modality(settings), settings, offline), split)


def read_unlabelled(source: Any, modality: str = "image", *, input_column: str | None = None) -> Rows:
    """What ``predict`` takes: a folder of files (recursive), one file, a table of paths, a list, arrays.

    Raises:
        DataError: nothing there, or files that do not exist (all of them named); of a table only where all are missing.
    """
    return find_unlabelled(source, modality, input_column=input_column)[0]


def columns_of(source: Any) -> tuple[str, ...]:
    """The columns of a table, of a folder of split tables, of a DataFrame, a dictionary or a Dataset; else none."""
    if (table := objects.table_of(source)) is not None:
        return tuple(table.columns)
    if hasattr(source, "column_names") and isinstance(source.column_names, list):
        return tuple(source.column_names)
    if not isinstance(source, (str, os.PathLike)):
        return ()
    path = os.path.expanduser(os.fspath(source))
    if os.path.isdir(path):
        path = next(iter(_split_tables(path).values()), "")
    if not os.path.isfile(path) or os.path.splitext(path)[1].lower() not in TABLES:
        return ()
    return tuple(read_table(path, os.fspath(source)).columns)


def find_unlabelled(
    source: Any,
    modality: str = "image",
    *,
    input_column: str | None = None,
    sampling_rate: int | None = None,
    usual: Usual = NOTHING,
) -> tuple[Rows, tuple[str, ...]]:
    """As ``read_unlabelled``, with what was left out, in sentences; ``modality`` is that of the model.

    Args:
        input_column: what to read of a table.
        sampling_rate: of samples that are given as arrays alone.
        usual: the same where they are not told, and a table has the column; else a familiar name is looked for.
    """
    from headstart.data.settings import DataSettings

    if not isinstance(input_column, (str, NoneType)):
        what = f"input_column is the name of a column, not {input_column!r}"
        raise ConfigError(what, where="data.input_column", remedy="two columns of a pair are one text: first,second")
    rate = usual.sampling_rate if sampling_rate is None else rate_of(sampling_rate, modality)
    settings = DataSettings(input_column=input_column, sampling_rate=rate)
    return unlabelled.find_unlabelled(source, modality, settings, usual.input_column)


def rate_of(given: Any, modality: str) -> int:
    """A rate of samples that somebody has given by hand.

    Raises:
        ConfigError: it is none, or the rows are no sounds.
    """
    from pydantic import ValidationError

    from headstart.data.settings import DataSettings

    if modality != "audio":
        noun = registry.find("headstart.data.modalities", modality).NOUN[1]
        raise ConfigError(f"is a setting of sounds, and these rows are {noun}", where="data.sampling_rate")
    try:
        return int(DataSettings(sampling_rate=given).sampling_rate or 0)
    except ValidationError as error:
        raise ConfigError(f"{given!r} is no rate of samples", where="data.sampling_rate", remedy="16_000") from error


def texts_of(rows: Rows, modality: str) -> tuple[tuple[str, ...], ...]:
    """The text or the pair of texts that each row is; nothing of rows that have files."""
    read = registry.find("headstart.data.modalities", modality).texts
    return tuple(read(item) for item in rows.items)


def _modality(settings: DataSettings) -> str:
    """The modality that was asked for; ``auto`` is told by each reader from what it finds.

    Raises:
        ConfigError: no such modality.
    """
    if settings.modality != "auto" and settings.modality not in EXTENSIONS:
        what = f"unknown modality '{settings.modality}'{suggest(settings.modality, EXTENSIONS)}"
        raise ConfigError(what, where="data.modality", remedy=f"known: auto, {', '.join(EXTENSIONS)}")
    return settings.modality


def _find(source: Any, modality: str, settings: DataSettings, offline: bool) -> Found:
    if not isinstance(source, (str, os.PathLike)):
        if source is None:
            raise DataError("no data was given", where="data.source", remedy="headstart fit photos/")
        return objects.read_object(source, modality, settings, lambda part: _find(part, modality, settings, offline))
    written = os.fspath(source)
    path = os.path.expanduser(written)
    if os.path.exists(path):
        return _find_path(path, modality, settings, written)
    if isinstance(source, str) and hub.looks_like_id(source) and not os.path.isdir(os.path.dirname(path)):
        return hub.read_hub(source, modality, settings, offline=offline)
    raise unlabelled.unknown_path(written)  # photos/pest beside photos/pets is a slip, not an id


def _find_path(path: str, modality: str, settings: DataSettings, written: str) -> Found:
    if os.path.isdir(path):
        if hub.is_saved(path) or (hub.is_repository(path) and not walk(path, modality).files):
            return hub.read_local(path, modality, settings, written)
        if (tables := _split_tables(path)) and not any("/" in name for name in walk(path, modality).files):
            return _read_split_tables(tables, modality, settings, written)
        _refuse_columns(settings, written)
        return read_folder(os.path.abspath(path), modality, settings.split.group_by, written)
    extension = os.path.splitext(path)[1].lower()
    if extension in TABLES:
        return from_columns(read_table(path, written), modality, settings)
    if extension in ARCHIVES:
        raise DataError("an archive is not read", where=written, remedy="unpack it and give the folder")
    words = {"image": "picture", "audio": "recording"}
    if (kind := guess.of_extension(path)) in words:
        remedy = "give the folder of class folders"
        raise DataError(f"one {words[kind]} is no data set", where=written, remedy=remedy)
    remedy = f"tables end in {', '.join(TABLES)}"
    raise DataError(f"a file ending in '{extension}' is no table", where=written, remedy=remedy)


def _split_tables(folder: str) -> dict[str, str]:
    """Path by split of the tables in a folder whose names say a split: ``train.tsv``, ``valid_preprocess.tsv``."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(name)
        words = [split for word in re.split(r"[^A-Za-z]+", stem) if (split := split_name(word))]
        if extension.lower() in TABLES and words and words[0] not in found:
            found[words[0]] = os.path.join(folder, name)
    return found if "train" in found else {}


def _read_split_tables(tables: dict[str, str], modality: str, settings: DataSettings, written: str) -> Found:
    parts: dict[str, Found] = {}
    for split, path in tables.items():
        name = os.path.basename(path)
        found = from_columns(read_table(path, os.path.join(written, name)), modality, settings)
        found.names = [f"{split}/{row}" for row in found.names]
        parts[split] = found
    told = ", ".join(f"{os.path.basename(path)} → {split}" for split, path in tables.items())
    return merged(parts, written, [f"splits by table: {told}"])


def _refuse_columns(settings: DataSettings, written: str) -> None:
    named = ("input_column", "label_column", "label_separator", "split_column", "config")
    problems = [
        Problem(
            f"a folder of classes has no {name.replace('_', ' ')}", written, f"leave data.{name} out, or give a table"
        )
        for name in named
        if getattr(settings, name) is not None
    ]
    if settings.task == "multilabel":
        what = "a file lies in one folder of classes, so it has one label"
        problems.append(Problem(what, written, "give a table with the labels of every file"))
    if problems:
        raise DataError(problems=problems)
