"""How near a stage comes to what this machine allows: the limit of its work over its time, by the roofline model
(Williams, Waterman and Patterson 2009).

The peaks are those of this process and minute, never a datasheet's: the largest matrix product in the precision that is
used, a copy through memory, rows decoded and brought to the network's size by one core. The work is counted on the
user's rows: FLOPs (two a multiply-add, by torch's FlopCounterMode) and the numbers that convolutions and products
write, block by block, so that the frozen share is exact. A forward pass from block a to block b takes at least

    max(F(a, b) / P, 2 A(a, b) s / B)        of F FLOPs at peak P, A numbers of s bytes written and read once at B,

and the backward pass through what is thawed twice the FLOPs and twice the traffic: less than any code that fuses less
than everything, so the limit flatters nobody. Decoding, resizing and computing share the cores of a CPU, so their times
add; while an accelerator computes, the cores resize, which is left out there.

Shapes: N rows, D features, K classes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from headstart.data.modalities.base import DecodeError
from headstart.engine.precision import DTYPES
from headstart.engine.recorded import Passed
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples, on_device
from headstart.models import hooks, resume
from headstart.models.model import Model
from headstart.stages.base import Training
from headstart.stages.learner import POOLED

SIDE = {"cpu": 1536, "cuda": 8192, "mps": 2048}  # of the matrices that are multiplied
COPIED = {"cpu": 64 * 2**20, "cuda": 2**30, "mps": 256 * 2**20}  # bytes
ROUNDS = 3
SAMPLE = 8  # rows that are counted where rows differ in length: the middles of so many equal parts by length
DECODED = 16  # rows that are decoded to know what a row costs
BYTES = {"fp32": 4, "bf16": 2}  # of a number
OPTIMIZER_BYTES = {"adamw": 28, "adam": 28, "sgd": 20}  # read and written a parameter: weight, gradient, moments


@dataclass(frozen=True)
class Peaks:
    """What the machine did at best: FLOP/s by precision, and bytes read and written a second in a copy."""

    flops: dict[str, float]
    copy: float

    def best(self, other: Peaks) -> Peaks:
        """The better of two measurements: a limit must hold for the quieter of two moments."""
        flops = {name: max(value, other.flops[name]) for name, value in self.flops.items()}
        return Peaks(flops, max(self.copy, other.copy))


@dataclass(frozen=True)
class Counts:
    """Of one row: FLOPs and numbers written until a point of the network is reached.

    Point 0 is the input, ``i`` the end of block ``i - 1``, one more than the blocks the features, the last the logits.
    """

    flops: tuple[float, ...]
    written: tuple[float, ...]

    def point(self, frontier: int) -> int:
        """Where a pass starts from that frontier (0: the input; ``POOLED``: the features)."""
        return len(self.flops) - 2 if frontier == POOLED else frontier

    def seconds(
        self, peaks: Peaks, precision: str, start: int, end: int | None = None, thawed: int | None = None
    ) -> float:
        """Least seconds of one row: forward from ``start`` to ``end`` (None: the logits), backward from there to
        ``thawed`` (None: not at all)."""
        last = len(self.flops) - 1 if end is None else end

        def work(counted: tuple[float, ...]) -> float:
            backward = 0.0 if thawed is None else 2 * (counted[last] - counted[thawed])
            return counted[last] - counted[start] + backward

        traffic = 2 * work(self.written) * BYTES[precision]
        return max(work(self.flops) / peaks.flops[precision], traffic / peaks.copy)


@dataclass(frozen=True)
class RowCost:
    """Seconds of one row where every core works on its own."""

    decode: float  # from its file to what is kept of it
    finish: float  # from there to what the network reads

    @classmethod
    def of(cls, examples: Examples) -> RowCost:
        """Judged by a few rows, on one core."""
        kind, spec, times = examples.store.kind, examples.spec, []
        for row in np.unique(np.linspace(0, len(examples) - 1, DECODED).astype(np.int64)):
            item, started = examples.rows.items[int(row)], time.perf_counter()
            with suppress(DecodeError):  # a file that has gone since
                canvas = kind.canvas(kind.decode(item, spec), spec)
                decoded = time.perf_counter()
                kind.finish(canvas, spec)
                times.append((decoded - started, time.perf_counter() - decoded))
        decode, finish = np.median(times, axis=0) / (os.cpu_count() or 1) if times else (0.0, 0.0)
        return cls(float(decode), float(finish))


@dataclass
class Gauge:
    """Tells of every stage of a run how near it came to its limit."""

    model: Model
    runtime: Runtime
    train: Examples
    val: Examples
    passed: list[Passed]  # what the frontiers computed, stage after stage
    row: RowCost
    decoded: int  # rows whose decoding belongs to the first stage, and the seconds that it took
    decode_seconds: float
    _before: Peaks | None = field(default=None, init=False)
    _seen: int = field(default=0, init=False)

    def begin(self) -> None:
        """Right before a stage."""
        self._before = measure(self.runtime.device, {"fp32", self.runtime.precision})
        self._seen = len(self.passed)

    def told(
        self,
        index: int,
        stage: Any,
        seconds: float,
        *,
        start: int,
        epochs: int,
        updates: int,
        trained: int,
        again: bool,
        solved: Sequence[int],
    ) -> dict[str, Any]:
        """The limit of a stage that took ``seconds``, right after it, for ``result.json``.

        Args:
            start: the frontier that its updates began at.
            trained: numbers that the optimizer moved.
            again: whether the validation rows were asked once more after the epochs, in fp32.
            solved: iterations of the solver, of every strength.
        """
        assert self._before is not None
        peaks = self._before.best(measure(self.runtime.device, {"fp32", self.runtime.precision}))
        counts = count(self.model, self.train)
        passed = self.passed[self._seen :]
        terms = {"frozen blocks": passes_limit(counts, peaks, passed)}
        read = sum(each.rows for each in passed)  # rows that came from their canvases
        if epochs and counts.point(start) == 0:
            read += epochs * len(self.train) + (epochs + again) * len(self.val)
        if self.runtime.device.type == "cpu":
            terms["inputs"] = read * self.row.finish
        if epochs:
            training = stage if isinstance(stage, Training) else stage.as_training()
            terms |= self._training(counts, peaks, start, epochs, again)
            terms["optimizer"] = updates * trained * OPTIMIZER_BYTES[training.optimizer] / peaks.copy
        if solved:
            dims, classes = self.model.backbone.feature_dim, len(self.model.classes)
            rows = len(self.train) * stage.views
            terms["head"] = head_limit(peaks, rows, dims, classes, sum(solved))
        spent = seconds
        if index == 0 and self.decode_seconds:
            terms["decode"] = min(self.decoded * self.row.decode, self.decode_seconds)
            spent += self.decode_seconds
        terms = {name: value for name, value in terms.items() if value}
        total = sum(terms.values())
        return {"seconds": total, "of": spent, "share": total / spent, "terms": terms, "peaks": peaks.__dict__}

    def _training(self, counts: Counts, peaks: Peaks, start: int, epochs: int, again: bool) -> dict[str, float]:
        precision, first = self.runtime.precision, counts.point(start)
        thawed = first if start == POOLED else self.model.frozen_prefix
        row = counts.seconds(peaks, precision, first, thawed=thawed)
        judged = counts.seconds(peaks, precision, first)
        exactly = counts.seconds(peaks, "fp32", first)
        return {
            "updates": len(self.train) * epochs * row,
            "validation": len(self.val) * (epochs * judged + again * exactly),
        }


def passes_limit(counts: Counts, peaks: Peaks, passed: Sequence[Passed]) -> float:
    """Least seconds of what was computed once below a frontier."""
    return sum(each.rows * counts.seconds(peaks, each.precision, 0, counts.point(each.frontier)) for each in passed)


def head_limit(peaks: Peaks, rows: int, dims: int, classes: int, iterations: int) -> float:
    """Least seconds of the solver: the Gram matrix and its eigenvectors, then two products with the features for every
    iteration, whose features come through memory each time."""
    rank = min(rows, dims)
    frame = (2 * rows * dims * rank + 9 * rank**3 + 2 * rows * dims * rank) / peaks.flops["fp32"]
    products = max(4 * rows * rank * classes / peaks.flops["fp32"], 2 * rows * rank * BYTES["fp32"] / peaks.copy)
    return frame + iterations * products


def count(model: Model, examples: Examples) -> Counts:
    """FLOPs and numbers written by one row of ``examples``, in eval mode; the mean of a few where rows differ."""
    rows = np.zeros(1, np.int64)
    if model.backbone.intake.ragged:
        middles = (np.arange(SAMPLE) + 0.5) / SAMPLE * len(examples)
        rows = examples.by_length(np.arange(len(examples)))[middles.astype(np.int64)]
    found = []
    for batch in examples.batches(rows, batch_size=1):
        found.append(_counted(model, on_device(batch.inputs, model.backbone.device)))
    flops, written = np.mean(found, axis=0)
    return Counts(tuple(flops.tolist()), tuple(written.tolist()))


def _counted(model: Model, inputs: Any) -> tuple[list[int], list[int]]:
    flops, written = [0], [0]
    backbone = model.backbone
    with (
        resume.evaluating(model),
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
        _Written() as numbers,
    ):

        def note() -> None:
            flops.append(counter.get_total_flops())
            written.append(numbers.total)

        with _after_blocks(backbone, note):
            features = backbone.features(inputs)
        note()
        model.head(features)
        note()
    return flops, written


@contextmanager
def _after_blocks(backbone: Any, note: Callable[[], Any]) -> Iterator[None]:
    def hook(_module: nn.Module, _args: Any, _output: Any) -> None:
        note()

    with hooks.attached(backbone.block(index).register_forward_hook(hook) for index in range(len(backbone.blocks))):
        yield


class _Written(TorchDispatchMode):
    """Counts the numbers that convolutions, products and attention write: whatever has FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += next(leaf.numel() for leaf in tree_leaves(out) if torch.is_tensor(leaf))
        return out


def measure(device: torch.device, precisions: set[str]) -> Peaks:
    """The peaks of this moment, the best of a few rounds each; about a quarter of a second on two cores."""
    kind = device.type if device.type in SIDE else "cpu"
    side, flops = SIDE[kind], {}
    for precision in sorted(precisions):
        left = torch.ones(side, side, dtype=DTYPES[precision], device=device)
        right, out = left.clone(), left.clone()
        flops[precision] = 2 * side**3 / _best(partial(torch.mm, left, right, out=out), device)
    source = torch.ones(COPIED[kind], dtype=torch.uint8, device=device)
    target = source.clone()
    return Peaks(flops, 2 * COPIED[kind] / _best(lambda: target.copy_(source), device))


def _best(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the quickest of ``ROUNDS`` calls, after one to warm up."""
    quickest = math.inf
    for round in range(ROUNDS + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        if round:
            quickest = min(quickest, time.perf_counter() - started)
    return quickest
