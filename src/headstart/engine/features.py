"""One pass over the rows of a split: fill the frontier cache, or give logits.

Shapes: N rows, B rows of a batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from headstart.core import interruption, workers
from headstart.core.events import Event, Progress
from headstart.core.lengths import evened
from headstart.data.loaders import Batch
from headstart.engine import memory
from headstart.engine.cache import FrontierCache, Tree
from headstart.engine.parts import Parts
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples, on_device
from headstart.measure.evaluation import Evaluation
from headstart.models import threads
from headstart.models.model import Model
from headstart.stages.learner import POOLED, logits_from

Emit = Callable[[Event], None]

BATCH = 32
# Rows on a CPU, where every thread has a batch of its own: as few as keep what it writes in the caches, and new memory,
# of which a pass in fp32 takes twice as much a row, from costing more than more rows save.
SIDE_BATCH = {"fp32": 4, "bf16": 8}
SIDE_PLACES = 1024  # of tokens, the same for texts: MiniLM in fp32 does 270 GFLOPS by so many, 240 by a quarter of them


def fill(
    caches: Sequence[FrontierCache],
    view: int,
    examples: Examples,
    compute: Callable[[torch.Tensor], Sequence[Tree]],
    runtime: Runtime,
    *,
    emit: Emit,
    augment: Any = None,
    key: tuple[int, ...] = (),
    task: str = "features",
    parts: Parts | None = None,
) -> None:
    """Run ``compute`` over all rows of one view and keep what it gives, a tree for every cache; ranks share the work.

    Several batches are computed at once on a CPU, so ``compute`` must bear several threads. With ``parts`` rows that an
    interrupted pass has computed are left out, the others in the same batches as ever, and they are kept on the way.
    """
    rows_in_order = order(examples, runtime)

    def attempt(size: int) -> None:
        rows, sizes = _whole(examples, rows_in_order, size)
        ends = np.cumsum([0, *sizes])
        whole = int(np.searchsorted(ends, parts.done if parts else 0, side="right")) - 1
        done = int(ends[whole])
        first = np.zeros(len(rows), np.int64)  # a row that comes again is no other view of it
        batches = examples.batches(rows, batch_size=sizes, augment=augment, key=key, times=first, start=whole)
        for batch, values in _computed(batches, compute, runtime):
            for cache, value in zip(caches, values, strict=True):
                cache.put(view, batch.rows, value)
            done = min(done + len(batch.rows), len(rows_in_order))
            if parts is not None:
                parts.note(done)
            emit(Progress(task, done, len(rows_in_order), "rows", examples.split))

    size = _first(examples, runtime, BATCH)
    try:
        memory.halving(attempt, size, on_halved=lambda size: emit(memory.told(size)), where=task)
    except BaseException:  # a signal, or an error of any kind
        if parts is not None:
            parts.keep()
        raise
    for cache in caches:
        cache.synchronise(view, rows_in_order, runtime)


def order(examples: Examples, runtime: Runtime) -> np.ndarray:
    """The rows of a pass in their order, or this rank's share of them: the longest first."""
    return runtime.share_of(examples.by_length(np.arange(len(examples))))


def _first(examples: Examples, runtime: Runtime, batch: int) -> int:
    """Rows to begin with in a batch, of texts those of the longest; ``batch`` where they do not pass side by side."""
    if runtime.device.type != "cpu":
        return batch
    if examples.most is None:
        return SIDE_BATCH[runtime.precision]
    return max(1, SIDE_PLACES // evened(int(examples.store.lengths.max()), examples.most))


def _whole(examples: Examples, order: np.ndarray, size: int) -> tuple[np.ndarray, list[int]]:
    """The rows once, and the last of them again until its batch is whole, with the sizes of the batches.

    Kernels are made for each size: it is ``size``, or of texts as many as take the places of so many of the longest.
    """
    if examples.most is None:
        sizes = [size] * -(-len(order) // size)
    else:
        places = size * evened(int(examples.store.lengths.max()), examples.most)
        lengths = [evened(int(length), examples.most) for length in examples.store.lengths[order]]
        sizes, at = [], 0
        while at < len(order):
            sizes.append(places // lengths[at])
            at += sizes[-1]
    sizes = sizes if len(sizes) > 1 else [len(order)] * len(sizes)
    return np.concatenate([order, order[-1:].repeat(sum(sizes) - len(order))]), sizes


def _computed(
    batches: Iterator[Batch], compute: Callable[[torch.Tensor], Any], runtime: Runtime
) -> Iterator[tuple[Batch, Any]]:
    """Each batch with what ``compute`` gives for it, in order.

    On a CPU side by side: a thread a batch, instead of all threads on every layer. MobileNetV2 has 150 small layers,
    and at the end of each the threads would wait for the slowest, the more so beside other work.
    """

    def one(batch: Batch) -> tuple[Batch, Any]:
        with torch.no_grad(), runtime.autocast():
            return batch, compute(on_device(batch.inputs, runtime.device))

    usual = torch.get_num_threads()
    lanes = min(workers.MOST, usual) if runtime.device.type == "cpu" else 1
    if lanes == 1:
        yield from map(one, batches)
        return
    with threads.set_to(usual // lanes):
        yield from workers.in_order(one, batches, lanes)


def evaluate(
    model: Model,
    examples: Examples,
    runtime: Runtime,
    *,
    batch_size: int,
    cache: FrontierCache | None = None,
    emit: Emit | None = None,
) -> Evaluation:
    """What the model answers on every row, from the inputs or from a frontier cache; placed by row index.

    On a CPU inputs pass side by side, in batches of the size that ``fill`` takes: cached answers stay bit-equal.

    Args:
        batch_size: rows of a batch elsewhere than on a CPU; of short texts more, as many as take the same places.
    """
    share = order(examples, runtime)
    local = torch.empty(len(share), len(model.classes))
    say = emit or (lambda event: None)
    frontier = cache.frontier if cache else 0
    model.eval()

    def answers(size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        if cache is not None and frontier == POOLED:
            whole, sizes = share, [size] * -(-len(share) // size)
        else:
            whole, sizes = _whole(examples, share, size)
        if cache is None:
            batches = examples.batches(whole, batch_size=sizes)
            yield from ((batch.rows, logits) for batch, logits in _computed(batches, model, runtime))
            return
        for rows in np.split(whole, np.cumsum(sizes))[:-1]:
            with torch.no_grad(), runtime.autocast():
                yield rows, logits_from(model, cache.take(0, rows, runtime.device), len(rows), frontier)

    def attempt(size: int) -> None:
        done = 0
        for rows, logits in answers(size):
            rows = rows[: len(share) - done]  # one that fills a batch up has its answer
            local[done : done + len(rows)] = logits[: len(rows)].float().cpu()
            done += len(rows)
            say(Progress("evaluate", done, len(share), "rows", examples.split))
            if runtime.world == 1:  # several ranks stop together, after an update
                interruption.check()

    first = max(batch_size, 4096) if frontier == POOLED else _first(examples, runtime, batch_size)
    memory.halving(
        attempt, first, on_halved=lambda size: say(memory.told(size)), where=f"evaluation on {examples.split}"
    )
    logits = runtime.gather(share, local, len(examples))
    rows = np.arange(len(examples))
    found = (logits.numpy(), examples.rows.labels, tuple(model.classes))
    return Evaluation(examples.split, rows, *found, threshold=model.threshold)
