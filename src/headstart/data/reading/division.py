"""Drawing the splits that the user did not give: what may be drawn, what must stay together, what to say about it.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headstart.core.errors import ConfigError, DataError, Problem
from headstart.core.plural import plural
from headstart.data.reading import splitting
from headstart.data.reading.collection import SPLITS, Collection, class_problems, listing
from headstart.data.settings import DEFAULT_TEST
from headstart.data.splits import Rows, Splits, counted

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings

# Fewer rows than this tell little (±8 points at 90 % accuracy) and are of more use in training.
MIN_TEST_ROWS = 50
STRAYED, STRAYED_ROWS = 1.5, 3  # times the share asked for, and rows beside it, from which on it is said


@dataclass(frozen=True)
class Division:
    """Rows of every split as sorted indices into a Collection, and how they came to be."""

    index: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


def divide(
    collection: Collection, settings: DataSettings, *, seed: int, duplicates: np.ndarray | None = None
) -> Division:
    """Draw the splits that the user did not give, from the training rows.

    A test share that was asked for is drawn, however small. The default share is drawn when it holds ``MIN_TEST_ROWS``
    rows at least; otherwise the notes say that scores are optimistic. Rows of one group, of one file and with one id in
    ``duplicates`` (N,) never straddle what is drawn.

    Raises:
        DataError: a class is missing in training, groups straddle given splits, or no rows can be spared.
    """
    insist_divisible(collection, settings)
    labels, given = collection.rows.labels, collection.given
    pool = np.flatnonzero(given == 0)
    fixed = {
        split: np.flatnonzero(given == code) for code, split in enumerate(SPLITS) if code and (given == code).any()
    }
    shares, notes = _shares(len(pool), fixed, settings)
    groups = together(collection, duplicates)
    drawn = {"train": pool}
    if shares:
        inside = Rows(items=range(len(pool)), labels=labels[pool], names=())
        ids = None if groups is None else groups[pool]
        keep = None if groups is None else np.isin(groups[pool], groups[given > 0])
        try:
            parts = splitting.split(inside, shares, seed, duplicates=ids, keep=keep)
        except DataError as error:
            if "test" not in shares or settings.split.test is not None:
                raise
            del shares["test"]  # nobody asked for it
            notes.append(_without_test(f"with one, {error.problems[0].what}"))
            parts = splitting.split(inside, shares, seed, duplicates=ids, keep=keep)
        drawn = {split: pool[rows] for split, rows in parts.items()}
        notes += _drawn_notes(drawn, collection, groups, seed)
        notes += _strayed(drawn, shares, groups)
    index = {**drawn, **fixed}
    return Division({split: index[split] for split in SPLITS if split in index}, tuple(notes))


def insist_divisible(collection: Collection, settings: DataSettings) -> None:
    """What ``divide`` will ask of these rows, as far as it is known before they are decoded.

    Raises:
        DataError: a class is missing in training, or groups straddle given splits.
        ConfigError: no val rows are given, and none are to be drawn.
    """
    problems = class_problems(collection.rows.labels, collection.given, collection.classes, collection.source)
    problems += _straddling(collection)
    if problems:
        raise DataError(f"{len(problems)} problems in {collection.source}", problems=problems)
    if settings.split.val == 0 and not (collection.given == SPLITS.index("val")).any():
        what, remedy = "there are no val rows, and a share of 0 draws none", "give a share above 0"
        raise ConfigError(what, where="data.split.val", remedy=f"stages are chosen on val rows: {remedy}")


def arranged(collection: Collection, division: Division) -> Splits:
    """The splits of a collection, with their fingerprint."""
    parts = {split: collection.rows.take(rows) for split, rows in division.index.items()}
    return Splits(
        train=parts["train"],
        val=parts["val"],
        test=parts.get("test"),
        classes=collection.classes,
        modality=collection.modality,
        source=collection.source,
        fingerprint=fingerprint(parts, collection.classes),
        notes=(*collection.notes, *division.notes),
    )


def fingerprint(parts: dict[str, Rows], classes: Sequence[str]) -> str:
    """SHA-256 over the classes and over split, label and name of every row; where the files lie does not matter."""
    digest = hashlib.sha256()
    digest.update(repr(tuple(classes)).encode())
    for split in sorted(parts):
        rows = parts[split]
        digest.update(f"\n{split} {len(rows)}\n".encode())
        digest.update(np.ascontiguousarray(rows.labels, dtype="<i8").tobytes())
        digest.update("\0".join(rows.names).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _shares(pool: int, fixed: Mapping[str, np.ndarray], settings: DataSettings) -> tuple[dict[str, float], list[str]]:
    """Which parts are drawn from ``pool`` rows, by the user's shares and the rule for small data."""
    shares, notes = {}, []
    if "val" not in fixed:
        shares["val"] = settings.split.val
    if "test" not in fixed:
        asked = settings.split.test
        share = DEFAULT_TEST if asked is None else asked
        rows = round(share * pool)
        if share > 0 and (asked is not None or rows >= MIN_TEST_ROWS):
            shares["test"] = share
        else:
            small = (
                f"{share:.0%} would be {plural(rows, 'row')}, fewer than {MIN_TEST_ROWS}; "
                "data.split.test=… draws it all the same"
            )
            reason = "data.split.test is 0" if asked == 0 else small
            notes.append(_without_test(reason))
    return shares, notes


