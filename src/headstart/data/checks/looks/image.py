"""The audit of how pictures are stored: modes, orientation, frames, sizes, and classes that differ in those alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from headstart.core.plural import plural
from headstart.data.checks.findings import Finding, View
from headstart.data.modalities.image import MAX_ELONGATION, Facts

USUAL_MODES = {"RGB", "L", "uint8"}
TINY_SIDE = 4  # pixels; smaller than that nothing is to be seen, whatever the collection


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
        text = f"{plural(len(turned), 'carries', 'carry')} an EXIF orientation, which was applied: {{names}}"
        remedy = "other programs may show them turned; labels drawn there (boxes) would not fit"
        findings.append(view.finding("orientation", "info", turned, text, remedy))
    moving = [row for row, facts in seen.items() if facts.frames > 1]
    if moving:
        text = f"{plural(len(moving), 'holds', 'hold')} several frames or pages, of which the first is used: {{names}}"
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
        side = f"a median picture has {usual:.0f} pixels on its shorter side"
        text = f"{plural(len(tiny), 'is', 'are')} tiny ({side}): {{names}}"
        findings.append(view.finding("tiny", "warning", tiny, text, "are they icons or thumbnails by mistake?"))
    long = [r for r, facts in seen.items() if max(facts.width, facts.height) > MAX_ELONGATION * sides[r]]
    if long:
        text = f"{plural(len(long), 'is', 'are')} longer than {MAX_ELONGATION}:1, only the middle is used: {{names}}"
        findings.append(view.finding("elongated", "warning", long, text, "cut them into parts, or crop them"))
    return findings


# What of a file may give its class away, the most telling first.
STORED: dict[str, Callable[[Facts], object]] = {
    "format": lambda facts: facts.format,
    "mode": lambda facts: facts.mode,
    "size": lambda facts: f"{facts.width}x{facts.height}",
    "amount of pixels": lambda facts: f"about {2 ** round(math.log2(facts.width * facts.height)):,} pixels",
}
