"""What a reader found, and its way to rows with class indices: labels cleaned, named, counted and linted.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headstart.core.errors import DataError, Problem
from headstart.core.plural import plural
from headstart.core.registry import suggest
from headstart.data.reading.labels import remedy_of_missing
from headstart.data.reading.splitting import sample
from headstart.data.splits import LazyItems, Rows, choose, counted, strata

SPLITS = ("train", "val", "test")
_SPLIT_OF_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# control characters, line separators and bidirectional overrides forge what a terminal or a page shows
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_DIGITS = re.compile("([0-9]+)")
_SHOWN = 10
LONGEST = 200  # characters of a name in a message


@dataclass
class Found:
    """Rows as a reader saw them. ``given`` is the split's index in SPLITS; rows to be divided are train rows."""

    items: Sequence[Any]
    labels: Sequence[str | tuple[str, ...] | None]  # one, or any number a row; None: nobody labelled it
    names: Sequence[str]
    source: str
    modality: str = "image"
    several: bool = False  # whether rows may have several labels
    given: np.ndarray | None = None  # (N,) int8; None: all are train
    groups: Sequence[str] | None = None
    classes: tuple[str, ...] | None = None  # the source's own order of classes
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    place: Callable[[int], str] | None = None  # where row i stands, for messages ("line 7")

    def keep(self, rows: Sequence[int]) -> Found:
        """These rows only; what was found about the whole stays."""
        place = self.place
        return replace(
            self,
            items=choose(self.items, rows),
            labels=[self.labels[row] for row in rows],
            names=[self.names[row] for row in rows],
            given=None if self.given is None else self.given[list(rows)],
            groups=None if self.groups is None else [self.groups[row] for row in rows],
            place=None if place is None else lambda row: place(rows[row]),
        )


@dataclass(frozen=True)
class Collection:
    """All rows of all splits in one fixed order, before the missing splits are drawn."""

    rows: Rows
    given: np.ndarray  # (N,) int8 index in SPLITS; train rows are the pool that val and test may be drawn from
    classes: tuple[str, ...]
    modality: str
    source: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int] | np.ndarray, note: str = "") -> Collection:
        """These rows only (such as the readable ones); the classes stay."""
        order = np.asarray(indices, dtype=np.int64)
        notes = (*self.notes, note) if note else self.notes
        return replace(self, rows=self.rows.take(order), given=self.given[order], notes=notes)


def split_name(text: str) -> str | None:
    """``train``, ``val`` or ``test`` for any of the usual spellings ("Validation", "dev"), else None."""
    return _SPLIT_OF_NAME.get(text.strip().lower())


def natural_key(text: str) -> tuple[Any, ...]:
    """Sorts ``2.jpg`` before ``10.jpg``; numbers are compared by length and digits, so any length is safe."""
    if text.isalpha():
        return (text,), text
    parts: list[Any] = _DIGITS.split(text)
    for index in range(1, len(parts), 2):
        digits = parts[index].lstrip("0")
        parts[index] = (len(digits), digits)
    return tuple(parts), text


