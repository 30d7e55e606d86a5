"""What stands around the scores: data and audit, where the time went, decisions, the machine, how to reproduce."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headstart.report import charts
from headstart.report.contents import Contents
from headstart.report.formats import count, duration

SPLITS = ("train", "val", "test")
SHOWN_CLASSES = 40
SHOWN_NAMES = 6
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    severity: str
    kind: str
    split: str
    message: str
    remedy: str
    rows: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class ClassCount:
    name: str
    counts: tuple[str, ...]
    bar: Markup


@dataclass(frozen=True)
class DataView:
    """The data as the run saw it."""

    source: str
    checked: str
    notes: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[ClassCount, ...]
    more: str
    findings: tuple[Finding, ...]
    audited: bool


@dataclass(frozen=True)
class Phase:
    name: str
    time: str
    share: str
    bar: Markup
    limit: str  # what this machine needs at least for it, and for what


@dataclass(frozen=True)
class DecisionView:
    topic: str
    choice: str
    reason: str
    facts: str


def data_view(contents: Contents) -> DataView:
    """Classes by split and what the audit found, the gravest first."""
    data = contents.data
    counts: dict[str, dict[str, int]] = data.get("counts") or {}
    splits = tuple(split for split in SPLITS if split in counts)
    classes = [str(name) for name in data.get("classes") or []]
    order = range(len(classes))
    if len(classes) > SHOWN_CLASSES:
        train = counts.get("train") or {}
        order = sorted(order, key=lambda i: train.get(classes[i], 0))[:SHOWN_CLASSES]  # type: ignore[assignment]
    largest = max((sum(counts[s].get(name, 0) for s in splits) for name in classes), default=1) or 1
    shown = []
    for index in order:
        each = [int(counts[split].get(classes[index], 0)) for split in splits]
        bar = charts.stacked([(value / largest, split) for value, split in zip(each, splits, strict=True)])
        shown.append(ClassCount(classes[index], tuple(count(value) for value in each), bar))
    audit = data.get("audit") or {}
    more = f"The {SHOWN_CLASSES} smallest of {len(classes)} classes." if len(classes) > SHOWN_CLASSES else ""
    return DataView(
        source=str(data.get("source") or ""),
        checked=count(audit.get("checked")),
        notes=tuple(str(note) for note in data.get("notes") or []),
        splits=splits,
        classes=tuple(shown),
        more=more,
        findings=tuple(_finding(entry) for entry in _by_severity(audit.get("findings") or [])),
        audited=bool(audit),
    )


def _by_severity(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(
        findings, key=lambda f: SEVERITIES.index(f["severity"]) if f.get("severity") in SEVERITIES else len(SEVERITIES)
    )


def _finding(entry: dict[str, Any]) -> Finding:
    names = [str(name) for name in entry.get("names") or []]
    severity = str(entry.get("severity"))
    return Finding(
        severity=severity if severity in SEVERITIES else "info",
        kind=str(entry.get("kind", "")).replace("_", " "),
        split=str(entry.get("split") or ""),
        message=str(entry.get("message", "")),
        remedy=str(entry.get("remedy") or ""),
        rows=len(names) if len(names) < len(entry.get("rows") or []) else int(entry.get("count") or 0),  # of classes
        names=tuple(names[:SHOWN_NAMES]),
    )


def phases(contents: Contents) -> list[Phase]:
    """Where the time went, in the order it was spent."""
    listed = (contents.result or {}).get("phases") or [e for e in contents.events if e.get("event") == "Phase"]
    spent: dict[str, float] = {}
    for entry in listed:
        name = str(entry.get("name", ""))
        spent[name] = spent.get(name, 0.0) + float(entry.get("seconds") or 0.0)
    total = sum(spent.values())
    if total <= 0:
        return []
    limits = {str(stage["name"]): stage["limit"] for stage in contents.stages if stage.get("limit")}
    found, start = [], 0.0
    for name, seconds in spent.items():
        share, limit = seconds / total, _limit(limits.get(name, {}))
        found.append(Phase(name, duration(seconds), f"{100 * share:.0f}%", charts.bar(share, start=start), limit))
        start += share
    return found


def _limit(limit: dict[str, Any]) -> str:
    """``at least 3.1 s: updates 2.4 s, validation 0.7 s``."""
    terms = sorted((limit.get("terms") or {}).items(), key=lambda term: -term[1])
    told = ", ".join(f"{name} {duration(seconds)}" for name, seconds in terms if seconds >= 0.005)
    return f"at least {duration(limit['seconds'])}: {told}" if told else ""


def decisions(contents: Contents) -> list[DecisionView]:
    """Choices made for the user, each with its reason."""
    return [
        DecisionView(
            topic=str(entry.get("topic", "")),
            choice=str(entry.get("choice", "")),
            reason=str(entry.get("reason", "")),
            facts=_facts(entry.get("facts")),
        )
        for entry in contents.decisions
        if isinstance(entry, dict)
    ]


def _facts(facts: Any) -> str:
    """The facts that say something, in words; nested ones in brackets."""
    if not isinstance(facts, dict):
        return ""
    told = ((str(key).replace("_", " "), _fact(value)) for key, value in facts.items())
    return ", ".join(f"{key}: {text}" for key, text in told if text)


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        inner = _facts(value)
        return f"({inner})" if inner else ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_fact, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def environment(contents: Contents) -> list[tuple[str, str]]:
    """The machine and the packages, one line each."""
    found = []
    for key, value in contents.environment.items():
        if value is None or value == {}:
            continue
        if isinstance(value, dict):
            text = ", ".join(f"{name} {version}" for name, version in value.items())
        else:
            text = str(value)
        found.append((key, text))
    return found


def identity(contents: Contents) -> list[tuple[str, str]]:
    """What a repetition must have in common with this run."""
    origin = {f"backbone {key}": str(value) for key, value in contents.origin.items() if value}
    if "backbone uri" not in origin and contents.experiment.get("backbone"):
        origin = {"backbone": str(contents.experiment["backbone"]), **origin}
    lines = {
        "seed": contents.experiment.get("seed"),
        "data": contents.data.get("source"),
        "data fingerprint": contents.data.get("fingerprint"),
        **origin,
    }
    return [(key, str(value)) for key, value in lines.items() if value not in (None, "")]


def command(contents: Contents) -> str:
    """What makes this run again, from the folder it was started in: its own file holds every setting, but not rows, a
    module or functions that were given as Python objects."""
    place = Path(str(contents.experiment.get("output_dir") or "."), contents.name, "experiment.yaml").as_posix()
    data = contents.experiment.get("data")
    rows = isinstance(data, dict) and data.get("source") is None
    module = str(contents.origin.get("uri") or "").startswith("object:")
    functions = sorted(str(name) for name in contents.functions)
    if not rows and not module and not functions:
        return f"headstart fit --config {shlex.quote(place)}"
    again = dict.fromkeys(name.partition(".")[0] for name in functions)  # a plan is given as a whole
    given = ["data"] * rows + [f"config={place!r}"] + ["backbone=module"] * module
    given += [f"{name}={name}" for name in again]
    told = [f"# data: {contents.data.get('source')}"] * rows + [f"# module: {contents.origin.get('uri')}"] * module
    told += [f"# functions: {', '.join(functions)}"] * bool(functions)
    return "\n".join(["import headstart", "", *told, f"headstart.fit({', '.join(given)})"])
