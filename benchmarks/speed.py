"""The tables of what is measured in seconds: ratios pair by pair, each beside the peer's strongest form."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import probe, record, scale
from benchmarks.texts import busy, chosen, gain_text, judged, machines, markdown, mean_text, share

GOALS = {"mobilenet_v2": 3.0, "resnet18": 5.0, "fine_tune": 4.0}
TITLES = {
    "mobilenet_v2": "MobileNetV2",
    "resnet18": "ResNet-18, random weights",
    "fine_tune": "`fine_tune`, 1 + 4 epochs",
}
CACHE_GOAL = 0.9
MEMORY_GOAL_MB = 2000


def spread(values: Sequence[float], unit: str = " s") -> str:
    """Median with the range: 12.0 s (11.4 … 12.6, 3 runs)."""
    middle, few, many = (f"{value:.1f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle}{unit}" if len(values) == 1 else f"{middle}{unit} ({few} … {many}, {len(values)} runs)"


def ratios(results: dict[str, Any], ours: str, theirs: str, *, what: str = "seconds", **key: Any) -> list[float]:
    """How many times as long the peer took, pair by pair."""
    left = {run["key"].get("pair"): run[what] for run in chosen(results, side=ours, **key)}
    right = {run["key"].get("pair"): run[what] for run in chosen(results, side=theirs, **key)}
    return [right[pair] / left[pair] for pair in left if pair is not None and pair in right]


def ratio_text(values: Sequence[float]) -> str:
    """9.1x (8.8 … 9.6)."""
    if not values:
        return "–"
    middle = f"{statistics.median(values):.1f}x"
    return middle if len(values) == 1 else f"{middle} ({min(values):.1f} … {max(values):.1f})"


def equal_text(results: dict[str, Any], ours: str, theirs: str, **key: Any) -> str:
    """When the peer's epochs reach Headstart's accuracy, median over the pairs; "never" where most do not."""
    reached: list[float] = []
    for run in chosen(results, side=theirs, **key):
        own = [each for each in chosen(results, side=ours, **key) if each["key"].get("pair") == run["key"].get("pair")]
        if own and run.get("epochs") and "accuracy" in run:
            at = record.first_reaching(run["epochs"], judged(own[0]))
            reached.append(float("inf") if at is None else at)
    if not reached:
        return "–"
    middle = statistics.median_high(reached)
    return "never" if middle == float("inf") else f"{middle:.0f} s"


def probe_table(results: dict[str, Any]) -> str:
    """Wall time of the whole command, by set and side, and how many times that of Headstart cold and warm."""
    timed = [run for run in results["runs"] if "pair" in run["key"]]
    only = {**results, "runs": timed}
    rows, extrapolated = [], 0
    for name in dict.fromkeys(run["key"]["set"] for run in timed):
        for side in dict.fromkeys(run["key"]["side"] for run in timed if run["key"]["set"] == name):
            runs = chosen(only, set=name, side=side)
            extrapolated += sum("extrapolated" in run for run in runs)
            told = [judged(run) for run in runs if "accuracy" in run]
            memory = f"{statistics.median(run['peak_rss_mb'] for run in runs):,.0f} MB"
            accuracy = share(statistics.fmean(told)) if told else "–"  # what was extrapolated tells none
            line = [name, side, spread([run["seconds"] for run in runs]), accuracy, memory]
            if side in probe.PEERS:
                line += [ratio_text(ratios(only, ours, side, set=name)) for ours in probe.SIDES]
                line.append(equal_text(only, probe.SIDES[0], side, set=name))
            rows.append([*line, *[""] * (8 - len(line))])
    head = ["set", "command", "seconds", "accuracy", "peak memory", "x cold", "x warm", "at equal accuracy"]
    text = markdown(head, rows)
    note = f" {extrapolated} runs of the tutorial are extrapolated from their first epochs." if extrapolated else ""
    return f"{text}\n{busy(timed)}{note} {machines(only)}\n"


def accuracy_table(results: dict[str, Any]) -> str:
    """What both sides reach over seeds, the tutorial at its best and last epoch, and Headstart's share of its limit."""
    rows = []
    for name in dict.fromkeys(run["key"]["set"] for run in results["runs"]):
        for side in probe.JUDGED:
            runs = [run for run in chosen(results, set=name, side=side) if "seed" in run["key"]]
            if not runs:
                continue
            shares = [[run[kind]["share"] for run in runs if kind in run] for kind in ("limit", "warm_limit")]
            last = [run["last_accuracy"]["val"] for run in runs if "last_accuracy" in run]
            told = [mean_text([judged(run) for run in runs]), mean_text(last) if last else ""]
            rows.append([name, side, *told, str(len(runs)), *map(_percent, shares)])
        rows += _differences(results, name)
    if not rows:
        return "Not measured yet.\n"
    head = ["set", "command", "accuracy", "at its last epoch", "seeds", "of the limit, cold", "of the limit, warm"]
    return markdown(head, rows)


