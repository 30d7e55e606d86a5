"""Class folders, with or without splits: ``train|val|test/<class>/…`` or ``<class>/…``, nothing dropped unsaid.

The layouts are those of torchvision's ImageFolder and the Hub's imagefolder; exceptions stand beside their rule.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError, DataError, Problem
from headstart.core.plural import plural
from headstart.data.reading.collection import SPLITS, Found, listing, natural_key, printable, split_name
from headstart.data.reading.guess import EXTENSIONS, of_extension, of_files

_NOT_DATA = frozenset({"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir", "icon\r"})


@dataclass
class Walk:
    """Every file below a folder, by what it is; paths are relative, with forward slashes, in natural order."""

    root: str
    modality: str
    files: list[str] = field(default_factory=list)  # of the modality, by extension
    folders: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # other extensions
    strange: list[str] = field(default_factory=list)  # dangling links, pipes, sockets
    loops: list[str] = field(default_factory=list)  # links to folders that were read already
    denied: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was not taken, in sentences."""
        kinds = Counter(os.path.splitext(name)[1].lower() or "no extension" for name in self.others)
        by_kind = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items(), key=lambda k: (-k[1], k[0])))
        said = (
            (self.hidden, "hidden or system file was ignored", "hidden or system files and folders were ignored"),
            (
                self.others,
                f"file has another extension and was left out ({by_kind})",
                f"files have another extension and were left out ({by_kind})",
            ),
            (
                self.strange,
                "entry is no regular file (broken links, pipes), left out",
                "entries are no regular files (broken links, pipes), left out",
            ),
            (
                self.loops,
                "link leads to a folder that was read already, not followed",
                "links lead to folders that were read already, not followed",
            ),
        )
        return [f"{plural(len(names), one, many)}: {listing(names)}" for names, one, many in said if names]


def walk(root: str, modality: str) -> Walk:
    """List a folder recursively, following links to folders once each (loops end), in natural order.

    The modality "auto" is that of most files; pictures where no ending is known.
    """
    found = Walk(root, modality)
    seen = {_identity(root)}
    stack = [""]
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as listing_of:
                entries = sorted(listing_of, key=lambda entry: natural_key(entry.name))
        except OSError as error:
            found.denied.append(f"{folder or '.'} ({error.strerror})")
            continue
        below = []
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            kind = _kind(entry, modality)
            if kind != "folders":
                getattr(found, kind).append(name)
            elif (identity := _identity(entry.path)) in seen:
                found.loops.append(name)
            else:
                seen.add(identity)
                found.folders.append(name)
                below.append(name)
        stack.extend(reversed(below))
    if modality == "auto":
        found.modality = of_files(found.files) or "image"
        found.others += [name for name in found.files if of_extension(name) != found.modality]
        found.files = [name for name in found.files if of_extension(name) == found.modality]
    return found


def read_folder(root: str, modality: str, group_by: str | None, source: str) -> Found:
    """Rows of class folders.

    Raises:
        DataError: no class folders, no files of the modality, or a folder that cannot be listed.
    """
    found = walk(root, modality)
    modality = found.modality
    prefix = _wrapper(found)
    files = [name.removeprefix(prefix) for name in found.files]
    folders = [name.removeprefix(prefix) for name in found.folders if name.startswith(prefix)]
    notes = [f"everything lies in '{printable(prefix[:-1])}', taken as the data's folder"] if prefix else []
    layout = _layout(files, folders)
    taken, labels, given = _rows(files, layout, notes)
    problems = [Problem("the folder cannot be listed", place, "check its permissions") for place in found.denied]
    problems += _empty_classes(folders, layout, files, notes)
    if not taken:
        nothing = Problem(f"no class folders with {modality} files", source, _advice(found, modality))
        raise DataError(f"nothing to learn from in {source}", problems=[nothing, *problems])
    result = Found(
        items=[item_of(os.path.join(root, prefix, name), modality) for name in taken],
        labels=labels,
        names=taken,
        source=source,
        modality=modality,
        given=given,
        notes=notes + found.notes(),
        problems=problems,
    )
    if group_by is not None:
        result.groups = path_groups(taken, group_by, result.notes)
    return result


