"""How the numbers of results are written in tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import record

T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's t, 1 … 10 degrees of freedom


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half of the 95 % interval of the mean by Student's t (None below two values)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    degrees = min(len(values) - 1, len(T975))
    return mean, T975[degrees - 1] * statistics.stdev(values) / math.sqrt(len(values))


def share(value: float) -> str:
    """0.954 as .954, 1 as 1.000."""
    return f"{value:.3f}".removeprefix("0")


def mean_text(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return share(mean) if half is None else f"{share(mean)} ± {share(half)}"


def gain_text(gains: Sequence[float]) -> str:
    """+.051 ± .009; a dash where there is none."""
    if not gains:
        return "–"
    mean, half = interval(gains)
    text = f"{mean:+.3f}".replace("0.", ".", 1)
    return text if half is None else f"{text} ± {share(half)}"


def seconds_text(values: Sequence[float]) -> str:
    """The median."""
    middle = statistics.median(values)
    return f"{middle:.1f} s" if middle < 10 else f"{middle:.0f} s"


def judged(run: dict[str, Any]) -> float:
    """The accuracy that counts: of test rows where there are any, else of validation rows."""
    told = run["accuracy"]
    return told.get("test", told["val"])


def chosen(results: dict[str, Any], **key: Any) -> list[dict[str, Any]]:
    """The runs of a key, by seed."""
    found = [run for run in results["runs"] if all(run["key"].get(name) == value for name, value in key.items())]
    return sorted(found, key=lambda run: run["key"].get("seed", 0))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def busy(runs: Sequence[dict[str, Any]]) -> str:
    """How many of the times are to be read with care."""
    count = sum(record.disturbed(run, runs) for run in runs)
    return f"The host was busy with other work during {count} of {len(runs)} runs, which lengthened their seconds."


def machines(results: dict[str, Any]) -> str:
    """On what the runs of a file were made."""
    found = []
    for machine in results["machines"].values():
        flags = " ".join(machine["flags"])
        packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        found.append(f"{machine['cpu']}, {machine['cores']} cores, {flags}; Python {machine['python']}, {packages}")
    threads = {run.get("threads") for run in results["runs"]} - {None}
    limited = f" {' and '.join(map(str, sorted(threads)))} thread{'s' * (threads != {1})}." if threads else ""
    return f"Measured on {'; and on '.join(dict.fromkeys(found))}.{limited}"
