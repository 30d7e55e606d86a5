"""The tables of exports: how many times as quick as eager PyTorch, beside the best peer, and what was lost."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import deploy
from benchmarks.speed import ratio_text
from benchmarks.texts import busy, machines, markdown, share

FAILED = "none"


def quicker(times: dict[str, Any], ours: str, other: str) -> list[float]:
    """How many times as long ``other`` took as ``ours``, round by round."""
    pairs = zip(times[ours]["rounds_ms"], times[other]["rounds_ms"], strict=True)
    return [theirs / mine for mine, theirs in pairs]


def best(run: dict[str, Any], *, openvino: bool) -> str:
    """The accepted variant that the verdict would take, with the extra or without; nothing where there is none."""
    return next(iter(run["accepted" if openvino else "base"]), "")


def peers_of(run: dict[str, Any]) -> list[str]:
    """What a user could have instead: eager torch aside, all that is no variant of ours."""
    return [name for name in run["times"]["1"] if name not in run["variants"] and name != deploy.EAGER]


def deploy_table(results: dict[str, Any]) -> str:
    """Gains over eager torch for batches of 1 and 16, of both installs, and the chosen variant beside the best peer."""
    rows = []
    for run in results["runs"]:
        job = deploy.JOBS[run["key"]["model"]]
        for place, batch in enumerate(("1", "16")):
            times = run["times"][batch]
            line = [job.title, batch, f"{times[deploy.EAGER]['p50_ms']:.1f} ms"]
            for goal, extra in ((job.base, False), (job.openvino, True)):
                name = best(run, openvino=extra)
                gain = ratio_text(quicker(times, name, deploy.EAGER)) if name else FAILED
                line += [f"{name}: {gain}" if name else FAILED, "" if goal is None else f"{goal[place]:g}x"]
            line.append(_beside(run, times))
            rows.append(line)
    head = ["network", "batch", "torch eager", "base install", "goal", "with OpenVINO", "goal", "time of the best peer"]
    told = "Ratios of the medians of rounds in which all take turns: median (least … most)."
    return f"{markdown(head, rows)}\n{told} {busy(results['runs'])} {machines(results)}\n"


def _beside(run: dict[str, Any], times: dict[str, Any]) -> str:
    """The quickest peer, and its time as a multiple of the chosen variant's: below 0.95 it is quicker by 5 %."""
    name, others = best(run, openvino=True), peers_of(run)
    if not name or not others:
        return "–"
    peer = min(others, key=lambda each: float(times[each]["p50_ms"]))
    return f"{statistics.median(quicker(times, name, peer)):.2f}x, {peer}"


def deploy_losses(results: dict[str, Any]) -> str:
    """Of every variant and every peer's file: its size, and the change of the metric from torch on the same rows."""
    rows = []
    for run in results["runs"]:
        title = deploy.JOBS[run["key"]["model"]].title
        base = run["reference"]
        ours = [(name, each, _verdict(each)) for name, each in run["variants"].items()]
        for name, each, verdict in [*ours, *((name, each, "") for name, each in run["peers"].items())]:
            size = f"{each['bytes'] / 1e6:.2f} MB, {each['bytes'] / run['bytes']:.3f}x"
            rows.append([title, name, size, points(each["difference"]), verdict])
            title = ""
        rows.append(["", "torch", "", f"{share(base['value'])} (n = {base['n']})", run["metric"]])
    return markdown(["network", "variant", "file", "points, 95 % interval", "verdict"], rows)


def points(difference: dict[str, Any]) -> str:
    """+0.3 (-0.1 … +0.7)."""
    value, low, high = (100 * difference[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} … {high:+.1f})"


def _verdict(variant: dict[str, Any]) -> str:
    told: Iterable[str] = ["accepted" if variant["accepted"] else variant["refused"]]
    few: Sequence[str] = ["too few rows to tell"] if variant["too_few"] else []
    single: Sequence[str] = [] if variant["batches"] else ["rows by themselves"]
    return "; ".join([*told, *few, *single])
