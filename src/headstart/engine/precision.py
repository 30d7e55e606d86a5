"""Precision and memory layout, chosen by measurement on this machine.

bf16 is no gift. A CPU without instructions for it is slower in bf16 than in fp32: a training step by 1.2 to 2.4 times
where it has AVX-512, by up to a hundred times where it does not. A product of two matrices tells so in milliseconds
(with AVX-512 it takes 3.5 times as long). Where that does not rule it out, one training step is timed in each
candidate, and a richer one is taken only where it is ``WORTH`` times faster than the simpler one it replaces.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from headstart.core.errors import ConfigError
from headstart.core.events import Decision
from headstart.models import threads

WORTH = 1.1
ROUNDS = 3
DECISIVE = 1.5  # times faster than all others: more rounds would not change the choice
CALM = 1.2  # times as long as the best round, that the second best may take on a machine with nothing else to do
PATIENCE = 3  # times as many rounds, at most, where it has
HOPELESS = 2  # times as long as in fp32, that a product of matrices takes where no step is worth to be timed
SIDE = 256  # of these matrices
PRODUCTS = 0.02  # seconds of products
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True)
class Precision:
    """``name`` is fp32 or bf16 (autocast; weights stay fp32); ``channels_last`` the layout of pictures and kernels."""

    name: str = "fp32"
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.name not in ("fp32", "bf16"):
            raise ConfigError(f"unknown precision '{self.name}'", where="precision", remedy="auto, fp32 or bf16")

    def __str__(self) -> str:
        return f"{self.name}, channels last" if self.channels_last else self.name

    def autocast(self, device: torch.device | str) -> contextlib.AbstractContextManager[Any]:
        """What the forward pass runs in."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


CANDIDATES = (Precision(), Precision(channels_last=True), Precision("bf16"), Precision("bf16", channels_last=True))


def product_seconds(dtype: torch.dtype, device: torch.device | str = "cpu", side: int = SIDE) -> float:
    """The quickest product of two square matrices among those of ``PRODUCTS`` seconds, after one to warm up.

    By one thread: two would wait for each other at the end of each, and beside other work that is all they do.
    """
    left = torch.ones(side, side, dtype=dtype, device=device)
    multiply = torch.mm if dtype.is_floating_point else torch._int_mm
    taken: list[float] = []
    with threads.set_to(1):
        while len(taken) < 2 or sum(taken[1:]) < PRODUCTS:
            begun = time.perf_counter()
            multiply(left, left)[0, 0].item()  # waits for the device
            taken.append(time.perf_counter() - begun)
    return min(taken[1:])


def hopeless(device: torch.device | str, names: Sequence[str] = ("bf16",)) -> dict[str, str]:
    """Which of these precisions torch has no quick instructions for on this device, and what tells so.

    Where a first product tells so, a second one has to: a moment of other work must not rule one out.
    """
    found = {}
    for name in names:
        try:
            slower = _times_as_long(name, device)
            slower = min(slower, _times_as_long(name, device)) if slower >= HOPELESS else slower
        except (RuntimeError, TypeError):  # a type that the device does not know: a step in it says so
            continue
        if slower >= HOPELESS:
            found[name] = f"a matrix product in {name} takes {slower:.0f} times as long as in fp32 here"
    return found


def _times_as_long(name: str, device: torch.device | str) -> float:
    exact = product_seconds(DTYPES["fp32"], device)
    return product_seconds(DTYPES[name], device) / exact


