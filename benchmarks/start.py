"""The tables of the built-in backbones: what pretraining gains with few labels, and what larger weights gain on top."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.texts import busy, chosen, gain_text, judged, machines, markdown, mean_text, seconds_text

TITLES = {
    "digits": "scikit-learn digits",
    "usps": "USPS",
    "hymenoptera": "hymenoptera",
    "cartoon": "PACS cartoon",
    "smsa": "SmSA (Indonesian)",
    "sst2": "SST-2 (English)",
    "speakers": "spoken digits, unheard speaker",
    "esc10": "ESC-10, fold 1 → 2",
}
COLUMNS = {
    "baseline": "no network",
    "random": "frozen, random",
    "probe": "frozen, built-in",
    "scratch": "from scratch",
    "fine-tuned": "fine-tuned, built-in",
    "real probe": "frozen, real weights",
    "real fine-tuned": "fine-tuned, real weights",
}
PAIRS = (("fine-tuned", "scratch"), ("probe", "random"))
MISSING = "Not measured yet.\n"


def few_table(results: dict[str, Any]) -> str:
    """20 labelled rows a class."""
    return _table(results, "few")


def many_table(results: dict[str, Any]) -> str:
    """500 labelled rows in all."""
    return _table(results, "500")


def gains_table(results: dict[str, Any]) -> str:
    """Pretrained less not pretrained, paired by seed, the share of the errors that are gone, and the times."""
    rows = []
    for size, told in (("few", "20 a class"), ("500", "500 in all")):
        for name, title in TITLES.items():
            line = [title, told]
            for ours, theirs in PAIRS:
                line += _gain(results, ours, theirs, set=name, size=size)
            tuned, scratch = (chosen(results, set=name, size=size, strategy=each) for each in PAIRS[0])
            if tuned and scratch:
                seconds = [statistics.median(run["seconds"] for run in runs) for runs in (tuned, scratch)]
                rows.append([*line, f"{seconds[0] / seconds[1]:.2f}"])
    head = ["set", "labels"]
    for ours, theirs in PAIRS:
        head += [f"{COLUMNS[ours]} − {COLUMNS[theirs]}", "errors gone"]
    return markdown([*head, "time of fine-tuning over scratch"], rows) if rows else MISSING


def _gain(results: dict[str, Any], ours: str, theirs: str, **key: Any) -> list[str]:
    left, right = (
        {run["key"]["seed"]: judged(run) for run in chosen(results, strategy=each, **key)} for each in (ours, theirs)
    )
    both = [seed for seed in left if seed in right]
    if not both:
        return ["–", "–"]
    errors = [1 - statistics.fmean(each[seed] for seed in both) for each in (left, right)]
    gone = f"{100 * (1 - errors[0] / errors[1]):.0f} %" if errors[1] else "–"
    return [gain_text([left[seed] - right[seed] for seed in both]), gone]


def _table(results: dict[str, Any], size: str) -> str:
    """Accuracy (mean and interval over seeds) and seconds, a row for each set."""
    only = {**results, "runs": chosen(results, size=size)}
    if not only["runs"]:
        return MISSING
    seeds = len({run["key"]["seed"] for run in only["runs"]})
    present = [name for name in COLUMNS if chosen(only, strategy=name)]
    rows = []
    for name, title in TITLES.items():
        runs = {strategy: chosen(only, set=name, strategy=strategy) for strategy in present}
        first = next((each[0] for each in runs.values() if each), None)
        if first is None:
            continue
        told = first["rows"]
        line = [f"{title}<br>{told['train']} + {told['val']}, tested on {told['test']:,}"]
        for each in runs.values():
            cell = f"{mean_text([judged(run) for run in each])}<br>{seconds_text([run['seconds'] for run in each])}"
            few = f" ({len(each)} seed{'s' * (len(each) > 1)})" if len(each) < seeds else ""
            line.append(cell + few if each else "–")
        rows.append(line)
    table = markdown(
        ["accuracy, time<br>rows to learn from + to choose by", *(COLUMNS[name] for name in present)], rows
    )
    over = f"Mean and 95 % interval (Student's t) over {seeds} seed{'s' * (seeds != 1)}"
    spent = "median seconds of one `fit` with an empty cache: decoding, training, test, report"
    return f"{table}\n{over}; {spent}. {busy(only['runs'])} {machines(only)}\n"
