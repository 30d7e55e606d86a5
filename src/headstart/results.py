"""What a finished run found, shown in the terminal: its stages or folds, and what its model answers."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from headstart.core.plural import plural
from headstart.core.run import Run
from headstart.data.reading.collection import listing
from headstart.data.reading.guess import new_rows
from headstart.tables import count as sized
from headstart.tables import score, stage_table
from headstart.terminal import SHARES, clean, duration, number

if TYPE_CHECKING:
    from headstart.workflows.demo import Demonstration


def show(run: Run, console: Console) -> None:
    """The tables of a run, after the last line of its progress."""
    found = run.read("folds.json")
    if found is None:
        _show_stages(run, console)
        return
    metric, baselines = found["metric"], found.get("baselines") or []
    table = _table()
    for title in ("fold", "best stage", "time", f"{metric.replace('_', ' ')} [95 %]", "n"):
        table.add_column(title, justify="right" if title in ("time", "n") else "left", overflow="fold")
    rows = [(fold["name"], fold["best"], duration(fold["seconds"]), fold["metrics"]) for fold in found["folds"]]
    rows += [("mean of the folds", "", "", found["mean"]), ("all rows", "", "", found["pooled"])]
    rows += [(f"all rows: {each['name']}", "no backbone", "", each["metrics"]) for each in baselines]
    for name, best, seconds, scores in rows:
        measured = scores.get(metric)
        told, count = ("–", "") if measured is None else (_score(metric, measured), str(measured["n"]))
        summary = "" if name.startswith("fold-") else "quiet" if best == "no backbone" else "bold"
        table.add_row(Text(clean(name), summary), Text(clean(best)), seconds, Text(told, summary), count)
    console.print()
    console.print(table)
    console.print()
    lines = (
        f"every row was tested once, by a model that never saw it; a report for each fold: {clean(run.path)}",
        "the interval of the mean is over the folds, that of all rows over the rows, taken together",
    )
    for each in baselines[:1]:
        console.print(Text(f"{_gain(each['gain'], metric)} over {clean(each['name'])}, on all rows"))
    for line in lines:
        console.print(Text(line, style="quiet"))


def demonstration(found: Demonstration, console: Console) -> None:
    """The strategies of a demo in one table, what pretraining gained, and where the report is."""
    rows = found.rows
    table = _table()
    for title in ("strategy", "trained", "time", f"accuracy [95 %], n = {rows['test']:,}", ""):
        table.add_column(title, justify="right" if title in ("trained", "time") else "left", no_wrap=True)
    for line in found.lines:
        style = "bold" if line is found.lines[-1] else ""
        share = line.accuracy["value"]
        table.add_row(
            Text(line.strategy.title, style),
            sized(line.trained),
            duration(line.seconds),
            score("accuracy", line.accuracy),
            Text("━" * round(24 * share), "accent" if line.strategy.pretrained else "quiet"),
        )
    console.print()
    console.print(Text.assemble((found.title, "bold"), (f"  {_rows_told(rows)}, {found.backbone}", "quiet")))
    console.print()
    console.print(table)
    console.print()
    for name, against in (("probe", "the same with frozen random weights"), ("fine-tuned", "training from scratch")):
        console.print(Text(f"{name}: {_gain(asdict(found.gains[name]))} against {against}"))
    if found.run.read("result.json")["best"] == "probe":
        console.print(Text("fine-tuned: on the rows to choose by it was not better than the probe, which was kept"))
    console.print(Text(f"report: {clean(found.run.path / 'report.html')}", style="accent"))
    console.print()


def _rows_told(rows: Mapping[str, int]) -> str:
    return f"{rows['train']} rows to learn from, {rows['val']} to choose by, {rows['test']:,} to test on"


def _gain(gain: Mapping[str, float], metric: str = "accuracy") -> str:
    """``+31.2 points [28.9, 33.5]``, or ``-0.412 [-0.502, -0.322]`` of what is no share."""
    if metric not in SHARES:
        return f"{gain['value']:+.3f} [{gain['low']:.3f}, {gain['high']:.3f}]"
    return f"{100 * gain['value']:+.1f} points [{100 * gain['low']:.1f}, {100 * gain['high']:.1f}]"


def _beside(other: Mapping[str, Any], metric: str) -> str:
    """``+30.8 points [22.1, 39.0] over pixels on the same rows, which reaches 61.3 % [53.5, 68.8]``."""
    name, reached = clean(other["name"]), _score(metric, other["metrics"][metric])
    return f"{_gain(other['gain'], metric)} over {name} on the same rows, which reaches {reached}"


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


def classes(scores: Iterable[Any], limit: int = 40) -> RenderableType:
    """Recall, precision and F1 of every class; of many classes the worst, those without rows last."""
    table = _table()
    ranked = sorted(scores, key=lambda score: (score.recall.n == 0, score.f1.value))
    several = any(score.average_precision is not None for score in ranked)
    for title in ("class", "n", "recall [95 %]", "precision", "F1", *(["AP [95 %]"] if several else [])):
        table.add_column(title, justify="left" if title == "class" else "right", overflow="fold")
    for each in ranked[:limit]:
        rows, precision = each.recall.n, f"{100 * each.precision.value:.1f} %" if each.precision.n else "–"
        values = [_within(each.recall), precision, f"{100 * each.f1.value:.1f} %"] if rows else ["–", precision, "–"]
        values += [_within(each.average_precision)] if several else []
        table.add_row(Text(clean(each.name)), str(rows), *values)
    hidden = [each.recall.n > 0 for each in ranked[limit:]]
    counts = ((sum(hidden), "better one", "better ones"), (hidden.count(False), "without rows", "without rows"))
    if hidden:
        told = " and ".join(plural(*count) for count in counts if count[0])
        table.add_row(Text(f"and {told}", style="quiet"))
    invented = [each.name for each in ranked if each.precision.n and not each.recall.n]
    if not invented:
        return table
    told = f"answered, and no row is of them, which macro F1 counts as 0: {listing(invented)}"
    return Group(table, Text(told, style="quiet"))


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
    if test:
        beaten = [each for each in result.get("baselines") or [] if metric in each["metrics"]] if metric in test else []
        metric = metric if metric in test else next(iter(test))  # rows of one class do not have all
        usual = ("accuracy", "macro_f1", "subset_accuracy", "log_loss")
        beside = [name for name in usual if name in test and name != metric]
        others = "".join(f" · {name.replace('_', ' ')} {number(name, test[name]['value'])}" for name in beside)
        count = f", n = {test[metric]['n']}{others}"
        yield "test", Text.assemble(f"{metric} ", score(metric, test[metric]), (count, "quiet"))
        for other in beaten[:1]:
            yield "", Text(_beside(other, metric), "quiet")
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
        rows = new_rows(run.read("data.json", default={}).get("modality", ""))
        yield "next", Text(f"headstart predict {clean(shlex.quote(str(run.path)))} {rows}", style="accent")