def printable(text: str) -> str:
    """The text with control characters, undecodable bytes and direction overrides written as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def clean_label(text: str) -> str:
    """A class name: NFC, no spaces around it, printable; otherwise as written ("NA", "007" and "True" are names)."""
    return printable(unicodedata.normalize("NFC", text.strip()))


def listing(names: Iterable[str], shown: int = _SHOWN) -> str:
    """``a, b, c and 7 more``."""
    names = list(names)
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(_short(printable(name)) for name in names[:shown]) + more


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def indexed(found: Found, *, limit: int | None = None, seed: int = 0) -> Collection:
    """Turn what a reader found into rows with class indices, or raise all of its mistakes at once.

    Raises:
        DataError: problems of the reader, rows without a label, too few classes, classes unknown to training.
    """
    problems = [*found.problems, *_missing_labels(found)]
    names_of = {raw: clean_label(raw) for raw in dict.fromkeys(_written(found))}
    notes = [*found.notes, *_renamed(names_of)]
    classes = _class_order(set(names_of.values()) - {""}, found.classes, notes)
    index_of = {name: index for index, name in enumerate(classes)}
    labels = _indices(found, {raw: index_of.get(name, -1) for raw, name in names_of.items()}, len(classes))
    given = np.zeros(len(labels), dtype=np.int8) if found.given is None else found.given
    problems += class_problems(labels, given, classes, found.source)
    if problems:
        raise DataError(f"{len(problems)} problems in {found.source}", problems=problems)
    notes += _class_notes(labels, given, classes)
    rows = Rows(
        items=found.items,
        labels=labels,
        names=tuple(printable(name) for name in found.names),
        groups=None if found.groups is None else tuple(found.groups),
    )
    collection = Collection(rows, given, classes, found.modality, found.source, tuple(notes))
    if limit is None or limit >= len(rows):
        return collection
    kinds = strata(labels)
    chosen = sample(given.astype(np.int64) * (kinds.max() + 1) + kinds, limit, seed)
    return collection.take(chosen, f"limited to {len(chosen):,} of {len(rows):,} rows, in proportion (seed {seed})")


def labelled(found: Found, split: str | None = None) -> tuple[Rows, tuple[str, ...]]:
    """Rows for a model that exists already, of one split or of all, and their classes: one is enough.

    Raises:
        DataError: problems of the reader, rows without a label, no rows.
    """
    if split is not None:
        given = np.zeros(len(found.items), dtype=np.int8) if found.given is None else found.given
        found = found.keep(np.flatnonzero(given == SPLITS.index(split)).tolist())
    problems = [*found.problems, *_missing_labels(found)]
    if not len(found.items):
        problems.append(Problem(f"there are no rows{f' in {split}' if split else ''}", found.source))
    if problems:
        raise DataError(f"{len(problems)} problems in {found.source}", problems=problems)
    names_of = {raw: clean_label(raw) for raw in dict.fromkeys(_written(found))}
    classes = _class_order(set(names_of.values()), found.classes, [])
    index_of = {name: index for index, name in enumerate(classes)}
    labels = _indices(found, {raw: index_of[name] for raw, name in names_of.items()}, len(classes))
    return Rows(found.items, labels, tuple(map(printable, found.names))), classes


def _written(found: Found) -> Iterable[str]:
    """Every label as it was written, once for each row that has it."""
    for label in found.labels:
        if label is not None:
            yield from (label,) if isinstance(label, str) else label


def _indices(found: Found, index_of: Mapping[str, int], classes: int) -> np.ndarray:
    """(N,) int64 class indices, -1 without; or (N, K) uint8 marks where rows may have several labels."""
    if not found.several:
        return np.array([index_of[label] if isinstance(label, str) else -1 for label in found.labels], dtype=np.int64)
    marks = np.zeros((len(found.labels), classes), dtype=np.uint8)
    for row, label in enumerate(found.labels):
        marks[row, [index_of[name] for name in label or ()]] = 1
    return marks


def merged(parts: Mapping[str, Found], source: str, notes: Iterable[str] = ()) -> Found:
    """Several readings as the splits of one, by split name."""
    order = [split for split in SPLITS if split in parts]
    found = [parts[split] for split in order]
    sizes = [len(part.items) for part in found]
    owners = [part for part, size in enumerate(sizes) for _ in range(size)]
    starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()

    def fetch(row: int) -> Any:
        return found[owners[row]].items[row - starts[owners[row]]]

    def place(row: int) -> str:
        part, inside = found[owners[row]], row - starts[owners[row]]
        return f"{order[owners[row]]}, {part.place(inside) if part.place else part.names[inside]}"

    lazy = any(isinstance(part.items, LazyItems) for part in found)
    own = [name for part in found for name in part.classes or ()]
    grouped = all(part.groups is not None for part in found)
    return Found(
        items=LazyItems(fetch, range(starts[-1])) if lazy else [item for part in found for item in part.items],
        labels=[label for part in found for label in part.labels],
        names=[name for part in found for name in part.names],
        source=source,
        modality=found[0].modality,
        several=found[0].several,
        given=np.repeat([SPLITS.index(split) for split in order], sizes).astype(np.int8),
        groups=[_apart(group, split) for split in order for group in parts[split].groups or ()] if grouped else None,
        classes=tuple(dict.fromkeys(own)) or None,
        notes=[*notes, *dict.fromkeys(note for part in found for note in part.notes)],
        problems=[*_differ(parts), *(problem for part in found for problem in part.problems)],
        place=place,
    )


def _differ(parts: Mapping[str, Found]) -> list[Problem]:
    """Splits of which some have one label a row and others any number."""
    if len({part.several for part in parts.values()}) < 2:
        return []
    several, single = ([name for name, part in parts.items() if part.several is kind] for kind in (True, False))
    what = f"rows of {listing(several)} may have several labels, those of {listing(single)} have one each"
    return [Problem(what, "data.source", "write them alike, or say data.task=multilabel")]


def _apart(group: str, split: str) -> str:
    """Rows without a group are alone, also among the rows of another split that are numbered alike."""
    return group.replace("alone:", f"alone:{split}:", 1) if group.startswith("alone:") else group


def class_problems(labels: np.ndarray, given: np.ndarray, classes: Sequence[str], source: str) -> list[Problem]:
    """What makes classes impossible to learn: fewer than two, or some that training has never seen."""
    cells = [counted(labels[given == code], len(classes)) for code in range(len(SPLITS))]
    train = cells[0].tolist()
    if not any(train):
        remedy = "put the training rows into train/<class>/ or into <class>/"
        return [Problem("there are no labelled training rows", source, remedy)]
    problems = []
    known = [name for name, count in zip(classes, train, strict=True) if count]
    unseen = [
        f"'{name}' ({cells[1][index]:,} in val, {cells[2][index]:,} in test{suggest(name, known)})"
        for index, name in enumerate(classes)
        if not train[index]
    ]
    if unseen:
        remedy = "rename or remove the rows of these classes, or add training rows"
        problems.append(Problem(f"classes without a training row: {listing(unseen)}", source, remedy))
    if len(known) == 1 and labels.ndim == 1:
        remedy = "a classifier needs two classes or more: add rows of another class (such as 'other')"
        problems.append(Problem(f"only one class, '{known[0]}', with {plural(max(train), 'row')}", source, remedy))
    return problems


def _missing_labels(found: Found) -> list[Problem]:
    missing = [
        row for row, label in enumerate(found.labels) if label is None or (isinstance(label, str) and not label.strip())
    ]
    if not missing:
        return []
    place = found.place or (lambda row: found.names[row])
    what = f"{plural(len(missing), 'row has', 'rows have')} no label: {listing(place(row) for row in missing)}"
    return [Problem(what, found.source, remedy_of_missing(found.labels, found.several))]


def _renamed(names_of: dict[str, str]) -> list[str]:
    """Which labels were written in several ways that mean one class."""
    spellings: dict[str, list[str]] = {}
    for raw, name in names_of.items():
        spellings.setdefault(name, []).append(raw)
    merged = [name for name, raws in spellings.items() if len(raws) > 1]
    stripped = [name for name, raws in spellings.items() if name and any(raw != raw.strip() for raw in raws)]
    notes = []
    if stripped:
        notes.append(f"spaces around labels were removed: {listing(stripped)}")
    if merged:
        notes.append(f"labels that differ only by surrounding spaces or Unicode form are one class: {listing(merged)}")
    return notes


def _class_order(present: set[str], own: tuple[str, ...] | None, notes: list[str]) -> tuple[str, ...]:
    """The source's own order where it has one (without classes that no row has), else natural order."""
    if own is None:
        return tuple(sorted(present, key=natural_key))
    order = tuple(dict.fromkeys(clean_label(name) for name in own))
    if unused := [name for name in order if name not in present]:
        notes.append(f"classes that no row has are left out: {listing(unused)}")
    kept = tuple(name for name in order if name in present)
    return kept + tuple(sorted(present - set(kept), key=natural_key))


def _class_notes(labels: np.ndarray, given: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Class names that look alike, and classes that a given split does not measure."""
    notes = []
    alike: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        alike.setdefault(re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFKC", name)).casefold(), []).append(index)
    counts = counted(labels, len(classes))
    for twins in alike.values():
        if len(twins) > 1:
            shown = ", ".join(f"'{classes[twin]}' ({plural(counts[twin], 'row')})" for twin in twins)
            notes.append(f"class names differ only by case, spaces or signs: {shown}; merge them if they mean the same")
    for index, split in enumerate(SPLITS[1:], start=1):
        present = counted(labels[given == index], len(classes))
        if present.any() and not present.all():
            absent = [name for name, count in zip(classes, present, strict=True) if not count]
            notes.append(f"{split} has no rows of {listing(absent)}: these classes are not measured there")
    return notes
