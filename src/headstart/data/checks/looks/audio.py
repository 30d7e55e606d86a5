"""The audit of recordings: silence, clipping, files that end too early, rates, channels and lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from headstart.core.plural import plural
from headstart.data.checks.findings import Finding, View
from headstart.data.modalities.audio import MAX_SECONDS, Facts

CLIPPED_SHARE = 0.01  # of the samples: from there on it is heard
LOW_RATE = 8_000  # samples a second; speech ends at 3.4 kHz there
FAR = 10.0  # times the median length
SHORT = 0.1  # seconds
ARE = ("is", "are")


def looks(view: View) -> list[Finding]:
    """Rows that are silent, distorted, incomplete or unlike the others; all of them are used."""
    seen: dict[int, Facts] = dict(view.seen())
    if not seen:
        return []
    findings = []
    checks: list[tuple[str, Callable[[Facts], bool], tuple[str, str], str, str]] = [
        ("silent", lambda f: f.silent, ARE, "silent", "remove them: there is nothing to learn from"),
        (
            "clipped",
            lambda f: f.clipped > CLIPPED_SHARE,
            ARE,
            f"clipped (more than {CLIPPED_SHARE:.0%} of the samples at full scale)",
            "record or convert them with less gain",
        ),
        ("cut-short", lambda f: f.cut, ("ends", "end"), "before the header says so", "copy or download them again"),
        (
            "long",
            lambda f: f.seconds > f.kept + 0.01,
            ARE,
            f"longer than {MAX_SECONDS:.0f} s, only that much is used",
            "cut them into parts",
        ),
        ("short", lambda f: f.seconds < SHORT, ARE, f"shorter than {SHORT} s", "were they cut by mistake?"),
    ]
    for kind, check, verb, what, remedy in checks:
        rows = [row for row, facts in seen.items() if check(facts)]
        if rows:
            text = f"{plural(len(rows), *verb)} {what}: {{names}}"
            findings.append(view.finding(kind, "warning", rows, text, remedy))
    return findings + _unlike(view, seen)


def _unlike(view: View, seen: dict[int, Facts]) -> list[Finding]:
    findings = []
    rates = Counter(facts.rate for facts in seen.values())
    if len(rates) > 1:
        rare = [row for row, facts in seen.items() if facts.rate != rates.most_common(1)[0][0]]
        told = ", ".join(f"{count} at {rate:,} Hz" for rate, count in rates.most_common(5))
        text = f"several sampling rates ({told}), all resampled: {{names}}"
        findings.append(view.finding("mixed-rates", "info", rare, text))
    usual = float(np.median([facts.seconds for facts in seen.values()]))
    far = [row for row, facts in seen.items() if facts.seconds > FAR * usual or facts.seconds < usual / FAR]
    if far:
        text = (
            f"{plural(len(far), 'is', 'are')} {FAR:.0f} times longer or shorter than usual ({usual:.1f} s): {{names}}"
        )
        findings.append(view.finding("odd-length", "info", far, text))
    return findings


# What of a file may give its class away, the most telling first.
STORED: dict[str, Callable[[Facts], object]] = {
    "format": lambda facts: facts.format,
    "rate": lambda facts: f"{facts.rate} Hz",
    "channels": lambda facts: plural(facts.channels, "channel"),
    "length": lambda facts: f"about {2 ** round(math.log2(max(facts.seconds, 0.01)))} s",
}
