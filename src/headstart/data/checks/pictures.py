"""The audit of how pictures are stored: modes, orientation, frames, sizes, and classes that differ in those alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from headstart.data.checks.findings import Finding, View, listed
from headstart.data.modalities.base import Facts
from headstart.data.modalities.image import MAX_ELONGATION

USUAL_MODES = {"RGB", "L", "uint8"}
TINY_SIDE = 4  # pixels; smaller than that nothing is to be seen, whatever the collection
SHORTCUT_ROWS = 10  # of a class, before its way of storing counts as systematic
SHORTCUT_SHARE = 0.9


def looks(view: View) -> list[Finding]:
    """Rows that are stored or shaped oddly; all of them are used."""
    seen = dict(view.seen())
    if not seen:
        return []
    findings = []
    modes = Counter(facts.mode for facts in seen.values() if facts.mode not in USUAL_MODES)
    if modes:
        rows = [row for row, facts in seen.items() if facts.mode not in USUAL_MODES]
        told = ", ".join(f"{count} {mode}" for mode, count in modes.most_common())
        ways = "; ".join(dict.fromkeys(_conversion(mode) for mode in modes))
        text = f"unusual pixel modes ({told}), converted to 8 bit ({ways}): {{names}}"
        findings.append(view.finding("odd-mode", "info", rows, text))
    turned = [row for row, facts in seen.items() if facts.orientation != 1]
    if turned:
        text = f"{len(turned)} carry an EXIF orientation, which was applied: {{names}}"
        remedy = "other programs may show them turned; labels drawn there (boxes) would not fit"
        findings.append(view.finding("orientation", "info", turned, text, remedy))
    moving = [row for row, facts in seen.items() if facts.frames > 1]
    if moving:
        text = f"{len(moving)} hold several frames or pages, of which the first is used: {{names}}"
        findings.append(view.finding("several-frames", "warning", moving, text, "save the frame that is meant"))
    return findings + _shapes(view, seen)


def _conversion(mode: str) -> str:
    """What becomes of pixels of a mode (see ``pictures.pixels``)."""
    if mode.startswith("float") or mode == "F":
        return "floats are taken as 0..1 where none is above 1, else as 0..255"
    if mode in ("RGBA", "LA", "PA", "P"):
        return "palettes become colours, alpha is laid over white"
    if mode.startswith(("I", "int", "uint")):
        return "numbers above 255 are taken as 16 bit and divided by 257"
    return "false and true become black and white" if mode in ("1", "bool") else "colours become RGB"


def _shapes(view: View, seen: dict[int, Facts]) -> list[Finding]:
    findings = []
    sides = {row: min(facts.width, facts.height) for row, facts in seen.items()}
    usual = float(np.median(list(sides.values())))
    tiny = [row for row, side in sides.items() if side < TINY_SIDE or side < min(16.0, usual / 4)]
    if tiny:
        text = f"{len(tiny)} are tiny (a median picture has {usual:.0f} pixels on its shorter side): {{names}}"
        findings.append(view.finding("tiny", "warning", tiny, text, "are they icons or thumbnails by mistake?"))
    long = [r for r, facts in seen.items() if max(facts.width, facts.height) > MAX_ELONGATION * sides[r]]
    if long:
        text = f"{len(long)} are longer than {MAX_ELONGATION}:1, only the middle is used: {{names}}"
        findings.append(view.finding("elongated", "warning", long, text, "cut them into parts, or crop them"))
    return findings


_STORED: dict[str, Callable[[Facts], object]] = {
    "format": lambda facts: facts.format,
    "mode": lambda facts: facts.mode,
    "size": lambda facts: f"{facts.width}x{facts.height}",
    "amount of pixels": lambda facts: f"about {2 ** round(math.log2(facts.width * facts.height)):,} pixels",
}


def shortcuts(view: View, classes: tuple[str, ...]) -> list[Finding]:
    """Classes that are stored unlike all others (another format, mode or size): a network may learn that instead."""
    findings = []
    labelled = [(row, facts) for row, facts in view.seen() if view.rows.labels[row] >= 0]
    labels = np.array([view.rows.labels[row] for row, _ in labelled])
    for what, read in _STORED.items():
        values = np.array([str(read(facts)) for _, facts in labelled])
        told, marked = [], []
        for index in np.unique(labels):
            own, others = values[labels == index], values[labels != index]
            if len(own) < SHORTCUT_ROWS or len(others) < SHORTCUT_ROWS:
                continue
            value, count = Counter(own).most_common(1)[0]
            share, elsewhere = count / len(own), float((others == value).mean())
            if share >= SHORTCUT_SHARE and elsewhere <= 1 - SHORTCUT_SHARE:
                told.append(f"{classes[index]} ({value}: {share:.0%} of its rows, {elsewhere:.0%} of the others)")
                marked.append(index)
        if told:
            rows = tuple(row for row, _ in labelled if view.rows.labels[row] in marked)
            text = f"the {what} of the files alone gives a class away: {listed(told)}"
            remedy = "a network may learn how the files were made: collect or convert all classes in the same way"
            names = tuple(classes[index] for index in marked)
            findings.append(Finding("shortcut", "warning", view.split, rows, names, text, remedy))
            break  # sizes follow formats: one finding says it
    return findings
