"""Tables of exports and benchmarks, for people. Imports rich and nothing heavy."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from headstart.core import manifest
from headstart.core.errors import NothingAccepted
from headstart.data.reading.guess import new_rows
from headstart.terminal import clean, number

LEGEND = (
    "ms of one row alone, rows/s of 16; gain of both, beside the plain file in ONNX Runtime;\n"
    "same: decisions of torch; int8+bf16 computes in bf16 what is not in eight bits; fp16 are weights alone"
)


def told(console: Console, work: Callable[[], Path]) -> None:
    """Do the work and show its verdict, also where nothing was accepted.

    Raises:
        NothingAccepted: as ``work`` did, after its table was shown.
    """
    try:
        place = work()
    except NothingAccepted as error:
        show(Path(error.problems[0].where), console)
        raise
    show(place, console)


def show(place: Path, console: Console) -> None:
    """The verdict on every variant of an export, and what to do next."""
    verdict = manifest.read_json(place / "verdict.json")
    console.print()
    console.print(table(verdict))
    console.print(Text(LEGEND, style="quiet"))
    console.print()
    for each in [*verdict["variants"], *verdict["gone"]]:
        if each["refused"]:
            how = f"{each['name']}, {each['how']}: " if each in verdict["gone"] else f"{each['name']}: "
            told = Text.assemble((f"✗ {clean(how)}", "warn"), (clean(each["refused"]), "quiet"))
            console.print(told)
    few = [each["name"] for each in verdict["variants"] if each["too_few"] and not each["refused"]]
    if few:
        rows, points = verdict["data"]["rows"], 100 * verdict["tolerance"]
        what = f"{rows} validation rows are too few to tell a loss of {points:g} points from none: {', '.join(few)}"
        console.print(Text(clean(what), style="warn"))
    single = [each["name"] for each in verdict["variants"] if not each["batches"] and not each["refused"]]
    if single:
        what = "together, answers would depend on the other rows; every row is answered by itself"
        console.print(Text(clean(f"{', '.join(single)}: {what}"), style="quiet"))
    if verdict["accepted"]:
        for each in verdict["variants"]:
            if each["name"] == verdict["accepted"][0] and each["threshold"]:
                console.print(Text(_sure(each["threshold"]), style="quiet"))
        rows = new_rows(verdict["data"].get("modality", ""))
        console.print(Text(f"headstart predict {clean(shlex.quote(str(place)))} {rows}", style="accent"))


def published(files: Mapping[str, int]) -> Table:
    """One line a file of what leaves this machine."""
    made = _table()
    made.add_column("file", no_wrap=True)
    made.add_column("bytes", justify="right", no_wrap=True)
    for name, size in files.items():
        made.add_row(clean(name), f"{size:,}")
    return made


def serving(facts: Any, address: str) -> Text:
    """What a server says when it can answer: the model, its score, and where it is."""
    score = f"{facts.metric.replace('_', ' ')} {number(facts.metric, facts.score['value'])}"
    told = f"{facts.variant} · {score} · {_ms(facts.latency_ms['p50'])} ms · {len(facts.classes)} labels"
    head = Text.assemble(("▸ ", "accent"), (clean(facts.name), "bold"), (f"  {clean(told)}", "quiet"))
    return Text.assemble(head, "\n  ", (address, "accent"), ("  Ctrl-C stops", "quiet"))


def table(verdict: Mapping[str, Any]) -> Table:
    """One line a variant: size, metric and its difference from torch, agreement, latency, throughput, verdict."""
    metric = verdict["metric"]
    made = _table()
    made.add_column("variant", no_wrap=True)
    made.add_column("MB", justify="right", no_wrap=True)
    made.add_column(metric.replace("_", " "), justify="right", no_wrap=True)
    made.add_column(f"change, n = {verdict['data']['rows']}", no_wrap=True)
    made.add_column("same %", justify="right", no_wrap=True)
    made.add_column("ms p50/p95", justify="right", no_wrap=True)
    made.add_column("rows/s", justify="right", no_wrap=True)
    made.add_column("gain", justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    reference = Text(number(metric, verdict["reference"]["value"]), style="quiet")
    made.add_row(Text("torch fp32", style="quiet"), "", reference, "", "", "", "", "", Text("reference", style="quiet"))
    first = next(iter(verdict["accepted"]), None)
    for each in verdict["variants"]:
        one = each["speed"]["one"]
        made.add_row(
            Text(clean(each["name"]), style="bold" if each["name"] == first else ""),
            f"{each['bytes'] / 1e6:.1f}",
            number(metric, each["score"]["value"]),
            _change(each["difference"]),
            f"{100 * each['agreement']['value']:.1f}",
            f"{_ms(one['p50_ms'])}/{_ms(one['p95_ms'])}",
            f"{each['speed']['rows_a_second']:.0f}",
            f"{1 / each['times_as_long']:.2f}x",
            _told(each, first),
        )
    return made


def _sure(threshold: Mapping[str, Any]) -> str:
    """What a threshold promises, and on how many rows that rests."""
    found, answered = threshold["precision"], f'below {threshold["value"]:.3f} the answer is "don\'t know"'
    if not found:
        return f"{answered}: no row is sure enough for {threshold['wanted']:g}"
    rests = f"right in {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}] of {found['n']} rows"
    return f"{answered}: {100 * threshold['coverage']:.0f} % are answered, {rests}"


def _told(variant: Mapping[str, Any], first: str | None) -> Text:
    if variant["refused"]:
        return Text("✗ refused", "warn")
    return Text("✓ used" if variant["name"] == first else "✓", "good")


def _change(difference: Mapping[str, float]) -> Text:
    """In points, with its paired interval."""
    value, low, high = (100 * difference[side] for side in ("value", "low", "high"))
    digits = 1 if max(-low, high) < 10 else 0
    return Text.assemble(f"{value:+.1f}", (f" [{low:+.{digits}f}, {high:+.{digits}f}]", "quiet"))


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def benchmark(found: Mapping[str, Any]) -> RenderableType:
    """One line a candidate: milliseconds, their spread over the rounds, gain over eager torch, share of the peak."""
    made = _table()
    made.add_column("candidate", no_wrap=True)
    for size in ("1", "16"):
        made.add_column(f"ms, batch {size}", justify="right", no_wrap=True)
        made.add_column("spread", no_wrap=True, style="quiet")
        made.add_column("gain", justify="right", no_wrap=True)
        made.add_column("peak", justify="right", no_wrap=True)
    for line in found["lines"]:
        cells: list[str] = []
        for size in line["times"]:
            timed = line["times"][size]
            spread = f"{min(timed['rounds_ms']):.3g}–{max(timed['rounds_ms']):.3g}"
            cells += [f"{timed['p50_ms']:.3g}", spread, f"{line['gain'][size]:.2f}x"]
            share = line["share_of_peak"].get(size)
            cells.append("" if share is None else f"{100 * share:.0f} %")
        made.add_row(Text(line["name"]), *cells)
    host = found["host"]
    peaks = ", ".join(
        f"{name.removeprefix('peak ')} {max(sizes.values()):.0f}" for name, sizes in found["peaks"].items()
    )
    told = f"{clean(host['processor'])}, {host['threads']} threads; peak of matrix products here, in G/s: {peaks}"
    return Group(made, Text(told, style="quiet"))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, header_style="quiet", pad_edge=False, show_edge=False, collapse_padding=True)
