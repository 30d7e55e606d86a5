"""Learning-rate finder: a sweep of rising rates on keyed batches, after which nothing has happened.

Smith 2017 (arXiv 1506.01186); the sweep, the smoothing and the "valley" as in fastai's ``lr_find``. One sweep is a
noisy witness, so it is repeated on other batches, and what comes out is a rate with a safe range, not one magic number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.core.errors import ConfigError, TrainingError
from headstart.engine import memory

SMOOTHING = 0.9  # of the running mean; fastai's 0.98 lags fifty steps behind, half a sweep
DIVERGED = 4.0  # stop when the smoothed loss is this many times the best one
EDGE = 5  # last points of a sweep, already diverging, that a suggestion never looks at


@dataclass(frozen=True)
class Sweep:
    """One sweep: rates and smoothed losses, as far as it went."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool


@dataclass(frozen=True)
class Suggestion:
    """What the sweeps say.

    ``lr`` is the median of the sweeps' valleys. ``low`` and ``high`` bound the safe range: every sweep was already
    learning at ``low`` and still getting better at ``high``. ``steep`` is the median rate of fastest fall.
    ``curve`` holds (rate, loss) pairs, the losses' median over the sweeps.
    """

    lr: float
    low: float
    high: float
    steep: float
    curve: tuple[tuple[float, float], ...]
    sweeps: tuple[Sweep, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``decisions.json``."""
        return {
            "lr": self.lr,
            "low": self.low,
            "high": self.high,
            "steep": self.steep,
            "curve": [list(point) for point in self.curve],
            "sweeps": len(self.sweeps),
        }


def find(
    step: Callable[[float, int], float],
    snapshot: Callable[[], Callable[[], None]],
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    repeats: int = 3,
) -> Suggestion:
    """Sweep ``repeats`` times from rate ``start`` to ``end`` in ``steps`` equal factors; bring everything back each time.

    Args:
        step: takes one optimizer step at a rate on the batch of a number (0, 1, 2 … over all sweeps; choose the
            rows by it, ``keyed.generator(seed, "finder", batch)``), and returns the loss before the step.
        snapshot: remembers the state and returns what restores it; ``remember`` below, for a module and an optimizer.

    Raises:
        ConfigError: the sweep is empty.
        TrainingError: the loss never falls, at any rate.
    """
    if not 0 < start < end or steps < 10 or repeats < 1:
        raise ConfigError("a sweep needs 0 < start < end, at least 10 steps and one repeat", where="finder")
    restore = snapshot()
    sweeps = []
    for repeat in range(repeats):
        try:
            sweeps.append(_sweep(step, start, end, steps, first=repeat * steps))
        finally:
            restore()
    found = [each for each in (_suggest(sweep) for sweep in sweeps) if each is not None]
    if len(found) * 2 <= len(sweeps):
        raise TrainingError(
            f"the loss falls in only {len(found)} of {len(sweeps)} sweeps, at no rate from {start:g} to {end:g}",
            where="learning-rate finder",
            remedy="is anything thawed, and do labels belong to inputs? `headstart audit` looks",
        )
    valleys, steeps, lows, highs = zip(*found, strict=True)
    lr = float(np.median(valleys))
    low, high = min(max(lows), lr), max(min(highs), lr)
    return Suggestion(lr, low, high, float(np.median(steeps)), _median_curve(sweeps), tuple(sweeps))


def valley(losses: np.ndarray) -> int:
    """Index in the longest falling subsequence of the losses (S,), half-way through it: fastai's ``valley``.

    The subsequence ends at its lowest point and ``length`` steps before that it is taken to begin; the point chosen lies
    in the middle of that stretch's three thirds.
    """
    lengths = np.ones(len(losses), dtype=np.int64)
    for index in range(1, len(losses)):
        before = lengths[:index][losses[:index] > losses[index]]
        lengths[index] = 1 + (before.max() if len(before) else 0)
    stop = int(lengths.argmax())
    begin = stop - int(lengths[stop])
    section = (stop - begin) / 3
    return max(0, begin + int(section) + int(section / 2))


def remember(module: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Remember weights, buffers, gradients, optimizer state, rates, modes and random state; the function returned
    brings them back bit for bit, as often as it is called, and in place (a wrapper or an EMA keeps its tensors).
    """
    tensors = [(value, value.detach().clone()) for value in (*module.parameters(), *module.buffers())]
    gradients = [(p, None if p.grad is None else p.grad.detach().clone()) for p in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    states = {p: {key: _copied(value) for key, value in state.items()} for p, state in optimizer.state.items()}
    random = memory.rng_state()
    own = np.random.get_state()

    def restore() -> None:
        with torch.no_grad():
            for value, saved in tensors:
                value.copy_(saved)
        for parameter, gradient in gradients:
            parameter.grad = None if gradient is None else gradient.clone()
        for part, training in modes:
            part.training = training
        for group, saved_group in zip(optimizer.param_groups, settings, strict=True):
            group.update(saved_group)
        optimizer.state.clear()
        for parameter, state in states.items():
            optimizer.state[parameter] = {key: _copied(value) for key, value in state.items()}
        memory.set_rng_state(random)
        np.random.set_state(own)

    return restore


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _sweep(step: Callable[[float, int], float], start: float, end: float, steps: int, first: int) -> Sweep:
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for index in range(steps):
        rate = start * (end / start) ** (index / (steps - 1))
        loss = float(step(rate, first + index))
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed = mean / (1 - SMOOTHING ** (index + 1))
        if not math.isfinite(smoothed) or (losses and smoothed > DIVERGED * min(losses)):
            return Sweep(tuple(rates), tuple(losses), diverged=True)
        rates.append(rate)
        losses.append(smoothed)
    return Sweep(tuple(rates), tuple(losses), diverged=False)


def _suggest(sweep: Sweep) -> tuple[float, float, float, float] | None:
    """Valley, steepest, low and high of one sweep; None where the loss does not fall."""
    skip = len(sweep.rates) // 10  # the running mean is still young there, as in fastai
    cut = slice(skip, len(sweep.rates) - EDGE if sweep.diverged else None)
    rates, losses = np.array(sweep.rates[cut]), np.array(sweep.losses[cut])
    if len(losses) < 5:
        return None
    lowest = int(losses.argmin())
    start = float(losses[: max(1, len(losses) // 5)].max())
    fall = start - float(losses[lowest])
    noise = float(np.abs(np.diff(losses[: max(2, len(losses) // 5)])).max())
    if lowest == 0 or fall <= max(3 * noise, 1e-3 * abs(start)):
        return None
    learning = int(np.flatnonzero(losses <= start - 0.1 * fall)[0])
    steepest = int(np.gradient(losses, np.log(rates)).argmin())
    return float(rates[valley(losses)]), float(rates[steepest]), float(rates[learning]), float(rates[lowest])


def _median_curve(sweeps: list[Sweep]) -> tuple[tuple[float, float], ...]:
    shortest = min(sweeps, key=lambda sweep: len(sweep.rates)).rates
    losses = np.median([sweep.losses[: len(shortest)] for sweep in sweeps], axis=0)
    return tuple((rate, float(loss)) for rate, loss in zip(shortest, losses, strict=True))
