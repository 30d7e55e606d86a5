"""Tables for people: what a run found, what a plan will do, what an audit says. Imports rich and nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from headstart.core.plural import plural
from headstart.terminal import VERDICTS, clean, duration, number

FEW = 10  # backbones of a list that are told at length
SEVERITIES = {"error": "bad", "warning": "warn", "info": "quiet", "ok": "good"}


def stage_table(
    baselines: Sequence[Mapping[str, Any]],
    stages: Sequence[Mapping[str, Any]],
    best: str | None,
    metric: str,
    console: Console,
) -> Table:
    """Rows: the baselines, then the stages; the score with its 95 % interval, drawn where there is room."""
    table = _table()
    trains, drawn = console.width >= 90, console.width >= 112
    measured = [dict(entry.get("metrics") or {}).get(metric) for entry in baselines]
    measured += [stage["metrics"]["val"].get(metric) for stage in stages]
    rows = next((value["n"] for value in measured if value), 0)
    table.add_column("stage", overflow="fold")
    if trains:
        table.add_column("trains", style="quiet", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    limits = [f"{100 * entry['limit']['share']:.0f} %" if entry.get("limit") else "" for entry in (*baselines, *stages)]
    if any(limits):
        table.add_column("of limit", justify="right", no_wrap=True)
    table.add_column(f"{metric.replace('_', ' ')} [95 %], n = {rows}", no_wrap=True)
    if drawn:
        table.add_column("", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    scale = _scale([value for value in measured if value])
    entries = [_baseline_cells(entry) for entry in baselines] + [_stage_cells(stage, best) for stage in stages]
    for (name, what, seconds, verdict), value, limit in zip(entries, measured, limits, strict=True):
        cells: list[RenderableType] = [name, *([what] if trains else []), duration(seconds)]
        cells += [*([limit] if any(limits) else []), score(metric, value)]
        table.add_row(*cells, *([_whisker(value, scale, 24)] if drawn else []), verdict)
    return table


def explained(rows: Iterable[tuple[str, Any, str]]) -> Table:
    """Every setting, its value and where it came from."""
    table = _table()
    for title in ("setting", "value", "from"):
        table.add_column(title, overflow="fold")
    for key, value, why in rows:
        style = "quiet" if why == "default" else ""
        table.add_row(Text(key, style=style), Text(clean(value), style=style), Text(clean(why), style="quiet"))
    return table


def findings(found: Sequence[Any], checked: int) -> RenderableType:
    """The findings of an audit, the gravest first, each with what to do."""
    order = {"error": 0, "warning": 1, "info": 2}
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8)
    grid.add_column(overflow="fold")
    for finding in sorted(found, key=lambda finding: order[finding.severity]):
        where = f" ({finding.split})" if finding.split else ""
        remedy = f"\n{clean(finding.remedy)}" if finding.remedy else ""
        message = Text.assemble(clean(finding.message), (where + remedy, "quiet"))
        grid.add_row(Text(finding.severity, style=SEVERITIES[finding.severity]), message)
    counts = {name: sum(finding.severity == name for finding in found) for name in order}
    serious = f"{plural(counts['error'], 'error')}, {plural(counts['warning'], 'warning')}"
    told = f"{plural(checked, 'row')} checked: {serious}; nothing was changed"
    return Group(grid, Text(told, style="bold"))


def counts(by_split: Mapping[str, Mapping[str, int]], rows: Mapping[str, int], limit: int = 30) -> Table:
    """Rows of every class in every split, and all of them (``rows``); of many classes the largest."""
    table = _table()
    table.add_column("class", overflow="fold")
    for split in by_split:
        table.add_column(split, justify="right")
    labels = sorted(next(iter(by_split.values())), key=lambda label: -by_split["train"][label])
    for label in sorted(labels) if len(labels) <= limit else labels[:limit]:
        table.add_row(Text(clean(label)), *(str(split[label]) for split in by_split.values()))
    if len(labels) > limit:
        table.add_row(Text(f"and {len(labels) - limit} more", style="quiet"))
    table.add_row(Text("all", style="bold"), *(Text(str(rows[split]), "bold") for split in by_split))
    return table


def checks(found: Iterable[Any]) -> Table:
    """What the doctor saw; remedies below what they belong to."""
    grid = Table.grid(padding=(0, 2))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    last = ""
    for check in found:
        topic, last = "" if check.topic == last else check.topic, check.topic
        style = "" if check.status in ("ok", "info") else SEVERITIES[check.status]
        text = Text(clean(check.value), style=style)
        if check.remedy:
            text.append(f"\n{clean(check.remedy)}", style="quiet")
        grid.add_row(Text(topic, style="bold"), Text(check.name, style=style or "quiet"), text)
    return grid


def plan(table: Any, console: Console) -> None:
    """What ``fit`` would do: the stages, every block with its rate in each of them, and what speaks against it."""
    reason = f": {table.reason}" if table.reason else ""
    size = f"{count(table.parameters)} parameters · {plural(table.train_rows, 'training row')}"
    console.print(Text(clean(f"plan {table.name}{reason} · {table.backbone}, {size}")))
    stages = _table()
    stages.add_column("stage", style="bold", overflow="fold")
    stages.add_column("trains", overflow="fold")
    for title in ("parameters", "epochs", "updates", "time", "memory"):
        stages.add_column(title, justify="right", no_wrap=True)
    for stage in table.stages:
        length = (str(stage.epochs), str(stage.updates)) if stage.epochs else ("–", "–")
        cached = ", from cache" if stage.cached and stage.epochs else ""
        cost = (f"~{duration(stage.seconds)}", f"~{stage.memory_mb:.0f} MB")
        stages.add_row(
            Text(clean(stage.title)), Text(f"{stage.trains}{cached}"), count(stage.trainable), *length, *cost
        )
    console.print(stages)
    console.print(Text(f"about {duration(table.seconds)} of training, measured on a small batch here", style="quiet"))
    console.print()
    console.print(_blocks(table))
    for problem in table.problems:
        console.print(Text(clean(problem), style="warn"))


def _blocks(table: Any) -> Table:
    """Blocks from the input to the head, with the rate of each in every stage."""
    blocks = _table()
    blocks.add_column("block", overflow="fold")
    blocks.add_column("parameters", justify="right")
    for stage in table.stages:
        blocks.add_column(clean(stage.title), justify="right", overflow="fold")
    for index, layer in enumerate(table.stages[0].layers if table.stages else ()):
        row = [stage.layers[index] for stage in table.stages]
        rates = [_rate(part) for part in row]
        blocks.add_row(Text(clean(layer.name)), count(layer.params), *rates)
    return blocks


def _rate(layer: Any) -> Text:
    if layer.frozen:
        return Text("frozen", "quiet")
    return Text("solved") if layer.lr is None else Text(f"{layer.lr:.1e}")


def predictions(rows: Sequence[Any], top: int) -> Table:
    """File, label and probability; more columns for ``top`` > 1, and for texts and problems where there are any."""
    table = _table()
    texts = any(row.texts for row in rows)
    table.add_column("row" if texts else "file", overflow="fold")
    if texts:
        table.add_column("text", overflow="fold")
    for rank in range(top):
        table.add_column("label" if rank == 0 else f"label {rank + 1}", overflow="fold")
        table.add_column("", justify="right", no_wrap=True)
    if any(row.problem for row in rows):
        table.add_column("problem", overflow="fold")
    for row in rows:
        cells = [Text(clean(row.name)), *([Text(clean(row.shown if row.texts else ""))] if texts else [])]
        if not row.scores and not row.problem:
            cells.append(Text("no label", style="quiet"))
        for rank, (label, probability) in enumerate(row.scores[:top]):
            cells.append(Text(clean(label), style="bold" if rank == 0 else "quiet"))
            cells.append(Text(f"{100 * probability:.1f} %", style="" if rank == 0 else "quiet"))
        if row.problem:
            cells += [Text()] * (1 + texts + 2 * top - len(cells)) + [Text(clean(row.problem), style="warn")]
        table.add_row(*cells)
    return table


def models(entries: Sequence[Any], console: Console, limit: int = 40) -> None:
    """Backbones, those on this machine first; on a terminal only as many as one can read."""
    ranked = sorted(entries, key=lambda entry: not entry.local)
    shown = ranked[:limit] if console.is_terminal else ranked
    table = _table()
    for title in ("backbone", "parameters", "weights"):
        table.add_column(title, justify="right" if title == "parameters" else "left", overflow="fold")
    for entry in shown:
        parameters = "" if entry.parameters is None else count(entry.parameters)
        weights = "here" if entry.local and entry.weights else "on the network" if entry.weights else "random"
        table.add_row(Text(clean(entry.name), "bold" if entry.local else ""), parameters, Text(weights, "quiet"))
    console.print(table)
    for entry in shown:
        if len(entries) <= FEW and entry.about:
            console.print(_about(entry))
    if len(shown) < len(ranked):
        more = f"and {len(ranked) - len(shown)} more: headstart models 'timm/resnet*' narrows them down"
        console.print(Text(more, style="quiet"))


def _about(entry: Any) -> Group:
    """What is known of a backbone's making, below its name."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="quiet", no_wrap=True)
    grid.add_column(overflow="fold")
    title = ""
    for name, text in entry.about:
        grid.add_row(name if name != title else "", clean(text))
        title = name
    return Group(Text(""), Text(clean(entry.name), style="bold"), grid)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, header_style="quiet", pad_edge=False, show_edge=False, expand=False)


