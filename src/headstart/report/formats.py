"""How numbers and names are written for people. Everything of the user's passes through ``clean``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from headstart.measure import metrics

# What would act on a terminal or turn the direction of the text, and what UTF-8 cannot hold.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_METRICS = {**metrics.MULTILABEL, **metrics.METRICS}
_LOSSES = {name for name, metric in _METRICS.items() if metric.deff is None}
_TITLES = {name: metric.title for name, metric in _METRICS.items()}
_TITLES |= {"ece": "calibration error", "sensitivity": "sensitivity at 95 % specificity"}


def clean(value: Any) -> Any:
    """Text with control and direction characters made visible; anything else as it is."""
    if isinstance(value, str) and _UNSEEN.search(value):
        return type(value)(_UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value))
    return value


def metric_title(name: str) -> str:
    """What a metric is called in a sentence: "macro F1"."""
    return _TITLES.get(name, name)


def is_share(name: str) -> bool:
    """Whether a metric is a share of one, written in percent; losses and own metrics are written as they are."""
    return name in _TITLES and name not in _LOSSES


def higher_is_better(name: str) -> bool:
    """The direction of a metric by name; an own metric counts as one that rises."""
    return name not in metrics.NAMES or metrics.higher_is_better(name)


def score(value: float | None, name: str) -> str:
    """A metric's value: 94.1% for shares, 0.213 for losses."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f}%" if is_share(name) else number(value)


def interval(measured: Mapping[str, Any] | None, name: str) -> str:
    """The 95 % interval without the value: 91.7–95.8%."""
    if not measured:
        return ""
    low, high = measured["low"], measured["high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{100 * low:.1f}–{100 * high:.1f}%" if is_share(name) else f"{number(low)}–{number(high)}"


def gain(value: float, name: str) -> str:
    """A difference with its sign: +3.2 points, or +0.041."""
    text = f"{100 * value:+.1f} points" if is_share(name) else f"{value:+.3f}"
    return text.replace("-", "−")


def number(value: float | None) -> str:
    """Three decimals for what is about one, fewer for what is large; a dash for what is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.3f}".replace("-", "−")
    return f"{value:,.0f}".replace("-", "−") if abs(value) >= 100 else f"{value:.1e}".replace("e-0", "e−")


def rate(value: float | None) -> str:
    """A learning rate: 3e-4, 1.2e-5."""
    if value is None or not math.isfinite(value):
        return "–"
    if value <= 0:
        return "0"
    exponent = math.floor(math.log10(value) + 1e-9)
    digits = f"{value / 10**exponent:.1f}".removesuffix(".0")
    return f"{digits}e{exponent}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with separators: 1,240."""
    return "–" if value is None else f"{value:,.0f}"


def parameters(value: float | None) -> str:
    """A number of parameters: 513, 2.6 k, 11.2 M."""
    if value is None:
        return "–"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """A time span: 0.4 s, 12 s, 3 min 5 s, 1 h 12 min."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "< 0.1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def of_limit(stage: Mapping[str, Any]) -> str:
    """The time that the machine needs at least, of the time that a stage took: 43%; "" where it was not told."""
    limit = stage.get("limit")
    return f"{100 * limit['share']:.0f}%" if isinstance(limit, Mapping) and "share" in limit else ""


def p_value(p: float) -> str:
    """p = 0.03, or p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def markdown(text: Any, limit: int = 80) -> str:
    """A text of the user's on one line of Markdown, where none of it can act as markup, a link or a mention."""
    line = " ".join(str(clean(text)).split())
    line = line if len(line) <= limit else line[: limit - 2] + " …"
    # CommonMark: a backslash makes any punctuation literal; a "." only makes links of what begins with www
    return re.sub(r"([\\`*_{}\[\]<>#|~&:@!$]|(?<=www)\.)", r"\\\1", line, flags=re.IGNORECASE)
