"""``plan: auto``: which plan for how many rows, how near to what the backbone knows.

The table is the one that users know from transfer-learning courses (CS231n, "when and how to fine-tune"): few and
similar rows ask for a probe, few and different ones for thawed later layers, many rows for all layers.
"""

from __future__ import annotations

from typing import Literal

SMALL, LARGE = 1_000, 10_000
Level = Literal["near", "far", "unknown"]


def choose(rows: int, level: Level) -> tuple[str, str]:
    """The plan's name and the reason, for ``rows`` training rows at a measured ``level`` of similarity."""
    if rows < SMALL:
        if level == "near":
            return "probe", f"{rows} rows are few (below {SMALL}) and like the pretraining data: the head is enough"
        if level == "far":
            return "gradual", f"{rows} rows are few, but unlike the pretraining data: later layers must adapt"
        return "gradual", f"{rows} rows are few and their likeness is unknown: each stage has to prove itself"
    if rows < LARGE:
        return "gradual", f"{rows} rows ({SMALL} to {LARGE}): thaw in measured stages"
    return "full", f"{rows} rows ({LARGE} and more) can train all layers at once"
