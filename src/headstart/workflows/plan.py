"""``plan``: what ``fit`` would do, before it does it: stages, blocks, rates, updates, time and memory.

Times are measured, not guessed: one small batch goes through the network here, and through what lies above each
frontier; a training step counts as one forward pass and two more above the frontier.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import notebook
from headstart.core.errors import Problem
from headstart.core.events import Event
from headstart.core.plural import plural
from headstart.stages import auto, budget, plans
from headstart.stages.base import Stage, Training
from headstart.stages.methods import probe
from headstart.workflows import choices, materials, preflight

if TYPE_CHECKING:
    import torch

    from headstart.data.splits import Rows
    from headstart.engine.recorded import Wanted
    from headstart.experiment import Experiment
    from headstart.models.backbone import Backbone
    from headstart.models.model import Layer, Model

BATCH = 8
BYTES = 4  # of a number in fp32


@dataclass(frozen=True)
class PlanLayer:
    """One block in one stage."""

    name: str
    depth: int
    params: int
    frozen: bool
    lr: float | None  # None: frozen, or solved without a rate


@dataclass(frozen=True)
class PlanStage:
    """What one stage would train, how long and with how much memory."""

    title: str
    trains: str
    trainable: int
    frozen_blocks: int
    blocks: int
    epochs: int
    updates: int
    cached: bool
    seconds: float
    memory_mb: float
    layers: tuple[PlanLayer, ...] = field(repr=False)

    def __str__(self) -> str:
        length = f"; {plural(self.epochs, 'epoch')}, {plural(self.updates, 'update')}" if self.epochs else ""
        return f"{self.title}: {self.trains}{length}"


@dataclass(frozen=True)
class PlanTable:
    """The stages of a run, and the reasons why ``fit`` would refuse them."""

    name: str
    backbone: str
    train_rows: int
    parameters: int
    stages: tuple[PlanStage, ...]
    problems: tuple[Problem, ...]
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Estimate for all stages."""
        return sum(stage.seconds for stage in self.stages)

    def __repr__(self) -> str:
        """A line for each stage, and what speaks against the plan."""
        shown = "".join(f"\n  {line}" for line in (*self.stages, *self.problems))
        return f"PlanTable({self._size}){shown}"

    def _repr_html_(self) -> str:
        head = ("stage", "trains", "parameters", "epochs", "updates", "seconds", "MB")
        stages = (
            (each.title, each.trains, f"{each.trainable:,}", each.epochs, each.updates, each.seconds, each.memory_mb)
            for each in self.stages
        )
        return notebook.table(head, stages, "; ".join([self._size, *map(str, self.problems)]))

    @property
    def _size(self) -> str:
        rows = plural(self.train_rows, "training row")
        return f"{self.name!r}, {self.backbone!r}, {rows}, about {self.seconds:.0f} s"


def plan(experiment: Experiment, *, data: Any = None, on_event: Callable[[Event], None] | None = None) -> PlanTable:
    """Lay out the plan for the user's data and backbone; nothing is trained, and only a few rows are decoded.

    Raises:
        HeadstartError: the data, the backbone or the settings cannot be used.
    """
    from headstart.data import sources
    from headstart.engine.streams import on_device
    from headstart.models import heads
    from headstart.models.model import Model

    emit = on_event or (lambda event: None)
    collection = materials.collect(experiment, data)
    division = sources.divide(collection, experiment.data, seed=experiment.seed)
    rows, val = len(division.index["train"]), len(division.index["val"])
    runtime = materials.runtime(experiment)
    backbone = materials.backbone(experiment, emit, collection).to(runtime.device)
    inputs = on_device(backbone.spec.noise(BATCH), runtime.device)
    backbone.verify(inputs[:2])
    head = experiment.head
    top = heads.build(head.kind, backbone.feature_dim, len(collection.classes), hidden=head.hidden)
    labels = collection.rows.labels[division.index["train"]]
    model = Model(backbone, top, collection.classes, **preflight.task(experiment, labels)).to(runtime.device)
    reason = ""
    if experiment.plan == "auto":
        name, reason = _choose(collection.rows.take(division.index["train"]), collection.modality, backbone)
        stages = plans.override(plans.parse(name, modality=collection.modality), experiment.training)
    else:
        stages = experiment.stages(collection.modality)
    stages = experiment.distinct(stages, lambda stage: model.opened(**stage.thawed))
    stages = plans.settled(experiment.lengthened(stages, rows), collection.modality)
    preflight.check(stages, model, labels, force=True)  # what starves is shown in the table
    bench = _Bench(inputs, _forward_seconds(model, inputs, 0), rows, val, choices.frontier_budget(experiment))
    laid = tuple(_stage(model, stage, bench) for stage in stages)
    problems = () if experiment.force else tuple(budget.starved(stages, rows))
    return PlanTable(
        experiment.plan if isinstance(experiment.plan, str) else "the user's own",
        backbone.origin.uri,
        rows,
        sum(parameter.numel() for parameter in model.parameters()),
        laid,
        problems,
        reason,
    )


