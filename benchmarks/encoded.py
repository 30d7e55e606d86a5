"""The tables of texts and sounds: strategies with both scores over seeds, and whole processes in turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks import sound, text
from benchmarks.speed import equal_text, ratio_text, ratios, spread
from benchmarks.texts import busy, chosen, gain_text, judged, machines, markdown, mean_text, seconds_text, share
from headstart.measure.intervals import wilson

TEXTS = {
    "smsa": "SmSA: Indonesian, 3 classes",
    "smsa-500": "SmSA, 500 labels and 250 to choose by",
    "sst2": "SST-2: English, 2 classes",
}
SOUNDS = {
    "esc10": "ESC-10, trained on fold 1, judged on fold 2",
    "digits": "spoken digits, judged on takes 0 to 4",
    "speakers": "spoken digits, judged on a speaker never heard",
}
GAINS = (("probe", "baseline"), ("gradual", "probe"), ("full", "gradual"), ("gradual", "scratch"))
MISSING = "Not measured yet.\n"
FEW = 2  # seeds, of which both values tell more than an interval


def text_table(results: dict[str, Any]) -> str:
    """Strategies on texts beside TF-IDF."""
    return _strategies(results, TEXTS, {"baseline": "TF-IDF"})


def sound_table(results: dict[str, Any]) -> str:
    """Strategies on sounds beside log-mel statistics."""
    return _strategies(results, SOUNDS, {"baseline": "log-mel"})


def text_gains(results: dict[str, Any]) -> str:
    return _gains(results, TEXTS)


def sound_gains(results: dict[str, Any]) -> str:
    return _gains(results, SOUNDS)


def _strategies(results: dict[str, Any], titles: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Accuracy and macro-F1 (mean and interval over seeds) and seconds, a row for each set."""
    only = _with(results, "strategy")
    if not only["runs"]:
        return MISSING
    seeds = len({run["key"]["seed"] for run in only["runs"]})
    present = [name for name in text.STRATEGIES if chosen(only, strategy=name)]
    rows = []
    for name, title in titles.items():
        line, of_set = [title], chosen(only, set=name)
        tested = next((run["rows"]["test"] for run in of_set if "rows" in run), None)
        for strategy in present:
            runs = chosen(only, set=name, strategy=strategy)
            few = f" ({len(runs)} seed{'s' * (len(runs) > 1)})" if len(runs) < seeds else ""
            line.append(f"{_scores(runs, tested)}{few}<br>{_seconds(runs)}" if runs else "–")
        rows.append(line)
    over = f"Mean and 95 % interval (Student's t) over {seeds} seed{'s' * (seeds != 1)}"
    over = f"Mean (and both) of {seeds} seeds" if seeds == FEW else over
    if any(len(chosen(only, set=name, strategy=each)) == 1 for name in titles for each in present):
        single = "f a single seed, accuracy with the interval (Wilson's) that its test rows leave"
        over = f"O{single}" if seeds == 1 else f"{over}; o{single}"
    spent = "median seconds of a whole process: start, decoding, training, report"
    table = markdown(["accuracy<br>macro-F1<br>time", *(names.get(each, each) for each in present)], rows)
    return f"{table}\n{over}; {spent}. {busy(only['runs'])} {machines(only)}\n"


def _gains(results: dict[str, Any], titles: Mapping[str, str]) -> str:
    """By how much the macro-F1 of one strategy exceeds another's, paired by seed."""
    rows = []
    for name, title in titles.items():
        line = [title]
        for ours, theirs in GAINS:
            left, right = (
                {run["key"]["seed"]: _f1(run) for run in chosen(results, set=name, strategy=each)}
                for each in (ours, theirs)
            )
            gains = [left[seed] - right[seed] for seed in left if seed in right]
            line.append(_gain(gains))
        rows.append(line)
    if all(cell == "–" for line in rows for cell in line[1:]):
        return MISSING
    return markdown(["macro-F1", *(f"{ours} − {theirs}" for ours, theirs in GAINS)], rows)


