"""Pairs of rows, of one class and of two: the updates of contrastive fine-tuning.

Shapes: N rows of the split, P pairs, T the rest of an input's shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from headstart.core import keyed
from headstart.data import loaders
from headstart.engine import memory, streams
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples, Update


def draw(labels: np.ndarray, pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Every row with ``pairs // 2`` rows of its class and as many of others: rows (P, 2), and whether alike (P,).

    A row that is alone in its class is paired with itself; where there is one class only, nothing is unlike.
    """
    rows = np.arange(len(labels))
    found = []
    for row in rows:
        same, other = rows[(labels == labels[row]) & (rows != row)], rows[labels != labels[row]]
        mates = rng.choice(same if len(same) else rows[row : row + 1], pairs // 2)
        strangers = rng.choice(other, pairs // 2) if len(other) else other
        found += [(row, mate, 1.0) for mate in mates] + [(row, stranger, 0.0) for stranger in strangers]
    drawn = np.array(found)[rng.permutation(len(found))]
    return drawn[:, :2].astype(np.int64), drawn[:, 2].astype(np.float32)


class PairStream:
    """Other pairs every epoch; an update's inputs are (P, 2, T…), its targets 1 for rows of one class and 0 else.

    Raises:
        ConfigError: the ranks cannot share a batch of pairs.
    """

    frontier = 0

    def __init__(
        self,
        runtime: Runtime,
        examples: Examples,
        *,
        pairs: int,
        batch_size: int,
        key: tuple[int, int],
        augment: Any = None,
    ) -> None:
        self.runtime, self.examples, self.augment = runtime, examples, augment
        self.pairs, self.batch_size, self.key = pairs, batch_size, key
        cuts = memory.split(len(self._drawn(0)[0]), batch_size)
        streams.insist_shared([cut.stop - cut.start for cut in cuts], runtime, "pair")
        self.per_epoch = len(cuts)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Update]:
        rows, alike = self._drawn(epoch)
        cuts = memory.split(len(rows), self.batch_size)
        shares = [self.runtime.share_of(np.arange(cut.start, cut.stop)) for cut in cuts]
        places = np.concatenate(shares)
        loader = self.examples.batches(
            rows[places].reshape(-1),
            batch_size=[2 * len(share) for share in shares],
            augment=self.augment,
            key=(*self.key, epoch),
            start=start,
            # counted before sharing out, as in ``LiveStream``
            times=loaders.occurrences(rows.reshape(-1)).reshape(-1, 2)[places].reshape(-1),
        )
        for batch, share, cut in zip(loader, shares[start:], cuts[start:], strict=True):
            inputs = torch.from_numpy(batch.inputs).to(self.runtime.device).unflatten(0, (-1, 2))
            targets = torch.from_numpy(alike[share]).to(self.runtime.device)
            yield Update(batch.rows[::2], inputs, targets, 0, cut.stop - cut.start)

    def _drawn(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        return draw(self.examples.rows.labels, self.pairs, keyed.generator(*self.key, "pairs", epoch))
