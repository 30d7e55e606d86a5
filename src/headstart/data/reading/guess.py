"""Which kind of data something is, where the user did not say: by the endings of files, else by what the values are."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_PICTURES = "jpg jpeg jpe jfif png webp gif bmp tif tiff ppm pgm pbm pnm avif"
_SOUNDS = "wav wave flac ogg oga opus mp3 aif aiff aifc au snd w64 caf"
EXTENSIONS = {
    "image": frozenset(f".{name}" for name in _PICTURES.split()),
    "audio": frozenset(f".{name}" for name in _SOUNDS.split()),
    "text": frozenset((".txt", ".md")),
}
INPUT_NAMES = {
    "image": (
        *("image", "path", "file", "file_name", "filepath", "image_path"),
        *("filename", "file_path", "img", "img_path", "image_file", "picture", "photo", "images"),
    ),
    "audio": (
        *("audio", "path", "file", "file_name", "filepath", "audio_path"),
        *("filename", "file_path", "audio_file", "recording", "sound", "wav", "clip", "speech"),
    ),
    "text": (
        *("text", "sentence", "review", "tweet", "comment", "content", "message", "utterance", "document"),
        *("sentence1", "premise", "question1", "text1", "text_a", "question", "title", "headline", "body", "input"),
    ),
}
# The second text of a pair, by the name of the first.
PAIRED = {
    "sentence1": "sentence2",
    "premise": "hypothesis",
    "question1": "question2",
    "text1": "text2",
    "text_a": "text_b",
}
LOOKED_AT = 50  # values


def new_rows(modality: str) -> str:
    """What examples of a command call the rows to predict: a table of texts, a folder of anything else."""
    return "new.csv" if modality == "text" else "new/"


def of_extension(name: str) -> str | None:
    """The modality of a file by its ending, or None."""
    extension = os.path.splitext(name)[1].lower()
    return next((kind for kind, known in EXTENSIONS.items() if extension in known), None)


def of_files(names: Iterable[str]) -> str | None:
    """The modality that most files belong to, or None where no ending is known."""
    counts = Counter(kind for name in names if (kind := of_extension(name)))
    return counts.most_common(1)[0][0] if counts else None


def of_values(values: Any) -> str:
    """The modality of single values: arrays and pictures, samples with their rate, paths by their ending, or texts."""
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUST":
        return "image"
    votes: Counter[str] = Counter()  # of strings: one text may end as a file does ("see www.shop.com.au")
    for value in itertools.islice(values, LOOKED_AT):
        if isinstance(value, str):
            if value.strip():
                votes[of_extension(value) or ("image" if os.path.isfile(value) else "text")] += 1
        elif kind := _of_object(value):
            return kind
    return votes.most_common(1)[0][0] if votes else "text"


def _of_object(value: Any) -> str | None:
    """What a value that is no string says; None where it says nothing, as numbers do that stand among texts."""
    if value is None or isinstance(value, (bool, int, float, np.number, np.bool_)):
        return None
    if isinstance(value, os.PathLike):
        return of_extension(os.fspath(value)) or "image"
    if isinstance(value, tuple) and len(value) == 2:
        return "text" if isinstance(value[0], str) else "audio"
    if isinstance(value, Mapping):
        if "sampling_rate" in value:
            return "audio"
        return of_extension(str(value.get("path") or "")) or ("image" if {"bytes", "path"} & {*value} else None)
    return "text" if isinstance(value, list) and value and isinstance(value[0], str) else "image"


def of_columns(columns: Mapping[str, Sequence[Any]], named: str | None, familiar: Any) -> str:
    """The modality of a table's input column: the one that is named, else the first with a familiar name and fitting
    values, else the first column of strings."""
    if named is not None:
        return of_values(columns[named]) if named in columns else "text"
    by_name = {familiar(name): name for name in reversed(list(columns))}
    for kind, names in INPUT_NAMES.items():
        for name in names:
            if name in by_name and of_values(columns[by_name[name]]) == kind:
                return kind
    kinds = [of_values(values) for values in columns.values()]
    return next((kind for kind in kinds if kind != "text"), "text")
