"""The README of an export: what it is, what was measured, and how to use it."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.core.markdown import plain
from headstart.data.reading.guess import new_rows
from headstart.deploy.verdict import BATCHES, Judged
from headstart.measure.evaluation import Evaluation

SHOWN = 20  # classes that are named


def readme(judged: Sequence[Judged], order: Sequence[str], reference: Evaluation, metric: str, modality: str) -> str:
    """Markdown. Names of classes are the user's: what could be markup in them is left out.

    Args:
        reference: what torch answered on the rows that judged.
    """
    classes = reference.classes
    known = ", ".join(plain(name) for name in classes[:SHOWN]) + (" …" if len(classes) > SHOWN else "")
    several = []
    if reference.several:
        least = f"{reference.threshold:g}"
        several = [f"A row may have several of them, or none: those with a probability of {least} or more.", ""]
    lines = [
        "# Exported classifier",
        "",
        f"Classes ({len(classes)}): {known}",
        "",
        *several,
        "```",
        f"headstart predict path/to/this/folder {new_rows(modality)}     # the base install is enough: no torch",
        "```",
        "",
        f"| variant | MB | {metric} (n = {judged[0].score.n}) | same decision | ms alone | rows/s of {BATCHES[1]} | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in judged:
        told = each.refused or ("taken first" if each.name == order[0] else "accepted")
        told += "" if each.batches else "; rows by themselves"
        lines.append(
            f"| {each.name} | {each.bytes / 1e6:.1f} | {each.score.value:.4f} | {each.agreement.value:.4f} "
            f"| {each.speed.one.p50_ms:.2f} | {each.speed.rows_a_second:.0f} | {told} |"
        )
    lines += ["", "`verdict.json` holds the intervals and reasons; `golden.npz` rows with torch's answers.", ""]
    return "\n".join(lines)
