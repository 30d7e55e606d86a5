"""Learning-rate finder: a sweep of rising rates on keyed batches, after which nothing has happened.

Smith 2017 (arXiv 1506.01186); the sweep and the "valley" as in fastai's ``lr_find``, but smoothed by a centred mean: a
running one lags ten steps, which is a factor of six in the rate. One sweep is a noisy witness, so it is repeated on
other batches, and what comes out is a rate with a safe range, not one magic number.

Shapes: S steps of a sweep.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from headstart.core.errors import ConfigError, TrainingError
from headstart.engine import memory

if TYPE_CHECKING:
    from headstart.engine.loop import Loop

SMOOTHING = 0.9  # of the running mean that notices divergence while the sweep runs
DIVERGED = 4.0  # stop when the running mean is this many times its best
BEYOND = 1_000_000  # the first epoch whose rows the sweeps take: no training comes this far
HALF_WINDOW = 4  # steps on either side in the centred mean that suggestions look at


@dataclass(frozen=True)
class Sweep:
    """One sweep, as far as it went: rates, and the loss of each step before it was taken (S,)."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool

    def smoothed(self) -> np.ndarray:
        """Centred mean of the losses (S,); the explosion at the end is cut off, so that it cannot spread backwards."""
        losses = np.array(self.losses)
        losses = np.minimum(losses, 2 * losses[: HALF_WINDOW + 1].max(initial=-np.inf))
        windows = (losses[max(0, i - HALF_WINDOW) : i + HALF_WINDOW + 1] for i in range(len(losses)))
        return np.array([window.mean() for window in windows])


@dataclass(frozen=True)
class Suggestion:
    """What the sweeps say.

    ``low`` and ``high`` bound the safe range: between them the loss makes its fall, from a tenth to nine tenths of it,
    in every sweep. ``lr`` is its geometric middle. For comparison, ``valley`` is fastai's suggestion on these curves
    (the cautious one) and ``steep`` the rate at which the loss falls fastest, each the sweeps' median. ``curve`` holds
    (rate, loss), the median of the smoothed sweeps.
    """

    lr: float
    low: float
    high: float
    valley: float
    steep: float
    curve: tuple[tuple[float, float], ...]
    sweeps: tuple[Sweep, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``decisions.json``."""
        return {
            "lr": self.lr,
            "low": self.low,
            "high": self.high,
            "valley": self.valley,
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
    """Sweep ``repeats`` times from rate ``start`` to ``end`` in ``steps`` equal factors, each time from the same state,
    which is there again at the end.

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
    low, high = max(lows), min(highs)
    low, high = min(low, high), max(low, high)
    return Suggestion(
        lr=math.sqrt(low * high),
        low=low,
        high=high,
        valley=float(np.median(valleys)),
        steep=float(np.median(steeps)),
        curve=_median_curve(sweeps),
        sweeps=tuple(sweeps),
    )


def sweep(loop: Loop, **span: Any) -> Suggestion:
    """Find the rate of a loop that has not begun: ``lr`` of its stage, the other rates in proportion (see ``find``).

    Afterwards the learner is as it was, bit for bit; throw the loop away.
    """
    stream, reference = loop.job.stream, loop.job.settings.lr

    def step(rate: float, batch: int) -> float:
        epoch, start = divmod(batch, stream.per_epoch)
        update = next(iter(stream.epoch(BEYOND + epoch, start)))
        return loop.trial(update, rate / reference)

    return find(step, lambda: remember(loop.job.learner, loop.optimizer), **span)


def valley(losses: np.ndarray) -> int:
    """Index in the longest falling subsequence of the losses (S,), half-way through it: fastai's ``valley``.

    The stretch is taken to begin as many steps before the subsequence's end as it is long; the point chosen lies in
    the middle of its three thirds.
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
    owned: list[torch.Tensor] = [*module.parameters(), *module.buffers()]
    tensors = [(value, value.detach().clone()) for value in owned]
    gradients = [(p, None if p.grad is None else p.grad.detach().clone()) for p in module.parameters()]
    modes = [(part, part.training) for part in module.modules()]
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    states = {p: {key: _copied(value) for key, value in state.items()} for p, state in optimizer.state.items()}
    chance = memory.rng_state(), np.random.get_state(), random.getstate()

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
        for owner, state in states.items():
            optimizer.state[owner] = {key: _copied(value) for key, value in state.items()}
        memory.set_rng_state(chance[0])
        np.random.set_state(chance[1])
        random.setstate(chance[2])

    return restore


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _sweep(step: Callable[[float, int], float], start: float, end: float, steps: int, first: int) -> Sweep:
    rates: list[float] = []
    losses: list[float] = []
    running, best = 0.0, math.inf
    for index in range(steps):
        rate = start * (end / start) ** (index / (steps - 1))
        loss = float(step(rate, first + index))
        running = SMOOTHING * running + (1 - SMOOTHING) * loss
        mean = running / (1 - SMOOTHING ** (index + 1))
        if not math.isfinite(loss) or mean > DIVERGED * best:
            return Sweep(tuple(rates), tuple(losses), diverged=True)
        best = min(best, mean)
        rates.append(rate)
        losses.append(loss)
    return Sweep(tuple(rates), tuple(losses), diverged=False)


def _suggest(sweep: Sweep) -> tuple[float, float, float, float] | None:
    """Valley, steepest, low and high of one sweep; None where the loss does not fall by more than its noise."""
    losses, rates = sweep.smoothed(), np.array(sweep.rates)
    if len(losses) < 10:
        return None
    early = np.array(sweep.losses[: len(losses) // 5])
    start, lowest = float(early.mean()), int(losses.argmin())
    fall, noise = start - float(losses[lowest]), float(np.diff(early).std()) / math.sqrt(2)
    if fall <= max(2 * noise, 1e-3 * abs(start)):
        return None
    low, high = (int(np.flatnonzero(losses <= start - share * fall)[0]) for share in (0.1, 0.9))
    steepest = int(np.gradient(losses[: lowest + 1], np.log(rates[: lowest + 1])).argmin()) if lowest else 0
    return float(rates[valley(losses)]), float(rates[steepest]), float(rates[low]), float(rates[high])


def _median_curve(sweeps: list[Sweep]) -> tuple[tuple[float, float], ...]:
    shortest = min((sweep.rates for sweep in sweeps), key=len)
    losses = np.median([sweep.smoothed()[: len(shortest)] for sweep in sweeps], axis=0)
    return tuple((rate, float(loss)) for rate, loss in zip(shortest, losses, strict=True))