def item_of(path: str, modality: str) -> Any:
    """A file as the modality's decoder takes it: of texts, a str would be the text itself."""
    return Path(path) if modality == "text" else path


def path_groups(names: Sequence[str], pattern: str, notes: list[str]) -> list[str]:
    """The group of every path: what the pattern's one group matches in the file name (or path, if it has a slash).

    Raises:
        ConfigError: not a regular expression with one group, or it matches no path.
    """
    where = "data.split.group_by"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"not a regular expression ({error}): {pattern}", where=where) from error
    if compiled.groups != 1:
        remedy = r"such as (\w+)_\d+ where animal7_003.jpg belongs to animal7"
        raise ConfigError(
            f"needs one group in round brackets, has {compiled.groups}: {pattern}", where=where, remedy=remedy
        )
    matches = [compiled.search(name if "/" in pattern else name.rpartition("/")[2]) for name in names]
    alone = [name for name, match in zip(names, matches, strict=True) if match is None or match[1] is None]
    if len(alone) == len(names):
        raise ConfigError(
            f"{pattern} matches none of the paths", where=where, remedy=f"a path is {printable(names[0])}"
        )
    if alone:
        unmatched = plural(len(alone), "path, a", "paths, each a")
        notes.append(f"group_by does not match {unmatched} group of its own: {listing(alone)}")
    groups = [
        f"alone:{name}" if match is None or match[1] is None else f"group:{match[1]}"
        for name, match in zip(names, matches, strict=True)
    ]
    notes.append(grouping_note(pattern, groups))
    return groups


def grouping_note(wanted: str, groups: Sequence[str]) -> str:
    """What a grouping did, and whether that can be what was meant."""
    count = len(set(groups))
    if count == len(groups):
        return f"group_by {wanted} grouped nothing: each of the {count:,} rows is a group of its own"
    told = f"group_by {wanted}: {count:,} groups of {len(groups):,} rows"
    return (
        told if count > 1 else f"group_by {wanted} puts all {len(groups):,} rows into one group: no split can be drawn"
    )


def _kind(entry: os.DirEntry[str], modality: str) -> str:
    """The field of Walk that an entry belongs to."""
    if entry.name.startswith(".") or entry.name.lower() in _NOT_DATA:
        return "hidden"
    try:
        if entry.is_dir():
            return "folders"
        regular = entry.is_file()
    except OSError:  # a link to itself
        regular = False
    kind = of_extension(entry.name)
    if kind == modality or (kind and modality == "auto"):
        return "files"  # broken links and pipes too: the decoder refuses each with its reason
    return "others" if regular else "strange"


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _wrapper(found: Walk) -> str:
    """``"photos/"`` when an archive unpacked to one folder around everything and the classes are inside it, else ""."""
    prefix = ""
    while True:
        below = {name[len(prefix) :].split("/")[0] for name in found.folders if name.startswith(prefix)}
        if len(below) != 1 or any(map(split_name, below)):
            return prefix if below else ""
        prefix += f"{below.pop()}/"
        if any(os.path.dirname(name) + "/" == prefix for name in found.files):
            return ""


def _layout(files: Sequence[str], folders: Sequence[str]) -> dict[str, str] | None:
    """Split of every top folder when the top level names splits, else None (the top level names classes).

    A class may well be called 'train' (beside 'bus' and 'car'). So beside other folders with files, the names are
    splits only when 'train' holds class folders, and another split does too or none of the other folders does.
    """
    tops = [name for name in folders if "/" not in name]
    splits = {top: split for top in tops if (split := split_name(top))}
    others = {name.split("/", 1)[0] for name in files if "/" in name} - set(splits)
    holds_classes = {name.split("/", 1)[0] for name in files if name.count("/") >= 2}
    divided = {split for top, split in splits.items() if top in holds_classes}
    if not splits or (others and ("train" not in divided or (len(divided) == 1 and others & holds_classes))):
        return None
    return splits