def _baseline_cells(entry: Mapping[str, Any]) -> tuple[Text, Text, float, Text]:
    return Text(clean(entry["name"]), style="quiet"), Text("no backbone"), entry["seconds"], Text("baseline", "quiet")


def _stage_cells(stage: Mapping[str, Any], best: str | None) -> tuple[Text, Text, float, Text]:
    mark, word, style = VERDICTS.get(stage["verdict"]["decision"], ("", stage["verdict"]["decision"], ""))
    chosen = stage["name"] == best
    thawed = stage["blocks"] - stage["frozen_blocks"]
    trains = f"{thawed}/{stage['blocks']} blocks, " if thawed else "head, "
    name = Text(clean(stage["name"]), style="bold" if chosen else "")
    verdict = Text.assemble((f"{mark} {word}", style), (" ★ best" if chosen else "", "good"))
    return name, Text(f"{trains}{count(stage['trainable'])}"), stage["seconds"], verdict


def count(parameters: int) -> str:
    """``1.2 M`` parameters."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters)


def score(metric: str, value: Mapping[str, Any] | None) -> Text:
    """``94.1 % [91.8, 96.0]``."""
    if value is None:
        return Text("–")
    low, high = (number(metric, value[side]).removesuffix(" %") for side in ("low", "high"))
    return Text.assemble((f"{number(metric, value['value']):>6}", "bold"), (f" [{low}, {high}]", "quiet"))


def _scale(measured: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    low = min((value["low"] for value in measured), default=0.0)
    high = max((value["high"] for value in measured), default=1.0)
    return low, max(high, low + 1e-9)


def _whisker(value: Mapping[str, Any] | None, scale: tuple[float, float], width: int) -> Text:
    """The interval as a line with the value as a dot, on the scale of the whole table."""
    if value is None:
        return Text("")

    def place(number: float) -> int:
        return round((number - scale[0]) / (scale[1] - scale[0]) * (width - 1))

    low, dot, high = place(value["low"]), place(value["value"]), place(value["high"])
    line = "".join("●" if i == dot else "─" if low <= i <= high else " " for i in range(width))
    return Text.assemble((line[:dot], "quiet"), (line[dot], "accent"), (line[dot + 1 :], "quiet"))