def text_speed_table(results: dict[str, Any]) -> str:
    """Training beside the Trainer, in turns: seconds of training, what both reach, and what padding cost."""
    only = _with(results, "pair")
    if not only["runs"]:
        return MISSING
    ours, rows = next(iter(text.SIDES)), []
    for side in text.SIDES:
        runs = chosen(only, side=side)
        if not runs:
            continue
        line = [side, spread([run["train_seconds"] for run in runs]), spread([run["seconds"] for run in runs])]
        line += [mean_text([judged(run) for run in runs]), mean_text([_f1(run) for run in runs])]
        line += [f"{100 * statistics.fmean(run['filled'] for run in runs):.0f} %", _precision(runs), _memory(runs)]
        if side != ours:
            line += [ratio_text(ratios(only, ours, side, what=what)) for what in ("train_seconds", "seconds")]
        rows.append([*line, *[""] * (10 - len(line))])
    head = ["side", "training and judging", "whole process", "accuracy", "macro-F1", "places that hold a token"]
    table = markdown([*head, "precision", "peak memory", "x training", "x whole"], rows)
    return f"{table}\n{busy(only['runs'])} {machines(only)}\n"


def sound_speed_table(results: dict[str, Any]) -> str:
    """A probe of recordings as a whole command, beside ordinary epochs, in turns."""
    only = _with(results, "pair")
    if not only["runs"]:
        return MISSING
    ours, rows = sound.SIDES[0], []
    for name, title in SOUNDS.items():
        for side in sound.SIDES:
            runs = chosen(only, set=name, side=side)
            if not runs:
                continue
            line = [title, side, spread([run["seconds"] for run in runs])]
            line += [share(statistics.fmean(judged(run) for run in runs)), _memory(runs)]
            if side != ours:
                line += [ratio_text(ratios(only, ours, side, set=name)), equal_text(only, ours, side, set=name)]
            rows.append([*line, *[""] * (7 - len(line))])
            title = ""
    table = markdown(["set", "command", "seconds", "accuracy", "peak memory", "x cold", "at equal accuracy"], rows)
    return f"{table}\n{busy(only['runs'])} {machines(only)}\n"


def _with(results: dict[str, Any], key: str) -> dict[str, Any]:
    """The runs of one of the two questions that a file answers."""
    return {**results, "runs": [run for run in results["runs"] if key in run["key"]]}


def _f1(run: dict[str, Any]) -> float:
    """Of test rows where there are any, as ``judged``."""
    told = run["macro_f1"]
    return float(told.get("test", told["val"]))


def _scores(runs: list[dict[str, Any]], tested: int | None) -> str:
    """Over seeds, or of a single one over the test rows."""
    accuracy = _mean([judged(run) for run in runs])
    if len(runs) == 1 and tested:
        low, high = wilson(judged(runs[0]) * tested, tested)
        accuracy += f" [{share(low)}, {share(high)}]"
    return f"{accuracy}<br>F1 {_mean([_f1(run) for run in runs])}"


def _gain(gains: list[float]) -> str:
    """As ``_mean``."""
    if len(gains) != FEW:
        return gain_text(gains)
    return f"{gain_text([statistics.fmean(gains)])} ({' and '.join(gain_text([gain]) for gain in gains)})"


def _mean(values: list[float]) -> str:
    """With its interval; two values are shown both, for Student's interval has 12.7 standard errors to each side."""
    if len(values) != FEW:
        return mean_text(values)
    return f"{share(statistics.fmean(values))} ({share(min(values))} … {share(max(values))})"


def _seconds(runs: list[dict[str, Any]]) -> str:
    return seconds_text([run["seconds"] for run in runs])


def _memory(runs: list[dict[str, Any]]) -> str:
    return f"{statistics.median(run['peak_rss_mb'] for run in runs):,.0f} MB"


def _precision(runs: list[dict[str, Any]]) -> str:
    return ", ".join(sorted({str(run["precision"]) for run in runs}))
