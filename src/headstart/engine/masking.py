"""Texts with hidden words: the updates of continued pretraining, and what restoring them costs.

Shapes: B rows, T tokens, N rows of a split.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from headstart.core import keyed
from headstart.data.loaders import Batch
from headstart.data.texts.masking import IGNORED, Masking
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples, Order, Update, insist_shared, on_device
from headstart.measure.restoring import Restoring
from headstart.stages.restoring import Restorer

JUDGED = "judged"  # the key of what is hidden of validation texts: the same every time


class MaskedStream:
    """Every epoch hides other words; ``total`` of an update counts the words that are to be restored in it.

    Raises:
        ConfigError: the ranks cannot share a batch of texts.
    """

    frontier = 0

    def __init__(self, runtime: Runtime, order: Order, examples: Examples, masking: Masking) -> None:
        self.runtime, self.order, self.examples, self.masking = runtime, order, examples, masking
        insist_shared(order.sizes, runtime, "text")
        self.per_epoch = len(order.sizes)
        self.counts = np.array([masking.count(examples.store[row][0]) for row in range(len(examples))])

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Update]:
        batches = self.order.batches(epoch)
        shares = [self.runtime.share_of(batch) for batch in batches]
        sizes = [len(share) for share in shares]
        loader = self.examples.batches(np.concatenate(shares), batch_size=sizes, start=start)
        for batch, whole in zip(loader, batches[start:], strict=True):
            hidden, targets = _hidden(batch, self.masking, (self.order.seed, self.order.stage, epoch))
            inputs = on_device(hidden, self.runtime.device)
            total = max(1, int(self.counts[whole].sum()))
            yield Update(batch.rows, inputs, torch.from_numpy(targets).to(self.runtime.device), 0, total)


def restoring(learner: Restorer, examples: Examples, masking: Masking, runtime: Runtime, batch_size: int) -> Restoring:
    """What restoring the words of these texts costs now; texts of special tokens alone are left out."""
    learner.eval()
    order = runtime.share_of(examples.by_length(np.arange(len(examples))))
    sums, counts = torch.zeros(len(order)), torch.zeros(len(order))
    done = 0
    for batch in examples.batches(order, batch_size=batch_size):
        hidden, targets = _hidden(batch, masking, (JUDGED,))
        wanted = torch.from_numpy(targets).to(runtime.device)
        with torch.no_grad():
            found, rows = learner.losses(on_device(hidden, runtime.device), wanted)
        places = done + rows.cpu()
        sums.index_add_(0, places, found.float().cpu())
        counts.index_add_(0, places, torch.ones(len(places)))
        done += len(batch.rows)
    told = runtime.gather(order, torch.stack([sums, counts], dim=1), len(examples)).double().numpy()
    some = told[:, 1] > 0
    return Restoring(told[some, 0] / told[some, 1])


def _hidden(batch: Batch, masking: Masking, key: tuple[str | int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, 2, T) with hidden words, and targets (B, T); what is hidden of a row depends on key and row alone."""
    inputs = batch.inputs.copy()
    targets = np.full((len(inputs), inputs.shape[2]), IGNORED, np.int64)
    for place, row in enumerate(batch.rows):
        length = int((inputs[place, 0] >= 0).sum())
        rng = keyed.generator("masked", *key, int(row))
        inputs[place, 0, :length], targets[place, :length] = masking.hide(inputs[place, 0, :length], rng)
    return inputs, targets
