"""How long calls take, measured so that a busy machine slows all candidates alike.

Every round calls every candidate in turn; each is warmed first. Shapes: R rounds, C calls a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

WARM = 3


@dataclass(frozen=True)
class Timed:
    """Milliseconds of one call: median and 95th percentile over all calls, and the median of every round."""

    p50_ms: float
    p95_ms: float
    rounds_ms: tuple[float, ...]
    calls: int

    def times_as_long(self, other: Timed) -> float:
        """The median over rounds of how much longer this took: what slowed a round slowed both."""
        return float(np.median(np.array(self.rounds_ms) / np.array(other.rounds_ms)))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def interleaved(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 7,
    seconds: float = 6.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timed]:
    """Time every candidate; all together take about ``seconds``, as long as each has three calls a round.

    The first call after another candidate's finds cold caches, and is made but not counted.
    """
    single = {}
    for name, call in candidates.items():
        taken = [_seconds(call, clock) for _ in range(WARM)]
        single[name] = max(min(taken), 1e-7)
    share = seconds / rounds / max(1, len(candidates))
    calls = {name: int(np.clip(share / single[name], 3, 200)) for name in candidates}
    found: dict[str, list[list[float]]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            call()
            found[name].append([_seconds(call, clock) for _ in range(calls[name])])
    return {name: _summary(1e3 * np.array(taken)) for name, taken in found.items()}


def _seconds(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    begun = clock()
    call()
    return clock() - begun


def _summary(taken: np.ndarray) -> Timed:
    """Of milliseconds (R, C)."""
    middles = np.median(taken, axis=1)
    p50, p95 = (float(value) for value in np.quantile(taken, [0.5, 0.95]))
    return Timed(p50, p95, tuple(middles.tolist()), taken.size)
