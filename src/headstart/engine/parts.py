"""A long pass that is interrupted is not begun anew: what it has computed is kept now and then, and at its end.

Shapes: N rows in the order of the pass, k of them done, D features.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from headstart.engine.cache import FeatureStore, FrontierCache

SECONDS = 30.0  # between two times, at least
SHARE = 0.02  # of the time of a pass that keeping may take


class Parts:
    """The first k rows of a pass that fills ``into``; those of an earlier one are in it from the beginning.

    Args:
        key: of the features of the whole pass, which tells all that they depend on.
        order: (N,) rows.
    """

    def __init__(
        self,
        kept: FeatureStore,
        key: str,
        order: np.ndarray,
        into: FrontierCache,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._key, self._order, self._into, self._clock = kept, f"{key}-begun", order, into, clock
        found = kept.read(self._key)
        self.done = self._written = 0 if found is None or len(found) > len(order) else len(found)
        if found is not None and self.done:
            into.put(0, order[: self.done], found)
        self._next = clock() + SECONDS

    def note(self, done: int) -> None:
        """So many rows are done; they are kept when it is time."""
        self.done = done
        if (begun := self._clock()) >= self._next:
            self.keep()
            ended = self._clock()
            self._next = ended + max(SECONDS, (ended - begun) / SHARE)

    def keep(self) -> None:
        """Write what is done, where it is more than is written."""
        if self._written < self.done:
            self._store.write(self._key, self._into.take(0, self._order[: self.done]))
            self._written = self.done

    def drop(self) -> None:
        """The whole pass is kept."""
        self._store.remove(self._key)