def _choose(rows: Rows, modality: str, backbone: Backbone) -> tuple[str, str]:
    """The plan that ``auto`` takes, from the likeness of a few rows to the pretraining data."""
    from headstart.data.store import Store
    from headstart.engine import similarity
    from headstart.engine.streams import Examples

    few = rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[: similarity.ROWS]))
    store = Store.build(few, backbone.spec, modality=modality)
    likeness = similarity.measure(
        backbone, Examples("train", few.take(store.usable), store.take(store.usable), backbone.spec)
    )
    name, reason = auto.choose(len(rows), likeness.level)
    return name, f"{name}: {reason} ({likeness.reason})"


@dataclass(frozen=True)
class _Bench:
    """What stages are timed on: a batch, and what one row of the whole network costs."""

    inputs: torch.Tensor
    whole: float  # seconds a row
    rows: int
    val: int
    budget: int  # bytes for a frontier
    passed: list[Wanted] = field(default_factory=list)  # what earlier stages record


def _stage(model: Model, stage: Stage, bench: _Bench) -> PlanStage:
    from headstart.models.heads import Linear

    if isinstance(stage, Training):
        return _training(model, stage, bench)
    assert isinstance(stage, probe.Settings)
    model.thaw(0)
    seconds = (bench.rows * stage.views + bench.val) * bench.whole
    if isinstance(model.head, Linear):
        return _row(model, stage, "head, solved on cached features", 0, 0, True, seconds, {}, bench)
    trained = stage.as_training()
    rates = {len(model.backbone.blocks) + 1: trained.by_depth["head_lr"]}
    updates = trained.updates(bench.rows)
    return _row(model, stage, "head, on cached features", trained.epochs, updates, True, seconds, rates, bench)


def _training(model: Model, stage: Training, bench: _Bench) -> PlanStage:
    from headstart.engine import cache, streams
    from headstart.engine.groups import rates_by_depth
    from headstart.engine.recorded import Wanted
    from headstart.models import resume

    model.bn = stage.bn
    model.thaw(**stage.thawed)
    blocks, frontier = len(model.backbone.blocks), model.frozen_prefix
    views = stage.views if isinstance(stage.views, int) else 1
    row_bytes = 0
    if frontier:
        model.eval()
        row_bytes = cache.tree_bytes(resume.record(model.backbone, frontier, bench.inputs), len(bench.inputs))
    kept = bench.rows * views + bench.val
    why = streams.why_fresh(stage, model.backbone.modality)
    cached = cache.decide(frontier, blocks, row_bytes, kept, bench.budget, fresh=why).used
    above = _forward_seconds(model, bench.inputs, frontier)
    passes = stage.passes(bench.rows)
    if cached:
        wanted = Wanted(stage, frontier, "")
        known = any(frontier <= each.frontier and wanted.seen == each.seen for each in bench.passed)
        bench.passed.append(wanted)
        below = 0.0 if known else kept * (bench.whole - above)
        seconds = below + passes * 3 * above + bench.val * stage.epochs * above
    else:
        seconds = passes * (bench.whole + 2 * above) + bench.val * stage.epochs * bench.whole
    rates = dict(enumerate(rates_by_depth(model.backbone.blocks, **stage.by_depth)))
    trains = "everything" if frontier == 0 else f"last {blocks - frontier} of {blocks} blocks, head"
    return _row(model, stage, trains, stage.epochs, stage.updates(bench.rows), cached, seconds, rates, bench)


def _row(
    model: Model,
    stage: Stage,
    trains: str,
    epochs: int,
    updates: int,
    cached: bool,
    seconds: float,
    rates: dict[int, float],
    bench: _Bench,
) -> PlanStage:
    layers = tuple(_layer(layer, rates) for layer in model.layers())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    batch = stage.batch_size // stage.accumulate if isinstance(stage, Training) else BATCH
    activations = _activation_bytes(model, bench.inputs) * batch / len(bench.inputs)
    memory = (parameters + 3 * trainable) * BYTES + activations  # weights; gradient and two moments of what trains
    return PlanStage(
        stage.title,
        trains,
        trainable,
        model.frozen_prefix,
        len(model.backbone.blocks),
        epochs,
        updates,
        cached,
        seconds,
        memory / 1e6,
        layers,
    )


def _layer(layer: Layer, rates: dict[int, float]) -> PlanLayer:
    frozen = not layer.trainable
    return PlanLayer(layer.name, layer.depth, layer.params, frozen, None if frozen else rates.get(layer.depth))


def _forward_seconds(model: Model, inputs: torch.Tensor, frontier: int) -> float:
    """Seconds a row that the network takes above ``frontier`` (0: all of it), the better of two runs."""
    import torch

    from headstart.models import resume
    from headstart.stages.learner import logits_from

    model.eval()
    with torch.no_grad():
        value = inputs if frontier == 0 else resume.record(model.backbone, frontier, inputs)
        logits_from(model, value, len(inputs), frontier)
        best = float("inf")
        for _ in range(2):
            started = time.perf_counter()
            logits_from(model, value, len(inputs), frontier)
            best = min(best, time.perf_counter() - started)
    return best / len(inputs)


def _activation_bytes(model: Model, inputs: torch.Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of these inputs, as the model is thawed now."""
    import torch

    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    model.eval()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(inputs)
    return sum(kept.values())
