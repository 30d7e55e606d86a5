"""Learning-rate schedules as pure functions: the factor of a step, in (0, 1], multiplied onto every group's base rate.

A pure function has no state to save, so a resumed run is on the right rate by construction. Steps count optimizer
updates from 0 to total - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from headstart.core.errors import ConfigError, TrainingError
from headstart.core.registry import suggest

START, END = 1 / 25, 1 / 25 / 1e4  # of one_cycle, as shares of the full rate: torch's defaults


@dataclass(frozen=True)
class Schedule:
    """A schedule with its numbers.

    ``warmup`` is a share of the updates (BERT: 0.1). ``pct_start`` belongs to one_cycle, which warms up by itself: that
    share of the updates rises to the full rate, the others fall.
    """

    name: str = "cosine"
    warmup: float = 0.0
    pct_start: float = 0.3

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ConfigError(
                f"unknown schedule '{self.name}'{suggest(self.name, SCHEDULES)}",
                where="schedule",
                remedy=f"known: {', '.join(sorted(SCHEDULES))}",
            )
        if not (0 <= self.warmup <= 1 and 0 < self.pct_start <= 1):
            raise ConfigError("warmup must lie in [0, 1], pct_start in (0, 1]", where="schedule")

    def warmup_steps(self, total: int) -> int:
        """Updates spent warming up, of ``total``; at least one update is left for the rest."""
        return min(round(self.warmup * total), total - 1)

    def factor(self, step: int, total: int) -> float:
        """What every group's base rate is multiplied with at update ``step`` of ``total``.

        Raises:
            TrainingError: the step lies outside the schedule.
        """
        if not 0 <= step < total:
            raise TrainingError(f"update {step} lies outside a schedule of {total} updates", where="schedule")
        return SCHEDULES[self.name](self, step, total)


def one_cycle(schedule: Schedule, step: int, total: int) -> float:
    """Smith 2018 (arXiv 1803.09820), as torch's OneCycleLR computes it (cosine, two phases, momentum left alone)."""
    turn, last = schedule.pct_start * total - 1, total - 1
    if step <= turn:
        return _cosine_between(START, 1.0, step / turn if turn > 0 else 1.0)
    return _cosine_between(1.0, END, (step - turn) / (last - turn))


def cosine(schedule: Schedule, step: int, total: int) -> float:
    """Warm-up, then half a cosine to zero (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    share = _after_warmup(schedule, step, total)
    if share < 0:
        return 1.0 + share
    return 0.5 * (1 + math.cos(math.pi * share))


def linear(schedule: Schedule, step: int, total: int) -> float:
    """Warm-up, then a straight line to zero (BERT, arXiv 1810.04805)."""
    share = _after_warmup(schedule, step, total)
    return 1.0 + share if share < 0 else 1 - share


def constant(schedule: Schedule, step: int, total: int) -> float:
    """Warm-up, then the full rate."""
    return 1.0 + min(0.0, _after_warmup(schedule, step, total))


SCHEDULES: dict[str, Callable[[Schedule, int, int], float]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}


def apply(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int, total: int) -> float:
    """Set every group's rate for this update (base rate times factor).

    Returns:
        The factor.
    """
    factor = schedule.factor(step, total)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return factor


def _after_warmup(schedule: Schedule, step: int, total: int) -> float:
    """Share of the way from the end of the warm-up to the end, or (negative) how far below the full rate.

    The warm-up counts from 1/(w + 1), not from 0 as in transformers: an update at rate 0 learns nothing.
    """
    warmup = schedule.warmup_steps(total)
    if step < warmup:
        return (step + 1) / (warmup + 1) - 1.0
    return (step - warmup) / (total - warmup)


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1 + math.cos(math.pi * share))