def _differences(results: dict[str, Any], name: str) -> list[list[str]]:
    """Headstart's accuracy less the tutorial's at its best and at its last epoch, paired by seed; nothing of one."""
    own, other = ({run["key"]["seed"]: run for run in chosen(results, set=name, side=side) if "seed" in run["key"]}
                  for side in probe.JUDGED)  # fmt: skip
    seeds = sorted(own.keys() & other.keys())
    if len(seeds) < 2:
        return []
    best = [judged(own[seed]) - judged(other[seed]) for seed in seeds]
    last = [judged(own[seed]) - other[seed]["last_accuracy"]["val"] for seed in seeds]
    return [[name, "difference", gain_text(best), gain_text(last), str(len(seeds)), "", ""]]


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * statistics.median(shares):.0f} %" if shares else ""


def gradual_table(results: dict[str, Any]) -> str:
    """Whole commands with the same updates, by network and side, with how many times as long the peers took."""
    rows = []
    for job in dict.fromkeys(run["key"]["job"] for run in results["runs"]):
        for side in dict.fromkeys(run["key"]["side"] for run in results["runs"] if run["key"]["job"] == job):
            runs = chosen(results, job=job, side=side)
            accuracy = "" if job == "resnet18" else mean_text([judged(run) for run in runs])
            line = [TITLES[job], side, spread([run["seconds"] for run in runs]), accuracy]
            if side != "headstart":
                goal = "" if side == "strong" else f"{GOALS[job]:g}x"
                equal = "" if job == "resnet18" else equal_text(results, "headstart", side, job=job)
                line += [ratio_text(ratios(results, "headstart", side, job=job)), goal, equal]
            rows.append([*line, *[""] * (7 - len(line))])
    text = markdown(["", "side", "seconds", "accuracy", "times as long", "goal", "at equal accuracy"], rows)
    told = results["settings"]
    how = f"{told['epochs']} epochs at every depth, {told['views']} cached views, batches of {told['batch_size']}"
    return f"{text}\n{how}, {told['image_size']} px. {busy(results['runs'])} {machines(results)}\n"


def frontier_table(results: dict[str, Any]) -> str:
    """What the cache alone gains, and its bound, warm and cold; medians over the pairs."""
    rows = []
    for network, thawed in dict.fromkeys((run["key"]["network"], run["key"]["thawed"]) for run in results["runs"]):
        runs = chosen(results, network=network, thawed=thawed)
        one, count = runs[0], len(runs)
        line = [TITLES[network], f"{one['blocks'] - one['frozen_blocks']} of {one['blocks']}, {one['precision']}"]
        line.append(f"{statistics.median(run['u'] for run in runs):.3f}")
        for kind in ("warm", "cold"):
            gain, bound = (statistics.median(run[kind][what] for run in runs) for what in ("gain", "bound"))
            reached = statistics.median(run[kind]["gain"] / run[kind]["bound"] for run in runs)
            line += [f"{gain:.2f}x of {bound:.2f}x", f"{100 * reached:.0f} %"]
        forward = statistics.median(run["u_forward"] for run in runs)
        bound = statistics.median(run["warm"]["bound_forward"] for run in runs)
        rows.append([*line, f"{forward:.3f}: {bound:.2f}x", str(count)])
    head = [
        "network",
        "thawed blocks",
        "u",
        "warm gain",
        "of bound",
        "cold gain",
        "of bound",
        "u of a forward pass",
        "pairs",
    ]
    goal = f"Goal: {100 * CACHE_GOAL:.0f} % of the warm bound."
    return f"{markdown(head, rows)}\n{goal} {busy(results['runs'])} {machines(results)}\n"


def scale_table(results: dict[str, Any]) -> str:
    """Seconds and memory by the number of pictures, and how the time grows from one size to the next."""
    counts = sorted({run["key"]["pictures"] for run in results["runs"]})
    seconds = {count: _median(results, count, "seconds") for count in counts}
    least = _median(results, counts[0], "peak_rss_mb")
    rows = []
    for before, count in zip([None, *counts], counts, strict=False):
        beyond = _median(results, count, "peak_rss_mb") - least
        grows = (
            ""
            if before is None or before <= scale.LEAST
            else f"{scale.slope((before, seconds[before]), (count, seconds[count])):.2f}"
        )
        runs = chosen(results, pictures=count)
        longest = max(runs[-1]["phases"].items(), key=lambda phase: phase[1])
        told = [f"{count:,}", f"{seconds[count]:.1f} s", grows, f"{least + beyond:,.0f} MB", f"{beyond:,.0f} MB"]
        rows.append([*told, f"{_median(results, count, 'run_mb'):.1f} MB", f"{longest[0]} {longest[1]:.1f} s"])
    head = ["pictures", "seconds", "slope", "peak memory", "beyond the smallest", "run folder", "longest phase"]
    goal = f"Goal: below {MEMORY_GOAL_MB:,} MB beyond the model, a slope of about 1."
    return f"{markdown(head, rows)}\n{goal} {busy(results['runs'])} {machines(results)}\n"


def _median(results: dict[str, Any], count: int, what: str) -> float:
    return statistics.median(run[what] for run in chosen(results, pictures=count))
