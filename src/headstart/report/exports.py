"""The verdict on the exported files, as the report shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.report.contents import Contents
from headstart.report.formats import metric_title, score


@dataclass(frozen=True)
class ExportRow:
    """One way to run an export; ``chip`` is keep where it was accepted, revert where it was refused."""

    name: str
    how: str
    size: str
    value: str
    change: str
    agreement: str
    latency: str
    throughput: str
    chip: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class ExportTable:
    metric: str
    reference: str
    n: int
    points: str
    too_few: bool
    rows: tuple[ExportRow, ...]


def export_table(contents: Contents) -> ExportTable | None:
    """The table of exports; None where there is none, or where what is there is no verdict."""
    found = contents.exported
    try:
        metric, first = str(found["metric"]), next(iter(found["accepted"]), None)
        variants = [*found["variants"], *found["gone"]]
        rows = tuple(_row(each, metric, each["name"] == first and each in found["variants"]) for each in variants)
        return ExportTable(
            metric_title(metric),
            score(found["reference"]["value"], metric),
            int(found["data"]["rows"]),
            f"{100 * found['tolerance']:g}",
            any(each["too_few"] and each["accepted"] for each in variants),
            rows,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _row(variant: dict[str, Any], metric: str, used: bool) -> ExportRow:
    difference, one = variant["difference"], variant["speed"]["one"]
    value, low, high = (100 * difference[side] for side in ("value", "low", "high"))
    accepted = "used" if used else "accepted"
    return ExportRow(
        name=str(variant["name"]),
        how=str(variant["how"]),
        size=f"{variant['bytes'] / 1e6:.1f} MB",
        value=score(variant["score"]["value"], metric),
        change=f"{value:+.1f} [{low:+.1f}, {high:+.1f}]",
        agreement=f"{100 * variant['agreement']['value']:.1f} %",
        latency=f"{one['p50_ms']:.3g} / {one['p95_ms']:.3g} ms",
        throughput=f"{variant['speed']['rows_a_second']:.0f} / s",
        chip="keep" if variant["accepted"] else "revert",
        verdict=accepted if variant["accepted"] else "refused",
        reason=str(variant["refused"]) or ("" if variant["batches"] else "rows by themselves"),
    )
