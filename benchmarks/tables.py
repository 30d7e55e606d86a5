"""Write the tables of benchmarks/README.md and README.md from benchmarks/results: no number is typed by hand.

python -m benchmarks.tables            # fill what stands between <!-- table:NAME --> and <!-- /table -->
python -m benchmarks.tables --check    # say whether the pages and the results agree
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import assets, record, transfer

PAGES = (assets.ROOT / "README.md", assets.ROOT / "benchmarks" / "README.md")
MARKED = re.compile(r"(<!-- table:([\w-]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's t, 1 … 10 degrees of freedom
COLUMNS = {
    "baseline": "baseline",
    "probe": "probe",
    "gradual": "gradual",
    "full": "full",
    "scratch": "scratch",
    "fastai": "fastai `fine_tune`",
}
SETS = {
    "hymenoptera": "hymenoptera",
    "photo": "PACS photo",
    "cartoon": "PACS cartoon",
    "mnist": "MNIST, 1,000 rows",
}


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
    found = [run for run in results["runs"] if all(run["key"][name] == value for name, value in key.items())]
    return sorted(found, key=lambda run: run["key"].get("seed", 0))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def transfer_table(results: dict[str, Any]) -> str:
    """Accuracy (mean and interval over seeds) and seconds, a row for each set."""
    seeds = len({run["key"]["seed"] for run in results["runs"]})
    present = [name for name in COLUMNS if chosen(results, strategy=name)]
    rows = []
    for name, title in SETS.items():
        line = [title]
        for strategy in present:
            runs = chosen(results, set=name, strategy=strategy)
            cell = "–"
            if runs:
                few = f" ({len(runs)} seed{'s' * (len(runs) > 1)})" if len(runs) < seeds else ""
                seconds = seconds_text([run["seconds"] for run in runs])
                cell = f"{mean_text([judged(run) for run in runs])}{few}<br>{seconds}"
            line.append(cell)
        rows.append(line)
    text = markdown(["accuracy, time", *(COLUMNS[name] for name in present)], rows)
    sizes = ", ".join(f"{title} {transfer.SIZES[name]} px" for name, title in SETS.items())
    over = f"Mean and 95 % interval (Student's t) over {seeds} seed{'s' * (seeds != 1)}"
    spent = "median seconds of a whole process: start, decoding, training, report"
    return f"{text}\n{over}; {spent}. {sizes}. {busy(results['runs'])} {machines(results)}\n"


def busy(runs: Sequence[dict[str, Any]]) -> str:
    """How many of the times are to be read with care."""
    count = sum(record.disturbed(run, runs) for run in runs)
    return f"The host was busy with other work during {count} of {len(runs)} runs, which lengthened their seconds."


def gain_table(results: dict[str, Any]) -> str:
    """What a strategy gains over another, paired by seed."""
    pairs = (
        ("probe", "scratch"),
        ("gradual", "probe"),
        ("gradual", "scratch"),
        ("gradual", "fastai"),
        ("full", "fastai"),
    )
    rows = []
    for name, title in SETS.items():
        line = [title]
        for ours, theirs in pairs:
            left = {run["key"]["seed"]: judged(run) for run in chosen(results, set=name, strategy=ours)}
            right = {run["key"]["seed"]: judged(run) for run in chosen(results, set=name, strategy=theirs)}
            gains = [left[seed] - right[seed] for seed in left if seed in right]
            line.append(gain_text(gains) if gains else "–")
        rows.append(line)
    return markdown(["difference", *(f"{ours} − {theirs}" for ours, theirs in pairs)], rows)


def gain_text(gains: Sequence[float]) -> str:
    mean, half = interval(gains)
    text = f"{mean:+.3f}".replace("0.", ".", 1)
    return text if half is None else f"{text} ± {share(half)}"


def plans_table(results: dict[str, Any]) -> str:
    """For each candidate the accuracy of its last stage, and its seconds, by set."""
    sets = [name for name in SETS if chosen(results, set=name)]
    rows = []
    for name in dict.fromkeys(run["key"]["candidate"] for run in results["runs"]):
        line = [f"`{name}`"]
        for where in sets:
            runs = chosen(results, set=where, candidate=name)
            if not runs:
                line.append("–")
                continue
            best = [max(stage["accuracy"] for stage in run["stages"]) for run in runs]
            each = ", ".join(share(statistics.fmean(told)) for told in zip(*map(accuracies, runs), strict=True))
            line.append(f"{share(statistics.fmean(best))} ({each}) {seconds_text([run['seconds'] for run in runs])}")
        rows.append(line)
    return markdown(["candidate", *(SETS[name] for name in sets)], rows) + f"\n{machines(results)}\n"


def accuracies(run: dict[str, Any]) -> list[float]:
    return [stage["accuracy"] for stage in run["stages"]]


def probe_table(results: dict[str, Any]) -> str:
    """Wall time of the whole command, by set and side; medians with the range of the runs."""
    rows = []
    for name in dict.fromkeys(run["key"]["set"] for run in results["runs"]):
        for side in dict.fromkeys(run["key"]["side"] for run in results["runs"] if run["key"]["set"] == name):
            runs = chosen(results, set=name, side=side)
            seconds = [run["seconds"] for run in runs]
            spread = f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} … {max(seconds):.1f}, {len(runs)} runs)"
            accuracy = share(statistics.fmean(judged(run) for run in runs))
            memory = f"{statistics.median(run['peak_rss_mb'] for run in runs):,.0f} MB"
            rows.append([name, side, spread, accuracy, memory])
    text = markdown(["set", "command", "seconds", "accuracy", "peak memory"], rows)
    return f"{text}\n{busy(results['runs'])} {machines(results)}\n"


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


def assets_table(_results: dict[str, Any]) -> str:
    """Origins and hashes."""
    rows = [[f"`{each.path}`", each.what, each.origin, f"`{each.sha256[:16]}…`"] for each in assets.ASSETS.values()]
    return markdown(["path", "what", "origin", "SHA-256"], rows)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "assets": ("", assets_table),
    "transfer": ("transfer.json", transfer_table),
    "gains": ("transfer.json", gain_table),
    "plans": ("plans.json", plans_table),
    "probe": ("probe.json", probe_table),
}


def table(name: str, folder: Path) -> str:
    """The text of one table, or a line that says that it was not measured yet."""
    file, make = TABLES[name]
    if not file:
        return make({})
    if not (folder / file).is_file():
        return "Not measured yet.\n"
    return make(json.loads((folder / file).read_text(encoding="utf-8")))


def filled(text: str, folder: Path = record.RESULTS) -> str:
    """A page with its tables written anew.

    Raises:
        KeyError: a marker names no table.
    """
    return MARKED.sub(lambda found: f"{found[1]}{table(found[2], folder)}{found[4]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is old")
    options = parser.parse_args()
    old = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        wanted = filled(text)
        if wanted != text and options.check:
            old.append(page.name)
        elif wanted != text:
            page.write_text(wanted, encoding="utf-8")
    if old:
        raise SystemExit(f"not what the results give: {', '.join(old)}; run python -m benchmarks.tables")


if __name__ == "__main__":
    main()
