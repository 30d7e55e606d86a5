"""What a finished run found, shown in the terminal: its stages or folds, and what its model answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headstart.core.errors import NothingAccepted
from headstart.core.run import Run
from headstart.tables import results
from headstart.terminal import clean, duration, number


def told(console: Console, work: Callable[[], Run]) -> Run:
    """Do the work and show what it found, also where nothing acceptable came out of it.

    Raises:
        NothingAccepted: as ``work`` did, after its tables were shown.
    """
    try:
        run = work()
    except NothingAccepted as error:
        show(Run(error.problems[0].where), console)
        raise
    show(run, console)
    return run


def show(run: Run, console: Console) -> None:
    """The tables of a run, after the last line of its progress."""
    found = run.read("folds.json")
    if found is None:
        results(run, console)
        return
    metric = found["metric"]
    table = _table()
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


def evaluation(measured: Mapping[str, Any], title: str) -> Table:
    """Metrics with their intervals."""
    table = _table()
    table.add_column(title)
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    table.add_column("n", justify="right")
    for name, value in measured.items():
        low, high = number(name, value.low), number(name, value.high)
        table.add_row(
            name.replace("_", " "), Text(number(name, value.value), style="bold"), f"{low} – {high}", str(value.n)
        )
    return table


def classes(scores: Iterable[Any], limit: int = 40) -> Table:
    """Recall, precision and F1 of every class; of many classes the worst."""
    table = _table()
    ranked = sorted(scores, key=lambda score: score.f1.value)
    several = any(score.average_precision is not None for score in ranked)
    for title in ("class", "n", "recall [95 %]", "precision", "F1", *(["AP [95 %]"] if several else [])):
        table.add_column(title, justify="left" if title == "class" else "right", overflow="fold")
    for score in ranked[:limit]:
        precision = score.precision
        values = [str(score.recall.n), _within(score.recall)]
        values += [f"{100 * precision.value:.1f} %", f"{100 * score.f1.value:.1f} %"]
        values += [_within(score.average_precision)] if several else []
        table.add_row(Text(clean(score.name)), *values)
    if len(ranked) > limit:
        table.add_row(Text(f"and {len(ranked) - limit} better ones", style="quiet"))
    return table


def _within(found: Any) -> str:
    """A share with its interval; a dash for what is no number."""
    if found.value != found.value:
        return "–"
    return f"{100 * found.value:.1f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, header_style="quiet", pad_edge=False, show_edge=False)


def _score(metric: str, score: dict[str, float]) -> str:
    low, high = (number(metric, score[side]).removesuffix(" %") for side in ("low", "high"))
    return f"{number(metric, score['value'])} [{low}, {high}]"
