"""What a finished run found, shown in the terminal: its stages, or its folds where it was cross-validated."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.core.run import Run
from headstart.tables import results
from headstart.terminal import clean, duration, number


def show(run: Run, console: Console) -> None:
    """The tables of a run, after the last line of its progress."""
    found = run.read("folds.json")
    if found is None:
        results(run, console)
        return
    metric = found["metric"]
    table = Table(box=box.SIMPLE_HEAD, header_style="quiet", pad_edge=False, show_edge=False)
    for title in ("fold", "best stage", "time", f"{metric.replace('_', ' ')} [95 %]", "n"):
        table.add_column(title, justify="right" if title in ("time", "n") else "left", overflow="fold")
    rows = [(fold["name"], fold["best"], duration(fold["seconds"]), fold["metrics"]) for fold in found["folds"]]
    rows += [("mean of the folds", "", "", found["mean"]), ("all rows", "", "", found["pooled"])]
    for name, best, seconds, scores in rows:
        score = scores.get(metric)
        told, count = ("–", "") if score is None else (_score(metric, score), str(score["n"]))
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
