"""``fit``: from the user's data to a measured model, to be read from top to bottom like a recipe."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import interruption, manifest, storage
from headstart.core.errors import HeadstartError
from headstart.core.events import Decision, Event, Notice
from headstart.core.plural import plural
from headstart.core.run import Run
from headstart.stages import auto, plans
from headstart.stages.base import Stage, Training
from headstart.workflows import choices, early, finish, folds, materials, preflight, seen, space
from headstart.workflows.baselines import Baselines
from headstart.workflows.materials import Decoded, phase
from headstart.workflows.places import begun_in_vain, open_run, recorder, remember_contents, seconds_before

if TYPE_CHECKING:
    from headstart.data.ahead import Ahead
    from headstart.data.reading.collection import Collection
    from headstart.data.store import Store
    from headstart.engine.frontier import Frontiers
    from headstart.engine.limits import Gauge
    from headstart.engine.runtime import Runtime
    from headstart.experiment import Experiment
    from headstart.measure.metrics import OwnMetric
    from headstart.models.backbone import Backbone
    from headstart.models.model import Model
    from headstart.workflows.course import Course

Emit = Callable[[Event], None]
FEATURE_CACHE_BYTES = 2 * 10**9


@storage.reported()
@interruption.watched()
def fit(
    experiment: Experiment,
    *,
    data: Any = None,
    on_event: Callable[[Event], None] | None = None,
    resume: bool = False,
) -> Run:
    """Train in measured stages and leave a run folder with the model, the evidence and the report.

    Where no stage beat the baseline that needs no backbone, a warning says so and ``Run.beaten_by`` names it.

    Args:
        data: the data itself (a DataFrame, arrays, a dataset…) instead of ``experiment.data.source``.
        on_event: called with every event, to show progress.
        resume: continue the run of the same experiment; an error where there is none.

    Raises:
        HeadstartError: with everything that is wrong, where, and what to do.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint is written, and the same call goes on from there.
    """
    storage.insist_writable(Path(experiment.output_dir), "--output-dir")
    collection = materials.collect(experiment, data)
    with early.begun(experiment, collection) as begun:  # before torch is loaded
        runtime = materials.runtime(experiment)
        try:
            if experiment.data.split.folds is not None:
                return folds.cross_validate(experiment, collection, runtime, fit_rows, on_event, resume, begun)
            return fit_rows(experiment, collection, runtime, on_event, resume, begun)
        finally:
            runtime.close()


def fit_rows(
    experiment: Experiment,
    collection: Collection,
    runtime: Runtime,
    on_event: Callable[[Event], None] | None,
    resume: bool,
    held: Store | Ahead | None,
) -> Run:
    """One run on rows that are collected already, and decoded, or being decoded, in ``held``; see ``fit``."""
    started = time.monotonic()
    said: list[Event] = []
    with phase(said.append, "backbone"):  # first: a run is known by its network too
        backbone = materials.backbone(experiment, said.append, collection)
    with open_run(experiment, collection, backbone, resume, runtime) as (run, continued):
        emit = recorder(run, on_event)
        try:
            return _go(run, continued, experiment, collection, backbone, said, runtime, emit, held, started)
        except HeadstartError:
            if runtime.is_main and not continued and not (run.path / "stages").exists():
                shutil.rmtree(run.path)  # made a moment ago, and nothing was learned in it
            raise


def _go(
    run: Run,
    continued: bool,
    experiment: Experiment,
    collection: Collection,
    backbone: Backbone,
    said: list[Event],
    runtime: Runtime,
    emit: Emit,
    held: Store | Ahead | None,
    started: float,
) -> Run:
    """The recipe, in the order of its steps."""
    complete = continued and run.read("result.json") is not None
    if complete and not manifest.is_whole(run.model_folder):
        what = f"the model in {run.model_folder} is missing or damaged"
        emit(Notice("warning", "model-lost", what, "it is written again from its stages, and test rows are read again"))
    elif complete:
        emit(Notice("info", "complete", f"this experiment is complete in {run.path}; nothing is left to do"))
        if runtime.is_main and not (run.path / "report.html").is_file():
            finish.report(run)
        finish.warn_of_baseline(run, emit)
        return run
    if continued:
        earlier = seconds_before(run)
        emit(Notice("info", "continued", f"this run goes on; {earlier:.0f} s went into it before"))
        started -= earlier
        if name := begun_in_vain(run):
            emit(Notice("info", "begun-again", f"stage {name} ended before its first checkpoint: it starts over"))
    for event in said:
        emit(event)
    if runtime.is_main:
        space.warn_of_cache(emit)
    metric = preflight.metric(experiment.metric, collection.rows.labels)
    if metric == "sensitivity":
        emit(preflight.sought(collection.classes))
    early.remember(experiment, backbone.spec)
    decoded = materials.decode(collection, experiment, backbone.spec, emit, held)
    preflight.ranks(decoded.splits, runtime.world)
    model = materials.assemble(experiment, backbone, decoded, runtime, emit)
    if runtime.is_main:
        materials.describe(run, experiment, decoded)
        seen.record(run, decoded)
        remember_contents(run, collection.rows, collection.modality, decoded.contents)
    beside = None
    if runtime.is_main and experiment.baseline:
        beside = Baselines(run, decoded, metric, model.threshold, emit)
        beside.judge()
    stages = choose_plan(experiment, model, decoded, emit)
    preflight.check(stages, model, decoded.splits.train.labels, decoded.examples("train"), force=experiment.force)
    if runtime.is_main:
        space.insist(run, model, stages)
    frontiers = _frontiers(runtime, model, experiment, emit)
    choices.settle(run, frontiers, decoded, stages, experiment, emit)
    course = _course(run, frontiers, decoded, stages, experiment, metric, emit, started)
    if runtime.is_main and experiment.normalisation_check and backbone.modality == "image":
        materials.check_normalisation(course.frontiers, decoded, emit)
    for index, stage in enumerate(stages):
        if course.incumbent and not run.is_done(index, stage.title) and course.is_late():
            left = ", ".join(each.title for each in stages[index:])
            emit(Notice("warning", "time-up", f"the time is used up; these stages were left out: {left}"))
            break
        with phase(emit, stage.title):
            verdict = course.take(index, stage)
        if verdict.decision == "stop":
            break
    course.frontiers.let_go()
    finish.conclude(run, course, decoded, beside, started, emit)
    runtime.wait()
    return run


def choose_plan(experiment: Experiment, model: Model, decoded: Decoded, emit: Emit) -> tuple[Stage, ...]:
    """The stages of the run; ``auto`` chooses by the number of rows and the measured likeness to the source data."""
    rows, modality = len(decoded.splits.train), decoded.splits.modality
    if experiment.plan == "auto":
        from headstart.engine import similarity

        likeness = similarity.measure(model.backbone, decoded.examples("train"))
        name, reason = auto.choose(rows, likeness.level)
        emit(Decision("plan", name, f"{reason} ({likeness.reason})", dict(likeness.facts)))
        stages = plans.override(plans.parse(name, modality=modality), experiment.training)
    else:
        stages = experiment.stages(modality)
    distinct = experiment.distinct(stages, lambda stage: model.opened(**stage.thawed))
    for stage in stages:
        if isinstance(stage, Training) and stage not in distinct:
            blocks = model.opened(**stage.thawed)[1]
            emit(Decision(stage.title, "left out", f"of {blocks} blocks it opens as many as the stage after it"))
    stages, longer = distinct, experiment.lengthened(distinct, rows)
    for before, after in zip(stages, longer, strict=True):
        for name in ("epochs", "patience"):
            few, enough = getattr(before, name, None), getattr(after, name, None)
            if few and few != enough and isinstance(before, Training):
                updates = plural(few * before.updates_per_epoch(rows), "update")
                updates = f"{plural(few, 'epoch')} would be {updates} on {plural(rows, 'row')}"
                emit(Decision(f"{name} of {after.title}", str(enough), f"{updates}, too few to learn"))
    return plans.settled(longer, modality)


def _frontiers(runtime: Runtime, model: Model, experiment: Experiment, emit: Emit) -> Frontiers:
    from headstart.data import canvases
    from headstart.engine.cache import FeatureStore
    from headstart.engine.frontier import Frontiers

    kept = FeatureStore(canvases.default_folder() / "features", FEATURE_CACHE_BYTES)
    return Frontiers(model, runtime, emit, experiment.seed, budget=0, kept=kept)  # until it is settled


def _course(
    run: Run,
    frontiers: Frontiers,
    decoded: Decoded,
    stages: tuple[Stage, ...],
    experiment: Experiment,
    metric: str | OwnMetric,
    emit: Emit,
    started: float,
) -> Course:
    from headstart.workflows.course import Course

    return Course(
        run=run,
        runtime=frontiers.runtime,
        model=frontiers.model,
        train=decoded.examples("train"),
        val=decoded.examples("val"),
        frontiers=frontiers,
        emit=emit,
        seed=experiment.seed,
        metric=metric,
        plan=stages,
        decides="log_loss" if experiment.metric == "auto" else metric,
        deadline=None if experiment.time_limit is None else started + experiment.time_limit,
        gauge=_gauge(run, decoded, frontiers) if experiment.limits else None,
    )


def _gauge(run: Run, decoded: Decoded, frontiers: Frontiers) -> Gauge | None:
    """What tells the limits of the stages; of one process alone, since ranks would measure each other."""
    from headstart.engine.limits import Gauge, RowCost

    if frontiers.runtime.world > 1:
        return None
    train, rows = decoded.examples("train"), sum(len(rows) for rows in decoded.splits.present().values())
    spent = [event["seconds"] for event in run.events() if event.get("event") == "Phase" and event["name"] == "decode"]
    return Gauge(
        frontiers.model,
        frontiers.runtime,
        train,
        decoded.examples("val"),
        frontiers.passed,
        row=RowCost.of(train),
        decoded=rows,
        decode_seconds=spent[-1] if spent else 0.0,
    )
