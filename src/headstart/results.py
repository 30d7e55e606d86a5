"""What a finished run found, shown in the terminal: its stages, or its folds where it was cross-validated."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.core.run import Run
from headstart.tables import score, stage_table
from headstart.terminal import clean, duration, number


def show(run: Run, console: Console) -> None:
    """The tables of a run, after the last line of its progress."""
    found = run.read("folds.json")
    if found is None:
        _show_stages(run, console)
        return
    metric = found["metric"]
    table = Table(box=box.SIMPLE_HEAD, header_style="quiet", pad_edge=False, show_edge=False)
    for title in ("fold", "best stage", "time", f"{metric.replace('_', ' ')} [95 %]", "n"):
        table.add_column(title, justify="right" if title in ("time", "n") else "left", overflow="fold")
    rows = [(fold["name"], fold["best"], duration(fold["seconds"]), fold["metrics"]) for fold in found["folds"]]
    rows += [("mean of the folds", "", "", found["mean"]), ("all rows", "", "", found["pooled"])]
    for name, best, seconds, scores in rows:
        measured = scores.get(metric)
        told, count = ("–", "") if measured is None else (_score(metric, measured), str(measured["n"]))
        summary = "" if name.startswith("fold-") else "bold"
        table.add_row(Text(clean(name), summary), Text(clean(best)), seconds, Text(told, summary), count)
    console.print()
    console.print(table)
    console.print()
    console.print(
        Text(
            f"every row was tested once, by a model that never saw it; a report for each fold: {clean(run.path)}",
            style="quiet",
        )
    )


def _score(metric: str, score: dict[str, float]) -> str:
    low, high = (number(metric, score[side]).removesuffix(" %") for side in ("low", "high"))
    return f"{number(metric, score['value'])} [{low}, {high}]"


def _show_stages(run: Run, console: Console) -> None:
    """Baselines and stages with intervals and verdicts, the test result, the time, the paths."""
    result = run.read("result.json", default={})
    stages, baselines = run.stages(), list(run.read("baseline/result.json", default=[]))
    metric = next((stage["verdict"]["metric"] for stage in reversed(stages)), "accuracy")  # the first may prepare
    console.print()
    console.print(stage_table(baselines, stages, result.get("best"), metric, console))
    console.print()
    for title, line in _conclusion(run, result, metric):
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=7, style="quiet")
        grid.add_column(overflow="fold")
        grid.add_row(title, line)
        console.print(grid)


def _conclusion(run: Run, result: Mapping[str, Any], metric: str) -> Iterator[tuple[str, Text]]:
    test = (result.get("metrics") or {}).get("test")
    if test and metric in test:
        beside = [name for name in ("accuracy", "macro_f1", "log_loss") if name in test and name != metric]
        others = "".join(f" · {name.replace('_', ' ')} {number(name, test[name]['value'])}" for name in beside)
        count = f", n = {test[metric]['n']}{others}"
        yield "test", Text.assemble(f"{metric} ", score(metric, test[metric]), (count, "quiet"))
    if result.get("optimistic"):
        yield "", Text("there were no rows for a test: selected on these rows, optimistic", style="warn")
    if result.get("beaten_by"):
        yield "", Text(f"no stage beat the baseline '{clean(result['beaten_by'])}'", style="warn")
    phases = result.get("phases") or []
    if phases:
        spent: dict[str, float] = {}
        for phase in phases:  # a resumed run has been through some of them twice
            spent[phase["name"]] = spent.get(phase["name"], 0.0) + phase["seconds"]
        total = max(result.get("seconds") or 0.0, sum(spent.values()))
        longest = sorted((name for name in spent if spent[name] >= 0.005 * total), key=lambda name: -spent[name])[:6]
        parts = " · ".join(f"{clean(name)} {duration(spent[name])}" for name in longest)
        yield "time", Text.assemble(duration(total), (f": {parts}", "quiet"))
    if run.model_folder.is_dir():
        yield "model", Text(clean(run.model_folder))
    if (run.path / "report.html").is_file():
        yield "report", Text(clean(run.path / "report.html"))
    if run.model_folder.is_dir() and not result.get("beaten_by"):
        yield "next", Text(f"headstart predict {clean(shlex.quote(str(run.path)))} new/", style="accent")
