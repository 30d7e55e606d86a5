"""The audit of shortcuts: classes that differ in how their files were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headstart.data.checks.findings import Finding, View, listed
from headstart.data.splits import counted, of_class

SHORTCUT_ROWS = 10  # of a class, before its way of storing counts as systematic
SHORTCUT_SHARE = 0.9


def shortcuts(view: View, classes: tuple[str, ...], stored: Mapping[str, Callable[[Any], object]]) -> list[Finding]:
    """Classes that are stored unlike all others (another format or size): a network may learn that instead.

    Args:
        stored: what to read from the facts of a row, by what it is called; of several, one finding says it.
    """
    findings = []
    several = view.rows.labels.ndim == 2
    labelled = [(row, facts) for row, facts in view.seen() if several or view.rows.labels[row] >= 0]
    labels = view.rows.labels[[row for row, _ in labelled]]
    for what, read in stored.items():
        values = np.array([str(read(facts)) for _, facts in labelled])
        told, marked = [], []
        for index in np.flatnonzero(counted(labels, len(classes))).tolist():
            inside = of_class(labels, index)
            own, others = values[inside], values[~inside]
            if len(own) < SHORTCUT_ROWS or len(others) < SHORTCUT_ROWS:
                continue
            value, count = Counter(own).most_common(1)[0]
            share, elsewhere = count / len(own), float((others == value).mean())
            if share >= SHORTCUT_SHARE and elsewhere <= 1 - SHORTCUT_SHARE:
                told.append(f"{classes[index]} ({value}: {share:.0%} of its rows, {elsewhere:.0%} of the others)")
                marked.append(index)
        if told:
            inside = np.any([of_class(labels, index) for index in marked], axis=0)
            rows = tuple(row for (row, _), own_class in zip(labelled, inside, strict=True) if own_class)
            text = f"the {what} of the files alone gives a class away: {listed(told)}"
            remedy = "a network may learn how the files were made: collect or convert all classes in the same way"
            names = tuple(classes[index] for index in marked)
            findings.append(Finding("shortcut", "warning", view.split, rows, names, text, remedy))
            break  # sizes follow formats
    return findings
