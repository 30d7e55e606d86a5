"""Data of the Hugging Face ecosystem through `datasets` (an extra): Hub ids, `save_to_disk` folders, Dataset objects.

One probe decides within seconds whether the Hub can be reached; `datasets` itself would retry for half a minute.
Shapes: N rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headstart.core.errors import DataError, HeadstartError, MissingExtra, Unreachable
from headstart.data.reading.collection import Found, listing, merged, split_name
from headstart.data.reading.columns import from_columns
from headstart.data.reading.tables import ARCHIVES, TABLES, Table
from headstart.data.splits import LazyItems

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings

PREFIX = "hf://datasets/"
_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}")
_PROBE_SECONDS = 3.0


def looks_like_id(source: str) -> bool:
    """``owner/name`` as the Hub spells it, and not a path (``./x``, ``a/b/c``, ``photos/list.csv``)."""
    if source.startswith(PREFIX):
        return True
    return bool(_ID.fullmatch(source)) and not source.lower().endswith((*TABLES, *ARCHIVES))


def read_hub(source: str, modality: str, settings: DataSettings, *, offline: bool) -> Found:
    """The rows of a Hub dataset, from the Hub or, without a network, from its local cache.

    Raises:
        MissingExtra: `datasets` is not installed.
        Unreachable: neither the Hub nor a cached copy can be had.
        DataError: no such dataset, several configurations, no usable columns.
    """
    datasets = _library()
    name = source.removeprefix(PREFIX)
    reason = "offline was asked for" if offline else _unreachable(name)
    with _without_network(datasets, when=bool(reason)):
        try:
            loaded = datasets.load_dataset(name, settings.config)
        except Exception as error:  # the library raises everything from ValueError to its builders' own errors
            raise _loading_error(name, settings.config, reason, error) from error
    found = read_datasets(loaded, modality, settings, source)
    if reason:
        found.notes.append(f"the Hub could not be asked ({reason}): '{name}' comes from the local cache")
    return found


def read_local(path: str, modality: str, settings: DataSettings, source: str) -> Found:
    """A folder that ``save_to_disk`` wrote, or a downloaded Hub repository (Parquet files, perhaps below ``data/``).

    Raises:
        MissingExtra: `datasets` is not installed.
        DataError: the folder is damaged, or has no usable columns.
    """
    datasets = _library()
    try:
        if is_saved(path):
            loaded = datasets.load_from_disk(path)
        else:
            with _without_network(datasets, when=True):
                loaded = datasets.load_dataset(os.path.abspath(path), settings.config)
    except Exception as error:  # Arrow, JSON, OS and builders' errors of a damaged folder
        raise DataError(f"cannot be read by `datasets` ({error})", where=source) from error
    return read_datasets(loaded, modality, settings, source)


def is_saved(path: str) -> bool:
    """Whether ``save_to_disk`` wrote the folder."""
    files = [os.path.join(path, name) for name in ("dataset_dict.json", "state.json", "dataset_info.json")]
    return os.path.isfile(files[0]) or (os.path.isfile(files[1]) and os.path.isfile(files[2]))


def is_repository(path: str) -> bool:
    """Whether the folder looks like a downloaded Hub dataset: Parquet files in it or in ``data/``."""
    folder = Path(path)
    return any(True for place in (folder, folder / "data") for _ in place.glob("*.parquet"))


def read_datasets(loaded: Any, modality: str, settings: DataSettings, source: str) -> Found:
    """The rows of a `datasets` object: a Dataset, or a DatasetDict whose keys name splits.

    Raises:
        DataError: no train split, or no usable columns.
    """
    if not isinstance(loaded, Mapping):
        return _read_one(loaded, modality, settings, source, "row")
    notes: list[str] = []
    parts: dict[str, Found] = {}
    known = {key: split for key in loaded if (split := split_name(key))}
    if len(loaded) == 1 and not known:
        known = dict.fromkeys(loaded, "train")
        notes.append(f"the only split, '{next(iter(loaded))}', is divided")
    if unused := [key for key in loaded if key not in known]:
        notes.append(f"splits that are neither train, val nor test were left out: {listing(unused)}")
    for key, split in known.items():
        found = _read_one(loaded[key], modality, settings, f"{source} [{key}]", f"{key} row")
        if split in parts:
            raise DataError(f"two splits mean {split}: {listing(known)}", where=source)
        if split == "test" and len(found.labels) and not any(found.labels):
            notes.append(f"split '{key}' has no labels and was left out")
            continue
        parts[split] = found
    if not parts:
        raise DataError("there is no split to learn from", where=source, remedy="name them train, val and test")
    return merged(parts, source, notes)


def _read_one(dataset: Any, modality: str, settings: DataSettings, source: str, row_name: str) -> Found:
    """One split; pictures stay encoded and are read row by row, class names come from the features."""
    dataset = dataset.with_format(None)
    typed, class_names = {}, {}
    for name, feature in dataset.features.items():
        kind = type(feature).__name__
        if kind in ("Image", "Audio"):
            typed[name] = kind.lower()
            dataset = dataset.cast_column(name, type(feature)(decode=False))
        elif kind == "ClassLabel":
            class_names[name] = tuple(feature.names)
        elif type(getattr(feature, "feature", None)).__name__ == "ClassLabel":  # a list of them
            class_names[name] = tuple(feature.feature.names)
    table = Table(
        columns={name: _column(dataset, name, lazy=name in typed) for name in dataset.column_names},
        source=source,
        base=os.getcwd(),
        place=lambda row: f"{row_name} {row}",
        class_names=class_names,
        typed=typed,
    )
    found = from_columns(table, modality, settings)
    if isinstance(found.items, LazyItems):
        found.names = [f"{row_name} {row}" for row in range(len(found.items))]
    return found


def _column(dataset: Any, name: str, *, lazy: bool) -> Sequence[Any]:
    if not lazy:
        return dataset[name]
    pictures = dataset.select_columns([name])
    return LazyItems(lambda row: pictures[row][name], range(len(pictures)))


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "data", "reading data of the Hugging Face Hub") from error
    return datasets


def _unreachable(name: str) -> str:
    """Why the Hub cannot be asked for this dataset, or "" when it answered: one request, no retries.

    Raises:
        DataError: the Hub answered that there is no such dataset, or that it is gated.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    page = f"https://huggingface.co/datasets/{name}"
    try:
        HfApi().dataset_info(name, timeout=_PROBE_SECONDS)
    except GatedRepoError as error:
        raise DataError(
            "access has to be granted first", where=page, remedy="ask there, then `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        remedy = "check the spelling; a private one needs `hf auth login`"
        raise DataError("the Hub knows no such dataset", where=page, remedy=remedy) from error
    except HFValidationError as error:
        raise DataError(f"not a dataset's name ({error})", where=name) from error
    except HfHubHTTPError as error:
        return f"it answered {error.response.status_code}"
    except Exception as error:  # no name service, no route, a proxy, offline mode: each client version has its own
        return str(error).split("\n")[0] or type(error).__name__
    return ""


@contextmanager
def _without_network(datasets: ModuleType, *, when: bool) -> Iterator[None]:
    """Both libraries read their offline switch at import; flip what they read, so that nothing is retried."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if when:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _loading_error(name: str, config: str | None, reason: str, error: Exception) -> HeadstartError:
    """What `datasets` raised, in words that say what to do."""
    said = str(error).strip().split("\n")[0]
    if isinstance(error, (OSError, EOFError)) and reason:
        return Unreachable(
            f"the dataset '{name}' is not in the local cache, and the Hub cannot be asked ({reason})",
            where=f"data.source = {name}",
            remedy="where there is a network: datasets.load_dataset(…).save_to_disk('folder'); then give that folder",
        )
    if "onfig name is missing" in said or "BuilderConfig" in said:
        return DataError(f"config '{config}': {error}", where=name, remedy="choose one with data.config=…")
    if "scripts are no longer supported" in said:
        remedy = "look for a Parquet copy of it on the Hub; code from the Hub is never run"
        return DataError("the dataset is a script", where=name, remedy=remedy)
    if isinstance(error, OSError):
        return Unreachable(f"the download broke off ({said})", where=name, remedy="run again: what is there is kept")
    return DataError(f"cannot be loaded: {said}", where=name)
