"""How the stages went: loss, the metric and the rate by epoch, the score over time, the path of the probe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from headstart.report import charts
from headstart.report.charts import Band, Line, Mark, Point, Scale
from headstart.report.contents import Contents, measured
from headstart.report.formats import higher_is_better, is_share, metric_title, number, rate

RATES_SHOWN = 1e-4  # of the highest; smaller ones stand at the lower edge


@dataclass(frozen=True)
class Curve:
    """One chart with its heading and a line below."""

    title: str
    chart: Markup
    caption: str
    legend: tuple[tuple[str, str], ...] = ()  # (class, label)


def curves(contents: Contents) -> list[Curve]:
    """Loss, the metric, the rate and the score over time; [] where no stage trained epoch by epoch."""
    epochs = _epochs(contents)
    if not any(epochs.values()):
        return []
    bands, starts = _stage_bands(contents, epochs)
    x = Scale(0, max(1, bands[-1].end))
    x_labels = [(tick, f"{tick:.0f}") for tick in x.ticks(8) if tick == int(tick)]
    found = [
        _loss_curve(epochs, starts, bands, x, x_labels),
        _metric_curve(contents, epochs, starts, bands, x, x_labels),
        _time_curve(contents, epochs),
        _rate_curve(epochs, starts, bands, x, x_labels),
    ]
    return [curve for curve in found if curve is not None]


def _epochs(contents: Contents) -> dict[int, list[dict[str, Any]]]:
    """EpochDone events by stage, in order; after an interruption the repeated epoch replaces the first."""
    by_stage: dict[int, dict[int, dict[str, Any]]] = {int(stage["index"]): {} for stage in contents.stages}
    for event in contents.events:
        if event.get("event") == "EpochDone":
            by_stage.setdefault(int(event["stage"]), {})[int(event["epoch"])] = event
    return {stage: [events[epoch] for epoch in sorted(events)] for stage, events in sorted(by_stage.items())}


def _stage_bands(contents: Contents, epochs: dict[int, list[dict[str, Any]]]) -> tuple[list[Band], dict[int, float]]:
    results = {int(stage["index"]): stage for stage in contents.stages}
    names = {int(e["stage"]): e.get("name", "") for e in contents.events if e.get("event") == "StageStarted"}
    bands, starts, here = [], {}, 0.0
    for index, events in epochs.items():
        starts[index] = here
        if events:
            length = float(len(events))
            result = results.get(index, {})
            faded = (result.get("verdict") or {}).get("decision") in ("revert", "stop")
            bands.append(Band(here, here + length, f"{index + 1} {result.get('name') or names.get(index, '')}", faded))
            here += length
    return bands, starts


def _points(events: Iterable[dict[str, Any]], start: float, key: str, metric: str = "") -> list[Point]:
    points = []
    for place, event in enumerate(events):
        value = (event.get(key) or {}).get(metric) if metric else event.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            points.append((start + place + 1, float(value)))
    return points


def _loss_curve(
    epochs: dict[int, list[dict[str, Any]]],
    starts: dict[int, float],
    bands: Sequence[Band],
    x: Scale,
    x_labels: Sequence[tuple[float, str]],
) -> Curve | None:
    lines = [
        Line(_points(events, starts[index], key), kind)
        for index, events in epochs.items()
        for key, kind in (("train_loss", "train"), ("val_loss", "val"))
    ]
    values = [value for line in lines for _, value in line.points]
    if not values:
        return None
    y = charts.scale_over([*values, 0.0])
    labels = [(tick, f"{tick:.2g}") for tick in y.ticks()]
    chart = charts.plot(x, y, lines, label="loss by epoch", x_labels=x_labels, y_labels=labels, bands=bands)
    return Curve("Loss", chart, "by epoch", (("train", "training"), ("val", "validation")))


def _metric_curve(
    contents: Contents,
    epochs: dict[int, list[dict[str, Any]]],
    starts: dict[int, float],
    bands: Sequence[Band],
    x: Scale,
    x_labels: Sequence[tuple[float, str]],
) -> Curve | None:
    metric = contents.metric
    lines = [Line(_points(events, starts[i], "val_metrics", metric), "val") for i, events in epochs.items()]
    values = [value for line in lines for _, value in line.points]
    if not values:
        return None
    marks, levels = [], []
    for stage in contents.stages:
        found = measured((stage.get("metrics") or {}).get("val"), metric)
        if found and not epochs.get(int(stage["index"])) and math.isfinite(found["value"]):
            marks.append(Mark(starts[int(stage["index"])], found["value"], str(stage["name"]), "solved"))
            values.append(found["value"])
    if contents.best_baseline is not None:
        level = contents.best_baseline["metrics"][metric]["value"]
        if min(values) - 0.5 * max(0.1, max(values) - min(values)) < level < max(values):
            levels.append((level, "baseline"))
            values.append(level)
    y = charts.scale_over(values, within=(0.0, 1.0) if is_share(metric) else None)
    labels = [(tick, charts.axis_label(tick, metric, y)) for tick in y.ticks()]
    title = f"Validation {metric_title(metric)}"
    chart = charts.plot(
        x, y, lines, label=title, x_labels=x_labels, y_labels=labels, bands=bands, marks=marks, levels=levels
    )
    legend = (("val", "after each epoch"), *((("solved", "solved stage"),) if marks else ()))
    return Curve(title, chart, "", (*legend, *((("baseline", "best baseline"),) if levels else ())))


def _rate_curve(
    epochs: dict[int, list[dict[str, Any]]],
    starts: dict[int, float],
    bands: Sequence[Band],
    x: Scale,
    x_labels: Sequence[tuple[float, str]],
) -> Curve | None:
    lines = [Line([p for p in _points(e, starts[i], "lr") if p[1] > 0], "rate") for i, e in epochs.items()]
    values = [value for line in lines for _, value in line.points]
    if not values:
        return None
    least = math.ceil(math.log10(max(values) * RATES_SHOWN))  # a cosine ends near zero, which says nothing
    low, high = max(least, math.floor(math.log10(min(values)))), math.ceil(math.log10(max(values)))
    y = Scale(10.0**low, 10.0 ** max(high, low + 1), log=True)
    labels = [(tick, rate(tick)) for tick in y.ticks()]
    title = "Learning rate"
    chart = charts.plot(x, y, lines, label=title, x_labels=x_labels, y_labels=labels, bands=bands)
    return Curve(title, chart, "the highest of any layer at the end of an epoch")


def _time_curve(contents: Contents, epochs: dict[int, list[dict[str, Any]]]) -> Curve | None:
    """The best validation score so far over the time spent, from the start of the run."""
    metric = contents.metric
    sign = 1 if higher_is_better(metric) else -1
    started = next((i for i, e in enumerate(contents.events) if e.get("event") == "StageStarted"), 0)
    clock = sum(float(e.get("seconds", 0)) for e in contents.events[:started] if e.get("event") == "Phase")
    best, points, marks = -math.inf, [], []
    results = {int(stage["index"]): stage for stage in contents.stages}
    for index, events in epochs.items():
        spent, result = 0.0, results.get(index, {})
        limit = float(result.get("seconds") or math.inf)
        for event, (_, value) in zip(events, _points(events, 0, "val_metrics", metric), strict=False):
            spent = min(limit, spent + float(event.get("seconds", 0)))
            best = max(best, sign * value)
            points.append((clock + spent, sign * best))
        clock += float(result.get("seconds") or spent)
        found = measured((result.get("metrics") or {}).get("val"), metric)
        if found and math.isfinite(found["value"]) and (result.get("verdict") or {}).get("decision") == "keep":
            best = max(best, sign * found["value"])
            points.append((clock, sign * best))
            marks.append(Mark(clock, found["value"], str(result.get("name", "")), "solved"))
    if not points:
        return None
    minutes = clock >= 180
    unit = 60.0 if minutes else 1.0
    points = [(a / unit, b) for a, b in points]
    marks = [Mark(m.x / unit, m.y, m.label, m.kind) for m in marks]
    x = Scale(0, charts.scale_over([0, points[-1][0]], about=6).high)
    y = charts.scale_over(
        [v for _, v in points] + [m.y for m in marks], within=(0.0, 1.0) if is_share(metric) else None
    )
    chart = charts.plot(
        x,
        y,
        [Line(points, "val", steps=True, dots=False)],
        label=f"best validation {metric_title(metric)} over time",
        x_labels=[(tick, f"{tick:g}") for tick in x.ticks(6)],
        y_labels=[(tick, charts.axis_label(tick, metric, y)) for tick in y.ticks()],
        marks=marks,
    )
    unit_name = "minutes" if minutes else "seconds"
    legend = (("val", "best so far"), ("solved", "a stage that was kept"))
    return Curve(f"Best {metric_title(metric)} over time", chart, f"{unit_name} since the start of the run", legend)


def probe_curve(contents: Contents) -> Curve | None:
    """The regularisation path of the first probe: the metric that chose its strength, on validation rows."""
    for stage in contents.stages:
        path = stage.get("probe") or {}
        points = [
            (float(a), float(b))
            for a, b in zip(path.get("strengths") or [], path.get("scores") or [], strict=False)
            if a > 0 and math.isfinite(b)
        ]
        chosen = path.get("chosen")
        if len(points) < 2 or not isinstance(chosen, int) or not 0 <= chosen < len(path["strengths"]):
            continue
        metric = str(path.get("metric") or "")
        said = f"{metric_title(metric) if metric else 'score'} on validation rows by strength of regularisation"
        x = Scale(min(p[0] for p in points), max(p[0] for p in points), log=True)
        y = charts.scale_over([p[1] for p in points])
        mark = Mark(float(path["strengths"][chosen]), float(path["scores"][chosen]), "chosen", "solved")
        chart = charts.plot(
            x,
            y,
            [Line(sorted(points), "val")],
            label=said,
            x_labels=[(tick, rate(tick)) for tick in x.ticks()][:: math.ceil(len(x.ticks()) / 5)],
            y_labels=[(tick, charts.axis_label(tick, metric, y) if metric else number(tick)) for tick in y.ticks()],
            marks=[mark],
        )
        better = f"; {'higher' if higher_is_better(metric) else 'lower'} is better" if metric else ""
        return Curve("Probe: the strengths of the head", chart, said + better)
    return None