def _without_test(reason: str) -> str:
    scores = "scores are those of the val rows that stages were chosen on, which is optimistic"
    return f"there is no test split ({reason}): {scores}"


def together(collection: Collection, duplicates: np.ndarray | None) -> np.ndarray | None:
    """(N,) ids of rows not to be parted: the user's groups, duplicates, rows of one file; None without any."""
    items = collection.rows.items
    strings = [item for item in items if isinstance(item, str)] if isinstance(items, list) else []
    if len(set(strings)) < len(strings):
        first: dict[str, int] = {}
        same = [first.setdefault(item, row) if isinstance(item, str) else row for row, item in enumerate(items)]
        duplicates = splitting.joined(np.array(same), duplicates)
    return splitting.joined(collection.rows.groups, duplicates)


def _straddling(collection: Collection) -> list[Problem]:
    """Groups of the user that have rows in two splits which the user gave."""
    groups = collection.rows.groups
    if groups is None or not collection.given.any():
        return []
    home: dict[str, int] = {}
    split_of = collection.given.tolist()
    torn = [group for group, split in zip(groups, split_of, strict=True) if home.setdefault(group, split) != split]
    if not torn:
        return []
    shown = listing(group.partition(":")[2] for group in dict.fromkeys(torn))
    remedy = "rows of one group in train and val or test make the scores too good: move them, or leave out group_by"
    return [Problem(f"groups with rows in two of the given splits: {shown}", collection.source, remedy)]


def _strayed(drawn: Mapping[str, np.ndarray], shares: Mapping[str, float], groups: np.ndarray | None) -> list[str]:
    """Which parts are far from the share that they should have."""
    pool, notes = sum(len(rows) for rows in drawn.values()), []
    for split, share in shares.items():
        got = len(drawn[split])
        if abs(got - share * pool) >= STRAYED_ROWS and not share / STRAYED < got / pool < share * STRAYED:
            why = "no class is left out where it can be helped"
            why += "" if groups is None else ", and rows of a group and of the same contents stay together"
            notes.append(f"{split} has {got / pool:.1%} of the rows instead of {share:.0%}: {why}")
    return notes


def _drawn_notes(
    drawn: Mapping[str, np.ndarray], collection: Collection, groups: np.ndarray | None, seed: int
) -> list[str]:
    """How the splits were drawn, and which classes they do not measure."""
    pool = sum(len(rows) for rows in drawn.values())
    parts = " and ".join(f"{len(rows):,} {split}" for split, rows in drawn.items() if split != "train")
    what = "class" if collection.rows.labels.ndim == 1 else "labels"
    way = f"stratified by {what}" + ("" if groups is None else ", groups and duplicates kept together")
    were = "row was" if pool - len(drawn["train"]) == 1 else "rows were"
    notes = [f"{parts} {were} drawn from {pool:,} ({way}, seed {seed})"]
    if 0 < len(drawn.get("test", ())) < MIN_TEST_ROWS:
        few = plural(len(drawn["test"]), "row")
        notes.append(f"the test split has only {few}: read its intervals, not the numbers alone")
    for split, rows in drawn.items():
        counts = counted(collection.rows.labels[rows], len(collection.classes))
        if split != "train" and not counts.all():
            absent = [collection.classes[label] for label in np.flatnonzero(counts == 0)]
            why = "too few rows or groups" if groups is not None else "too few rows"
            notes.append(f"{split} has no rows of {listing(absent)} ({why}): these classes are not measured there")
    return notes
