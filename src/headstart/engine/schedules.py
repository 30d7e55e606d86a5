"""Learning-rate schedules as pure functions: the factor of a step, in (0, 1], multiplied onto every group's base rate.

A pure function has no state to save, so a resumed run is on the right rate by construction. Steps count optimizer
updates from 0 to total - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from headstart.core.errors import ConfigError, TrainingError
from headstart.core.registry import suggest


@dataclass(frozen=True)
class Schedule:
    """A schedule with its numbers.

    ``warmup`` is a share of the updates (BERT: 0.1) and ``floor`` the factor at which cosine and linear end. The rest
    belongs to one_cycle, which warms up by itself: ``pct_start`` of the updates rise from 1/``div`` to 1, the others
    fall to 1/(``div`` * ``div_final``); with ``momentum`` (high, low) SGD's momentum, or Adam's first beta, moves
    against the rate.
    """

    name: str = "cosine"
    warmup: float = 0.0
    floor: float = 0.0
    pct_start: float = 0.3
    div: float = 25.0
    div_final: float = 1e4
    momentum: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ConfigError(
                f"unknown schedule '{self.name}'{suggest(self.name, SCHEDULES)}",
                where="schedule",
                remedy=f"known: {', '.join(sorted(SCHEDULES))}",
            )
        if not (0 <= self.warmup <= 1 and 0 <= self.floor <= 1 and 0 < self.pct_start <= 1):
            raise ConfigError("warmup and floor must lie in [0, 1], pct_start in (0, 1]", where="schedule")
        if self.momentum is not None and self.name != "one_cycle":
            raise ConfigError("only one_cycle moves the momentum", where="schedule.momentum")

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

    def momentum_at(self, step: int, total: int) -> float | None:
        """Momentum (or first beta) at this update, None where it stays as it is."""
        if self.momentum is None:
            return None
        high, low = self.momentum
        return _two_phases(step, total, self.pct_start, high, low, high)


def one_cycle(schedule: Schedule, step: int, total: int) -> float:
    """Smith 2018 (arXiv 1803.09820), as torch's OneCycleLR computes it (cosine, two phases)."""
    start = 1.0 / schedule.div
    return _two_phases(step, total, schedule.pct_start, start, 1.0, start / schedule.div_final)


def cosine(schedule: Schedule, step: int, total: int) -> float:
    """Warm-up, then half a cosine to ``floor`` (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    share = _after_warmup(schedule, step, total)
    if share < 0:
        return 1.0 + share
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * share))


def linear(schedule: Schedule, step: int, total: int) -> float:
    """Warm-up, then a straight line to ``floor`` (BERT, arXiv 1810.04805)."""
    share = _after_warmup(schedule, step, total)
    return 1.0 + share if share < 0 else 1 - (1 - schedule.floor) * share


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
    """Set every group's rate for this update (base rate times factor), and momentum where it cycles.

    Returns:
        The factor.
    """
    factor = schedule.factor(step, total)
    momentum = schedule.momentum_at(step, total)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
        if momentum is not None:
            _set_momentum(group, momentum)
    return factor


def _set_momentum(group: dict[str, Any], momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


def _after_warmup(schedule: Schedule, step: int, total: int) -> float:
    """Share of the way from the end of the warm-up to the end, or (negative) how far below the full rate.

    The warm-up counts from 1/(w + 1), not from 0 as in transformers: an update at rate 0 learns nothing.
    """
    warmup = schedule.warmup_steps(total)
    if step < warmup:
        return (step + 1) / (warmup + 1) - 1.0
    return (step - warmup) / (total - warmup)


def _two_phases(step: int, total: int, pct_start: float, start: float, middle: float, end: float) -> float:
    """Cosine from ``start`` to ``middle`` and on to ``end``, the turn at update pct_start * total - 1."""
    turn, last = pct_start * total - 1, total - 1
    if step <= turn:
        share = step / turn if turn > 0 else 1.0
        return _cosine_between(start, middle, share)
    return _cosine_between(middle, end, (step - turn) / (last - turn))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1 + math.cos(math.pi * share))
