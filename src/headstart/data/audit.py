"""What is wrong with the data, before anything is learned from it. Nothing of the user's is changed.

Everything is told from what the stores saw while they decoded each row once. Shapes: N rows of a split, K classes.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import notebook, registry
from headstart.core.plural import plural
from headstart.data.checks import shortcuts
from headstart.data.checks import twins as audit_twins
from headstart.data.checks.duplicates import Duplicates
from headstart.data.checks.findings import Finding, Severity, View, listed
from headstart.data.splits import Splits, counted, of_class
from headstart.data.store import Store

FEW_ROWS = 5  # of a class in training
IMBALANCE = 10.0  # largest class / smallest class
ROWS_STORED = 200  # of one finding, in JSON
REPEATED, WIDTH = 5, 120  # findings in a prompt, and characters of each
REFUSED = 50  # unreadable rows that are named where they stop a run
_RANK = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Audit:
    """The findings, the gravest first, and the rows that can be used."""

    findings: tuple[Finding, ...]
    checked: int  # rows of all splits
    usable: dict[str, np.ndarray]  # split -> (M,) int64 rows that could be decoded

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings with which no training should start."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def remarks(self) -> tuple[Finding, ...]:
        """The findings that stop nothing."""
        return tuple(finding for finding in self.findings if finding.severity != "error")

    def __repr__(self) -> str:
        """The counts, and the beginnings of the gravest findings; ``findings`` holds them whole."""
        lines = [f"{each.severity}: {each.split}: {each.message}" for each in self.findings[:REPEATED]]
        lines += [f"and {left} more"] if (left := len(self.findings) - REPEATED) > 0 else []
        shown = "".join(f"\n  {textwrap.shorten(line, WIDTH, placeholder=' …')}" for line in lines)
        return f"Audit({self._counts}){shown}"

    def _repr_html_(self) -> str:
        rows = ((each.severity, each.split, each.message, each.remedy) for each in self.findings)
        return notebook.table(("", "split", "finding", "what to do"), rows, self._counts)

    @property
    def _counts(self) -> str:
        found = Counter(finding.severity for finding in self.findings)
        told = [plural(found["error"], "error"), plural(found["warning"], "warning"), f"{found['info']} info"]
        return ", ".join([f"{plural(self.checked, 'row')} checked", *told])

    def to_json(self) -> dict[str, Any]:
        """Plain values; of long lists of rows the first 200."""
        return {
            "checked": self.checked,
            "usable": {split: len(rows) for split, rows in self.usable.items()},
            "findings": [finding.to_json(ROWS_STORED) for finding in self.findings],
        }


def audit(
    splits: Splits,
    stores: Mapping[str, Store],
    *,
    max_unreadable: float = 0.05,
    on_unreadable: str = "skip",
    twins: Duplicates | None = None,
) -> Audit:
    """Check every split that ``splits`` has.

    Args:
        stores: one for each present split, in the order of its rows (``Store.take`` makes them from one store).
        max_unreadable: the share of unreadable rows of a split (rounded up to rows) above which none should start.
        on_unreadable: "skip" leaves unreadable rows out with a warning, "stop" makes any of them an error.
        twins: the duplicates among the rows of all splits, one split after the other, where they are known already
            (``duplicates(store).take(rows)``); None looks for them.
    """
    views = [View(name, rows, stores[name]) for name, rows in splits.present().items()]
    kind = registry.find("headstart.data.checks.looks", views[0].store.modality)
    findings = [
        *_unreadable(views, max_unreadable, on_unreadable),
        *_classes(views, splits.classes),
        *audit_twins.check(views, splits.classes, twins),
        *(finding for view in views for finding in kind.looks(view)),
        *shortcuts.shortcuts(views[0], splits.classes, kind.STORED),
    ]
    findings.sort(key=lambda finding: _RANK[finding.severity])
    usable = {view.split: view.store.usable for view in views}
    return Audit(tuple(findings), sum(len(view.store) for view in views), usable)


def _unreadable(views: list[View], max_share: float, on_unreadable: str) -> list[Finding]:
    findings = []
    for view in views:
        errors = view.store.errors
        if not errors:
            continue
        rows = sorted(errors)
        allowed = math.ceil(max_share * len(view.store) - 1e-9)  # rounded up: one row of few is left out
        stops = on_unreadable == "stop" or len(rows) > allowed or len(rows) == len(view.store)
        codes = ", ".join(f"{count} {code}" for code, count in Counter(errors[r].code for r in rows).most_common())
        each = [f"{view.rows.names[row]} {errors[row].message} [{errors[row].code}]" for row in rows]
        where = "data.max_unreadable=1 begins a run, whose data.json names them"  # there is none where this stops it
        named = listed(each, REFUSED, where) if stops else listed(each)
        message = f"{len(rows)} of {len(view.store)} cannot be read ({codes}): {named}"
        remedy = "repair or remove them" if stops else "they are left out; repair or remove them"
        if stops and on_unreadable != "stop" and len(rows) < len(view.store):
            remedy += f", or allow a larger share than {max_share:.0%} (data.max_unreadable)"
        names = tuple(view.rows.names[row] for row in rows)
        severity: Severity = "error" if stops else "warning"
        findings.append(Finding("unreadable", severity, view.split, tuple(rows), names, message, remedy))
    return findings


def _classes(views: list[View], classes: tuple[str, ...]) -> list[Finding]:
    """Classes without rows, with few, missing from a split, or far apart in size; counted over readable rows."""
    findings = []
    counts = {view.split: _counts(view, len(classes)) for view in views}
    train = views[0]
    if len(classes) < (1 if train.rows.labels.ndim == 2 else 2):
        text = f"there is only one class ({listed(classes)}): nothing to tell apart" if classes else "there is no class"
        findings.append(Finding("single-class", "error", "train", (), tuple(classes), text, "add a second class"))
    empty = [name for name, count in zip(classes, counts["train"], strict=True) if count == 0]
    if empty:
        text = f"no readable training rows of: {listed(empty)}"
        findings.append(
            Finding("empty-class", "error", "train", (), tuple(empty), text, "add rows or remove the class")
        )
    few = [index for index, count in enumerate(counts["train"]) if 0 < count < FEW_ROWS]
    if few:
        names = tuple(classes[index] for index in few)
        told = listed([f"{classes[index]} ({counts['train'][index]})" for index in few])
        marked = np.any([of_class(train.rows.labels, index) for index in few], axis=0)
        rows = tuple(int(row) for row in np.flatnonzero(marked))
        text = f"fewer than {FEW_ROWS} training rows of: {told}"
        findings.append(Finding("small-class", "warning", "train", rows, names, text, "add rows or join classes"))
    for view in views[1:]:
        gone = [name for name, count in zip(classes, counts[view.split], strict=True) if count == 0]
        if gone:
            text = f"{view.split} has no rows of: {listed(gone)}; nothing is measured about them there"
            findings.append(Finding("class-missing", "warning", view.split, (), tuple(gone), text, "add rows of them"))
    if train.rows.labels.ndim == 2:
        return [*findings, *_without_labels(views)]
    return [*findings, *_imbalance(counts["train"], classes)]


def _without_labels(views: list[View]) -> list[Finding]:
    """Rows that have none of the labels: legal where rows may have several, and worth a look."""
    findings = []
    for view in views:
        rows = np.flatnonzero(~view.rows.labels.any(axis=1)).tolist()
        if rows:
            of = f"of {len(view.store):,} rows"
            text = f"{plural(len(rows), f'{of} has', f'{of} have')} no label: {{names}}"
            remedy = "they teach what has none of the labels; label them where that is not what they are"
            findings.append(view.finding("no-label", "info", rows, text, remedy))
    return findings


def _counts(view: View, classes: int) -> np.ndarray:
    return counted(view.rows.labels[view.store.usable], classes)


def _imbalance(counts: np.ndarray, classes: tuple[str, ...]) -> list[Finding]:
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return []
    most, least = present[counts[present].argmax()], present[counts[present].argmin()]
    ratio = counts[most] / counts[least]
    if ratio < IMBALANCE:
        return []
    text = f"{classes[most]} has {counts[most]} training rows, {classes[least]} has {counts[least]} ({ratio:.0f} to 1)"
    remedy = "balance the sampling or weight the classes, and read macro-F1 or balanced accuracy"
    return [Finding("imbalance", "warning", "train", (), (classes[most], classes[least]), text, remedy)]