def _rows(
    files: Sequence[str], layout: dict[str, str] | None, notes: list[str]
) -> tuple[list[str], list[str], np.ndarray]:
    """Paths, labels and given splits of the labelled files, train first, then by class and path."""
    rows: list[tuple[int, str, str]] = []
    stray: dict[tuple[str, str], list[str]] = {}
    deep = []
    depth = 0 if layout is None else 1
    for name in files:
        parts = name.split("/")
        if layout is not None and len(parts) > 1 and parts[0] not in layout:
            outside = "file lies outside of the splits and was", "files lie outside of the splits and were"
            stray.setdefault(outside, []).append(name)
        elif len(parts) < depth + 2:
            place = printable(parts[0]) + "/" if len(parts) > 1 else "the top folder"
            loose = (
                f"file lies directly in {place}, has no class and was",
                f"files lie directly in {place}, have no class and were",
            )
            stray.setdefault(loose, []).append(name)
        else:
            rows.append((0 if layout is None else SPLITS.index(layout[parts[0]]), parts[depth], name))
            if len(parts) > depth + 2:
                deep.append(name)
    notes += [f"{plural(len(names), *what)} left out: {listing(names)}" for what, names in stray.items()]
    if deep:
        notes.append(_deep_note(deep, depth))
    if layout is not None:
        notes.append("splits by folder: " + ", ".join(f"{printable(top)} → {split}" for top, split in layout.items()))
    key = {label: natural_key(label) for _, label, _ in rows}
    rows.sort(key=lambda row: (row[0], key[row[1]]))  # stable: files are in natural order already
    given = np.array([split for split, _, _ in rows], dtype=np.int8)
    return [name for *_, name in rows], [label for _, label, _ in rows], given


def _deep_note(deep: Sequence[str], depth: int) -> str:
    """Files in folders below a class folder; when all classes hold the same folders, those may be the classes."""
    told = plural(
        len(deep),
        "file lies in a folder below its class folder and counts for it",
        "files lie in folders below their class folder and count for it",
    )
    note = f"{told}: {listing(deep, 3)}"
    inside: dict[str, set[str]] = {}
    for parts in (name.split("/") for name in deep):
        inside.setdefault(parts[depth], set()).add(parts[depth + 1])
    shared = set.intersection(*inside.values()) if len(inside) > 1 else set()
    if len(shared) > 1 and all(folders == shared for folders in inside.values()):
        note += (
            f"; if {listing(sorted(shared), 5)} are the classes, give one of {listing(sorted(inside), 5)} as the data"
        )
    return note


def _empty_classes(
    folders: Sequence[str], layout: dict[str, str] | None, files: Sequence[str], notes: list[str]
) -> list[Problem]:
    """Class folders without a file: a mistake in training, worth a note in val and test."""
    depth = 1 if layout is None else 2
    full = {"/".join(name.split("/")[:depth]) for name in files if name.count("/") >= depth}
    empty = [name for name in folders if name.count("/") == depth - 1 and name not in full]
    if layout is not None:
        empty = [name for name in empty if name.split("/")[0] in layout]
        measured = [name for name in empty if layout[name.split("/")[0]] != "train"]
        empty = [name for name in empty if name not in measured]
        if measured:
            notes.append(f"class folders without a file: {listing(measured)}")
    remedy = "add files, or take the folder away (a leading dot hides it)"
    return [Problem("the class folder holds no files", printable(name) + "/", remedy) for name in empty]


def _advice(found: Walk, modality: str) -> str:
    if tables := [name for name in found.others if name.endswith((".csv", ".tsv", ".jsonl", ".parquet"))]:
        return f"is the table {listing(tables, 3)} the data? give its path"
    if found.files:
        files = plural(
            len(found.files), "file lies there without a class: sort it", "files lie there without a class: sort them"
        )
        return f"{files} into <class>/ folders, or use `predict`"
    if found.others:
        known = ", ".join(sorted(EXTENSIONS[modality]))
        return f"found {listing(found.others, 3)}; files of {modality} data end in {known}"
    return "expected <class>/*.jpg or train/<class>/*.jpg"