def choose(
    step: Callable[[Precision], float],
    *,
    wanted: str = "auto",
    candidates: Sequence[Precision] = CANDIDATES,
    without: Mapping[str, str] | None = None,
    what: str = "a training step",
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Precision, Decision]:
    """Time ``step`` (one training step, or forward; returns its loss) and choose; the candidates come simplest first.

    Each runs once to warm up and then ``rounds`` times, in turns, so that a busy machine slows all alike; the fastest
    of its runs counts. A round after which one is ``DECISIVE`` times faster than all others is the last, unless that is
    the simplest: other work may have held the richer one up. Where the best two rounds of a candidate differ, more are
    run. A candidate that fails, or whose loss is not finite, is out. ``step`` has to wait for its device (reading the
    loss as a float does) and to leave nothing changed (see ``finder.remember``).

    Args:
        wanted: "auto", or "fp32" or "bf16": only candidates of that name are timed then.
        without: names that are left out where ``wanted`` does not ask for them, and why (see ``hopeless``).
        what: a step is, in the reason.

    Returns:
        The choice, and the decision to show.

    Raises:
        ConfigError: ``wanted`` is unknown, or does not run here.
    """
    ruled = without or {}
    considered = [each for each in candidates if each.name == wanted or (wanted == "auto" and each.name not in ruled)]
    if not considered:
        raise ConfigError(f"unknown precision '{wanted}'", where="precision", remedy="auto, fp32 or bf16")
    timed: dict[Precision, list[float]] = {}
    failed = {str(each): ruled[each.name] for each in candidates if wanted == "auto" and each.name in ruled}
    for candidate in considered:
        try:
            loss = step(candidate)
        except (RuntimeError, NotImplementedError) as error:
            failed[str(candidate)] = (str(error).splitlines() or [type(error).__name__])[0]
            continue
        if math.isfinite(loss):
            timed[candidate] = []
        else:
            failed[str(candidate)] = f"loss {loss}"
    if not timed:
        tries = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise ConfigError(f"precision '{wanted}' does not run here ({tries})", where="precision")
    for done in range(PATIENCE * rounds if len(timed) > 1 else 0):
        for candidate, taken in timed.items():
            begun = clock()
            step(candidate)
            taken.append(clock() - begun)
        if _is_settled(list(timed.values()), enough=done + 1 >= rounds):
            break
    seconds = {candidate: min(taken, default=math.inf) for candidate, taken in timed.items()}
    choice = _simplest_worth(seconds)
    asked, told = ([], ruled.values()) if wanted == "auto" else ([f"{wanted} was asked for"], ())
    reasons = [*asked, *_gain(choice, seconds, what), *told] or [
        "; ".join(["the only one that runs here", *failed.values()])
    ]
    return choice, Decision("precision", str(choice), "; ".join(reasons), _facts(choice, seconds, failed))


def _is_settled(timed: list[list[float]], *, enough: bool) -> bool:
    seconds = [min(taken) for taken in timed]
    fastest, *others = sorted(seconds)
    if fastest < seconds[0] and all(DECISIVE * fastest <= other for other in others):
        return True
    return enough and all(sorted(taken)[min(1, len(taken) - 1)] <= CALM * min(taken) for taken in timed)


def _simplest_worth(seconds: dict[Precision, float]) -> Precision:
    choice, *richer = seconds
    for candidate in richer:
        if seconds[candidate] * WORTH <= seconds[choice]:
            choice = candidate
    return choice


def _gain(choice: Precision, seconds: dict[Precision, float], what: str) -> list[str]:
    """What the clock said, where there was something to compare."""
    simplest = next(iter(seconds))
    if len(seconds) == 1:
        return []
    if choice != simplest:
        return [f"{what} is {seconds[simplest] / seconds[choice]:.2f} times faster here than in {simplest}"]
    best = max(seconds[simplest] / value for candidate, value in seconds.items() if candidate != simplest)
    return [f"nothing else is {WORTH:g} times faster here (the best of the others: {best:.2f} times)"]


def _facts(choice: Precision, seconds: dict[Precision, float], failed: dict[str, str]) -> dict[str, Any]:
    timed = {str(candidate): value for candidate, value in seconds.items() if math.isfinite(value)}
    return {"name": choice.name, "channels_last": choice.channels_last, "seconds": timed, "failed": failed}
