"""Charts as inline SVG, without scripts and without style attributes: colours come from the page's stylesheet.

Every horizontal place is a percentage and every vertical one a pixel, so a chart stretches with the page while its text
keeps its size; lines live in a nested drawing that may be distorted (their strokes are not).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from headstart.report.formats import clean, is_share

Point = tuple[float, float]


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element; texts and attribute values are cleaned and escaped, a trailing underscore of a name is dropped."""
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(clean(_short(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(escape(clean(child)) for child in children)
    return Markup(f"<{name}{listed}>{inner}</{name}>")


def _short(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def percent(value: float) -> str:
    return f"{value:.2f}%"


@dataclass(frozen=True)
class Scale:
    """Maps ``low``..``high`` to 0..1, values outside are held at the edges; ``log`` for rates."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        place = math.log10(max(value, self.low)) if self.log else value
        return min(1.0, max(0.0, (place - low) / (high - low)))

    def x(self, value: float) -> str:
        return percent(100 * self.at(value))

    def ticks(self, about: int = 4) -> list[float]:
        """Round values inside of the scale, about as many as asked."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        step = nice_step(self.high - self.low, about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def nice_step(span: float, about: int) -> float:
    """1, 2 or 5 times a power of ten that divides ``span`` into about so many parts."""
    raw = max(span, 1e-12) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw - 1e-15)


def scale_over(values: Sequence[float], *, about: int = 4, within: tuple[float, float] | None = None) -> Scale:
    """A scale with round ends that holds all finite values, kept ``within`` bounds where they are natural."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-9:
        low, high = low - 0.05 * max(1.0, abs(low)), high + 0.05 * max(1.0, abs(high))
    step = nice_step(high - low, about)
    least, most = low, high
    while True:  # the ends that one step gives may ask for a larger step
        low, high = math.floor(least / step + 1e-9) * step, math.ceil(most / step - 1e-9) * step
        if (wider := nice_step(high - low, about)) <= step * (1 + 1e-9):
            break
        step = wider
    if within is not None:
        low, high = max(low, within[0]), min(high, within[1])
    return Scale(low, high)


def axis_label(value: float, metric: str, scale: Scale) -> str:
    """A tick: 80%, or 0.4, with as many digits as the ticks need."""
    factor = 100 if is_share(metric) else 1
    digits = max(0, -math.floor(math.log10(nice_step((scale.high - scale.low) * factor, 4)) + 1e-9))
    return f"{value * factor:.{digits}f}" + ("%" if is_share(metric) else "")


def interval_bar(scale: Scale, value: float, low: float, high: float, kind: str, label: str) -> Markup:
    """One value with its interval on the common axis; ``kind`` is a class of the stylesheet."""
    y = 11
    grid = [tag("line", class_="grid", x1=scale.x(t), x2=scale.x(t), y1=-8, y2=30) for t in scale.ticks()]
    span = tag("line", class_="span", x1=scale.x(low), x2=scale.x(high), y1=y, y2=y)
    ends = [tag("line", class_="end", x1=scale.x(end), x2=scale.x(end), y1=y - 4, y2=y + 4) for end in (low, high)]
    dot = tag("circle", class_="dot", cx=scale.x(value), cy=y, r=4.5)
    classes = f"interval {kind}"
    return tag("svg", *grid, span, *ends, dot, class_=classes, width="100%", height=22, role="img", aria_label=label)


def axis(scale: Scale, labels: Sequence[str]) -> Markup:
    """The tick labels that stand above a column of ``interval_bar``."""
    marks = []
    for tick, label in zip(scale.ticks(), labels, strict=True):
        place = scale.at(tick)
        anchor = "start" if place < 0.05 else "end" if place > 0.95 else "middle"
        marks.append(tag("text", label, x=scale.x(tick), y=12, text_anchor=anchor))
    return tag("svg", *marks, class_="axis", width="100%", height=16, aria_hidden="true")


def bar(share: float, kind: str = "", start: float = 0.0) -> Markup:
    """A horizontal bar of a share of its cell."""
    width = percent(max(0.4, 100 * share)) if share > 0 else "0%"
    rect = tag("rect", class_=f"bar {kind}".strip(), x=percent(100 * start), y=3, width=width, height=10, rx=2)
    return tag("svg", rect, class_="bars", width="100%", height=16, aria_hidden="true")


def stacked(shares: Sequence[tuple[float, str]]) -> Markup:
    """Bars one after the other in one line: (share of the width, class)."""
    rects, start = [], 0.0
    for share, kind in shares:
        width = percent(100 * share)
        rects.append(tag("rect", class_=f"bar {kind}", x=percent(100 * start), y=3, width=width, height=10))
        start += share
    return tag("svg", *rects, class_="bars", width="100%", height=16, aria_hidden="true")


@dataclass(frozen=True)
class Line:
    """One line: points in data units, a class of the stylesheet; ``steps`` draws stairs."""

    points: Sequence[Point]
    kind: str
    steps: bool = False
    dots: bool = True


@dataclass(frozen=True)
class Band:
    """A stage on the horizontal axis: from, to, what it is called."""

    start: float
    end: float
    label: str
    faded: bool = False


@dataclass(frozen=True)
class Mark:
    """A labelled point."""

    x: float
    y: float
    label: str
    kind: str


def plot(
    x: Scale,
    y: Scale,
    lines: Sequence[Line],
    *,
    label: str,
    x_labels: Sequence[tuple[float, str]],
    y_labels: Sequence[tuple[float, str]],
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
    levels: Sequence[tuple[float, str]] = (),
    area: Sequence[Point] = (),
    spans: Sequence[tuple[float, float, float]] = (),
    height: int = 220,
) -> Markup:
    """A chart in two drawings side by side: the labels of the vertical axis, and what stretches.

    Args:
        bands: stages, shaded in turn with their names on top.
        levels: horizontal lines of reference (value, class).
        area: a closed region, such as a null band.
        spans: vertical intervals (x, low, high).
    """
    top, bottom = (22 if bands else 8), height - 22

    def py(value: float) -> float:
        return bottom - (bottom - top) * y.at(value)

    parts = [*_bands(x, bands, bottom)]
    parts += [tag("line", class_="grid", x1=0, x2="100%", y1=py(v), y2=py(v)) for v, _ in y_labels]
    parts.append(_stretched(x, y, lines, area, top, bottom))
    parts += [tag("line", class_=f"level {kind}", x1=0, x2="100%", y1=py(v), y2=py(v)) for v, kind in levels]
    parts += [tag("line", class_="whisker", x1=x.x(v), x2=x.x(v), y1=py(low), y2=py(high)) for v, low, high in spans]
    for line in lines:
        parts += [tag("circle", class_=line.kind, cx=x.x(a), cy=py(b), r=2.5) for a, b in line.points if line.dots]
    parts += [part for mark in marks for part in _mark(x, py, mark)]
    for value, text in x_labels:
        anchor = "start" if x.at(value) < 0.03 else "end" if x.at(value) > 0.97 else "middle"
        parts.append(tag("text", text, x=x.x(value), y=height - 6, text_anchor=anchor))
    y_marks = [tag("text", text, x="100%", dx=-8, y=py(value) + 4, text_anchor="end") for value, text in y_labels]
    left = tag("svg", *y_marks, class_="y-axis", height=height, aria_hidden="true")
    right = tag("svg", *parts, class_="chart", width="100%", height=height, role="img", aria_label=label)
    return tag("div", left, right, class_="plot")


def _bands(x: Scale, bands: Sequence[Band], bottom: float) -> list[Markup]:
    """Shaded stages; a name is cut off where its stage is too short for it (the table above has all names)."""
    parts = []
    for index, band in enumerate(bands):
        width = percent(100 * (x.at(band.end) - x.at(band.start)))
        kind = f"band {'odd' if index % 2 else 'even'}{' faded' if band.faded else ''}"
        parts.append(tag("rect", class_=kind, x=x.x(band.start), y=0, width=width, height=bottom))
        name = tag("text", band.label, x=6, y=14, class_="stage")
        parts.append(tag("svg", name, x=x.x(band.start), y=0, width=width, height=20, class_="clip"))
        if index:
            place = x.x(band.start)
            parts.append(tag("line", class_="boundary", x1=place, x2=place, y1=0, y2=bottom))
    return parts


def _stretched(x: Scale, y: Scale, lines: Sequence[Line], area: Sequence[Point], top: float, bottom: float) -> Markup:
    def place(point: Point) -> str:
        return f"{1000 * x.at(point[0]):.1f},{1000 - 1000 * y.at(point[1]):.1f}"

    shapes = [tag("polygon", class_="area", points=" ".join(place(p) for p in area))] if area else []
    for line in lines:
        points: list[Point] = list(line.points)
        if line.steps:
            turns = [(b[0], a[1]) for a, b in pairwise(points)]
            points = [p for pair in zip(points, [*turns, points[-1]], strict=True) for p in pair] if points else []
        shapes.append(tag("polyline", class_=f"line {line.kind}", points=" ".join(place(p) for p in points)))
    return tag(
        "svg",
        *shapes,
        x=0,
        y=top,
        width="100%",
        height=bottom - top,
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
    )


def _mark(x: Scale, py: Callable[[float], float], mark: Mark) -> list[Markup]:
    place = x.at(mark.x)
    anchor, shift = ("start", 8) if place < 0.5 else ("end", -8)
    return [
        tag("circle", class_=f"mark {mark.kind}", cx=x.x(mark.x), cy=py(mark.y), r=5),
        tag("text", mark.label, class_="halo", x=x.x(mark.x), dx=shift, y=py(mark.y) + 16, text_anchor=anchor),
    ]


def heatmap(table: np.ndarray, classes: Sequence[str]) -> Markup:
    """A confusion matrix (K, K) without numbers, for many classes: one square a cell that is not empty.

    Each row is a true class; opacity is the share of the row. The title of a square names it.
    """
    k = len(table)
    rows = np.maximum(1, table.sum(axis=1))
    squares = []
    for true, predicted in np.argwhere(table):
        share = table[true, predicted] / rows[true]
        kind = "hit" if true == predicted else "miss"
        said = f"{classes[true]} taken for {classes[predicted]}: {table[true, predicted]} of {rows[true]}"
        place = {"x": int(predicted), "y": int(true), "width": 1, "height": 1}
        squares.append(tag("rect", tag("title", said), class_=kind, fill_opacity=float(0.15 + 0.85 * share), **place))
    frame = tag("rect", class_="frame", x=0, y=0, width=k, height=k)
    box = f"-0.5 -0.5 {k + 1} {k + 1}"
    label = f"confusion matrix of {k} classes, true classes down, predicted classes across"
    return tag("svg", frame, *squares, class_="heatmap", viewBox=box, role="img", aria_label=label)
