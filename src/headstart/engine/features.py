"""One pass over the rows of a split: fill the frontier cache, or give logits.

Shapes: N rows, B rows of a batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from headstart.core import interruption
from headstart.core.events import Event, Progress
from headstart.data.loaders import Batch
from headstart.data.store import MOST_THREADS, in_order
from headstart.engine import memory
from headstart.engine.cache import FrontierCache, Tree, chunks
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples, on_device
from headstart.measure.evaluation import Evaluation
from headstart.models.model import Model
from headstart.stages.learner import POOLED, logits_from

Emit = Callable[[Event], None]


def fill(
    cache: FrontierCache,
    view: int,
    examples: Examples,
    compute: Callable[[torch.Tensor], Tree],
    runtime: Runtime,
    *,
    batch_size: int,
    emit: Emit,
    augment: Any = None,
    key: tuple[int, ...] = (),
    task: str = "features",
    side_by_side: bool = False,
) -> None:
    """Run ``compute`` over all rows of one view and keep what it gives; ranks share the work.

    Args:
        side_by_side: several batches at once on a CPU; ``compute`` must bear several threads.
    """
    order = runtime.share_of(examples.by_length(np.arange(len(examples))))

    def attempt(size: int) -> None:
        done = 0
        batches = examples.batches(order, batch_size=size, augment=augment, key=key)
        for batch, value in _computed(batches, compute, runtime, side_by_side):
            cache.put(view, batch.rows, value)
            done += len(batch.rows)
            emit(Progress(task, done, len(order), "rows", examples.split))

    memory.halving(attempt, batch_size, on_halved=lambda size: emit(memory.told(size)), where=task)
    cache.synchronise(view, order, runtime)


def _computed(
    batches: Iterator[Batch], compute: Callable[[torch.Tensor], Tree], runtime: Runtime, side_by_side: bool
) -> Iterator[tuple[Batch, Tree]]:
    """Each batch with what ``compute`` gives for it, in order.

    Side by side on a CPU: a thread a batch, instead of all threads on every layer. MobileNetV2 has 150 small layers,
    and at the end of each the threads would wait for the slowest, the more so beside other work.
    """

    def one(batch: Batch) -> tuple[Batch, Tree]:
        with torch.no_grad(), runtime.autocast():
            return batch, compute(on_device(batch.inputs, runtime.device))

    threads = torch.get_num_threads()
    workers = min(MOST_THREADS, threads) if side_by_side and runtime.device.type == "cpu" else 1
    if workers == 1:
        yield from map(one, batches)
        return
    torch.set_num_threads(threads // workers)  # what new threads begin with
    try:
        yield from in_order(one, batches, workers)
    finally:
        torch.set_num_threads(threads)


def evaluate(
    model: Model,
    examples: Examples,
    runtime: Runtime,
    *,
    batch_size: int,
    cache: FrontierCache | None = None,
    emit: Emit | None = None,
) -> Evaluation:
    """What the model answers on every row, from the inputs or from a frontier cache; placed by row index."""
    order = runtime.share_of(examples.by_length(np.arange(len(examples))))
    local = torch.empty(len(order), len(model.classes))
    say = emit or (lambda event: None)
    frontier = cache.frontier if cache else 0
    model.eval()

    def answers(size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        if cache is None:
            batches = examples.batches(order, batch_size=size)
            yield from ((batch.rows, logits) for batch, logits in _computed(batches, model, runtime, side_by_side=True))
            return
        for rows in chunks(order, size):
            with torch.no_grad(), runtime.autocast():
                yield rows, logits_from(model, cache.take(0, rows, runtime.device), len(rows), frontier)

    def attempt(size: int) -> None:
        done = 0
        for rows, logits in answers(size):
            local[done : done + len(rows)] = logits.float().cpu()
            done += len(rows)
            say(Progress("evaluate", done, len(order), "rows", examples.split))
            if runtime.world == 1:  # several ranks stop together, after an update
                interruption.check()

    first = max(batch_size, 4096) if frontier == POOLED else batch_size
    memory.halving(
        attempt, first, on_halved=lambda size: say(memory.told(size)), where=f"evaluation on {examples.split}"
    )
    logits = runtime.gather(order, local, len(examples))
    rows = np.arange(len(examples))
    found = (logits.numpy(), examples.rows.labels, tuple(model.classes))
    return Evaluation(examples.split, rows, *found, threshold=model.threshold)
