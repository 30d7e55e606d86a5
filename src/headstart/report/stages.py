"""What the stages did: the table on a common axis, and the rates of every layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from headstart.report import charts
from headstart.report.charts import Scale
from headstart.report.contents import Contents, measured
from headstart.report.formats import (
    duration,
    gain,
    interval,
    is_share,
    metric_title,
    of_limit,
    parameters,
    rate,
    score,
)
from headstart.report.story import trained

LABELS = {"keep": "kept", "revert": "reverted", "stop": "stopped here"}


@dataclass(frozen=True)
class StageRow:
    """One line of the table; ``kind`` is baseline, stage, best, test or beside (a baseline on test rows)."""

    number: str
    name: str
    kind: str
    what: str
    detail: str
    time: str
    limit: str
    value: str
    interval: str
    n: int
    bar: Markup
    verdict: str
    decision: str
    reason: str
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class StageTable:
    """Baselines, stages and the test score with one axis for all."""

    metric: str
    axis: Markup
    rows: tuple[StageRow, ...]

    @property
    def has_limits(self) -> bool:
        return any(row.limit for row in self.rows)


def stage_table(contents: Contents) -> StageTable | None:
    """The table of stages, or None where nothing was measured."""
    metric, test = contents.metric, contents.score("test")
    entries: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = []
    entries += [(entry, measured(entry.get("metrics"), metric), "baseline") for entry in contents.baselines]
    for stage in contents.stages:
        kind = "best" if contents.best is not None and stage["folder"] == contents.best["folder"] else "stage"
        entries.append((stage, measured((stage.get("metrics") or {}).get("val"), metric), kind))
    if test is not None and contents.best is not None:
        entries.append((contents.best, test, "test"))
        if (beside := contents.baseline_on_test) is not None:
            entries.append((beside, beside["metrics"][metric], "beside"))
    bounds = [found[edge] for _, found, _ in entries if found for edge in ("low", "high")]
    if not entries:
        return None
    scale = charts.scale_over(bounds, within=(0.0, 1.0) if is_share(metric) else None)
    labels = [charts.axis_label(tick, metric, scale) for tick in scale.ticks()]
    rows = tuple(_row(entry, found, kind, scale, metric) for entry, found, kind in entries)
    return StageTable(metric_title(metric), charts.axis(scale, labels), rows)


def _gained(found: dict[str, Any], metric: str) -> str:
    """How much more the model does than a baseline on the same rows."""
    low, high = gain(found["low"], metric).removesuffix(" points"), gain(found["high"], metric)
    return f"The model: {gain(found['value'], metric)} on the same rows (paired, {low} to {high})."


def _row(entry: dict[str, Any], found: dict[str, Any] | None, kind: str, scale: Scale, metric: str) -> StageRow:
    name = str(entry.get("name", ""))
    shown = found or {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    value, span = score(shown["value"], metric), interval(found, metric)
    finite = all(math.isfinite(shown[key]) for key in ("value", "low", "high"))
    label = f"{name}: {value}, 95% interval {span}"
    bar = charts.interval_bar(scale, shown["value"], shown["low"], shown["high"], kind, label) if finite else Markup()
    verdict = entry.get("verdict") or {}
    decision = str(verdict.get("decision", "")) if kind in ("stage", "best") else ""
    common = {"value": value, "interval": span, "n": shown["n"], "bar": bar, "name": name, "kind": kind}
    common["limit"] = "" if kind in ("test", "beside") else of_limit(entry)
    if kind in ("baseline", "beside"):
        what = "no backbone" + ", on these rows too" * (kind == "beside")
        time = duration(entry.get("seconds")) if kind == "baseline" else ""
        reason = "" if kind == "baseline" else _gained(entry["gain"], metric)
        return StageRow(number="", what=what, detail="", time=time, verdict="", decision="", reason=reason, **common)
    if kind == "test":
        common["name"] = "test"
        what = f"{name} on rows that no decision has seen"
        return StageRow(number="", what=what, detail="", time="", verdict="", decision="", reason="", **common)
    return StageRow(
        number=str(int(entry.get("index", 0)) + 1),
        what=trained(entry),
        detail=_detail(entry),
        time=duration(entry.get("seconds")),
        verdict="best" if kind == "best" else LABELS.get(decision, decision),
        decision="best" if kind == "best" else decision,
        reason=str(verdict.get("reason", "")),
        settings=tuple((str(key), _plain(value)) for key, value in (entry.get("settings") or {}).items()),
        **common,
    )


def _detail(stage: dict[str, Any]) -> str:
    """Trainable parameters and updates of a stage."""
    parts = []
    if stage.get("trainable") is not None:
        parts.append(f"{parameters(stage['trainable'])} of {parameters(stage.get('parameters'))} parameters")
    if stage.get("updates"):
        parts.append(f"{stage['updates']:,} updates in {stage.get('epochs', 0)} epochs")
    elif stage.get("probe"):
        parts.append("solved, not trained")
    return " · ".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    return "–" if value is None else str(value)


@dataclass(frozen=True)
class LayerTable:
    """Which layer trained at which rate: a column a stage; a cell is (text, shade 0-5, or "frozen")."""

    stages: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]  # name, parameters, cells


def layer_table(contents: Contents) -> LayerTable | None:
    """Layers in depth order with their rates in every stage, or None."""
    stages = [stage for stage in contents.stages if stage.get("layers")]
    if not stages:
        return None
    named = {str(layer["name"]): layer for stage in stages for layer in stage["layers"]}
    rates = [layer["lr"] for stage in stages for layer in stage["layers"] if layer.get("lr")]
    shades = Scale(min(rates) * 0.999, max(rates) * 1.001, log=True) if rates else None
    rows = []
    for name, layer in sorted(named.items(), key=lambda entry: entry[1].get("depth", 0)):
        cells = []
        for stage in stages:
            own = next((one for one in stage["layers"] if str(one["name"]) == name), None)
            cells.append(_cell(own, shades))
        rows.append((name, parameters(layer.get("params")), tuple(cells)))
    return LayerTable(tuple(str(stage["name"]) for stage in stages), tuple(rows))


def _cell(layer: dict[str, Any] | None, shades: Scale | None) -> tuple[str, str]:
    if layer is None:
        return "", "frozen"
    if layer.get("frozen", not layer.get("trainable")):
        return "frozen", "frozen"
    if not layer.get("lr"):
        return "solved", "rate-5"
    return rate(layer["lr"]), f"rate-{1 + round(4 * shades.at(layer['lr']))}" if shades else "rate-3"
