"""The course of a run: stage after stage on one model, each measured, the best kept.

Shapes: N rows, D features, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headstart.core import interruption, registry
from headstart.core.errors import TrainingError
from headstart.core.events import Decision, Notice, StageStarted
from headstart.core.run import Run
from headstart.engine import balance, features, groups, streams
from headstart.engine.cache import CacheDecision, FrontierCache
from headstart.engine.checkpoint import Checkpoints, load_tensors
from headstart.engine.features import Emit
from headstart.engine.frontier import Frontiers
from headstart.engine.loop import Job, Loop
from headstart.engine.mixing import Mixer
from headstart.engine.recorded import Wanted
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples
from headstart.measure.evaluation import Evaluation
from headstart.measure.metrics import OwnMetric
from headstart.models import heads, merging
from headstart.models.fresh import reinitialise
from headstart.models.model import Model
from headstart.stages import gates
from headstart.stages.base import Stage, Training
from headstart.stages.gates import Verdict
from headstart.stages.learner import Learner
from headstart.stages.methods import contrastive, mlm, probe, scratch
from headstart.workflows import contrasting, outcomes, pretraining, rate, solving, vocabulary
from headstart.workflows.outcomes import Outcome

if TYPE_CHECKING:
    from headstart.engine.limits import Gauge


@dataclass(frozen=True)
class Incumbent:
    """The model kept so far."""

    index: int
    stage: Stage
    evaluation: Evaluation

    @property
    def title(self) -> str:
        return self.stage.title


@dataclass
class Course:
    """One model on its way through a plan; after each stage it holds the best weights so far."""

    run: Run
    runtime: Runtime
    model: Model
    train: Examples
    val: Examples
    frontiers: Frontiers
    emit: Emit
    seed: int
    metric: str | OwnMetric
    plan: tuple[Stage, ...] = ()  # all stages of the run
    decides: str | OwnMetric = "log_loss"  # which epoch of a stage is its best, where the stage does not say it
    deadline: float | None = None  # time.monotonic() at which the budget of the run ends
    gauge: Gauge | None = None
    incumbent: Incumbent | None = None

    def take(self, index: int, stage: Stage) -> Verdict:
        """Run one stage, or take it from the run folder where it is complete already."""
        folder = self.run.stage_folder(index, stage.title)
        if self.run.is_done(index, stage.title):
            return self._replay(index, stage, folder)
        counted = not isinstance(stage, mlm.Settings | contrastive.Settings)  # whose work the gauge does not know
        gauge = self.gauge if counted and not (folder / "state").exists() else None  # resumed: only the end is timed
        if gauge is not None:
            gauge.begin()
        started = time.monotonic()
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        outcome, verdict = self._judged(index, stage)
        result = outcomes.result(self.model, index, stage, outcome, verdict, self.metric, time.monotonic() - started)
        if gauge is not None:
            result["limit"] = outcomes.limit(gauge, index, stage, outcome, result["seconds"])
        if verdict.decision == "keep":
            judged = outcome.evaluation if isinstance(outcome.evaluation, Evaluation) else None
            self._keep(None if judged is None else Incumbent(index, stage, judged), stage)
        if self.runtime.is_main:
            outcomes.write(folder, self.model, result, outcome.evaluation, verdict)
        self.runtime.wait()
        if verdict.decision != "keep":
            self.model.load_state_dict(before)
            self.prepare(self.incumbent.stage if self.incumbent else stage)
        self.emit(outcomes.done(result, verdict))
        return verdict

    def _judged(self, index: int, stage: Stage) -> tuple[Outcome, Verdict]:
        if isinstance(stage, mlm.Settings):
            return pretraining.pretrain(self, index, stage)
        if isinstance(stage, contrastive.Settings):
            outcome = contrasting.contrast(self, index, stage)
        else:
            outcome = self._probe(index, stage) if isinstance(stage, probe.Settings) else self._train(index, stage)
        earlier = self.incumbent
        before, name = (earlier.evaluation.decided(), earlier.title) if earlier else (None, "")
        return outcome, gates.check(stage.gate, outcome.judged, before, metric=self.metric, name=name)

    def _keep(self, incumbent: Incumbent | None, stage: Stage) -> None:
        self.incumbent = incumbent
        if not isinstance(stage, probe.Settings):
            self.frontiers.renew()

    def is_late(self) -> bool:
        """Whether the time of the run is used up, on any rank."""
        return self.runtime.agree(self.deadline is not None and time.monotonic() >= self.deadline)

    def _probe(self, index: int, stage: Stage) -> Outcome:
        """Solve the head on cached features; only the head changes."""
        assert isinstance(stage, probe.Settings)
        self.prepare(stage)
        self.start(index, stage, f"the head, solved on {stage.views} view{'s' * (stage.views > 1)} of cached features")
        if not isinstance(self.model.head, heads.Linear):
            return self._train_head(index, stage)
        labels = torch.as_tensor(self.train.rows.labels)
        of_class = balance.class_weights(self.train.rows.labels, self.model.classes, stage.class_weights)
        weighing: dict[str, Any] = {"positive": of_class} if self.model.several else {}
        if of_class is not None and not self.model.several:
            weighing = {"weights": torch.tensor(of_class)[labels]}
        views = [self.frontiers.pooled(self.train, view, stage.augment) for view in range(stage.views)]
        train = torch.cat(views) if len(views) > 1 else views[0]  # one view is large enough not to be copied
        with self.runtime.exactly():
            val = self.frontiers.pooled(self.val)
        options = {"strengths": stage.strengths, "views": stage.views, **weighing}
        layer, evaluation, path = solving.solve(train, labels, val, self.val, self.model, self.runtime, **options)
        self.model.head.last.load_state_dict(layer.state_dict())
        self.runtime.insist_equal(self.model, f"stage {stage.title}")
        return Outcome(evaluation, details={"probe": path})

    def _train_head(self, index: int, stage: probe.Settings) -> Outcome:
        """A head that has no closed form (mlp, cosine) is trained by gradient steps on the same cached features."""
        settings = stage.as_training()
        views = [self.frontiers.pooled(self.train, view, stage.augment) for view in range(stage.views)]
        cached = FrontierCache.of(torch.stack(views))
        with self.runtime.exactly():
            val = FrontierCache.of(self.frontiers.pooled(self.val)[None])
        return self._measured(self._fit(index, settings, cached, val), settings, val, None)

    def _train(self, index: int, stage: Stage) -> Outcome:
        """Train the thawed blocks and the head by gradient steps, from the frontier where it is cached."""
        assert isinstance(stage, Training)
        if isinstance(stage, scratch.Settings):
            reinitialise(self.model, self.seed)
        ahead = [self._wanted(each) for each in self._ahead(index)]
        wanted = self._wanted(stage)
        thawed = len(self.model.backbone.blocks) - self.model.frozen_prefix
        self.start(index, stage, f"{thawed} of {len(self.model.backbone.blocks)} blocks and the head")
        with merging.merged(self.model.backbone) as count:
            if count:
                reason = "computed by the convolutions before them, wherever they keep their statistics"
                self.emit(Decision("batch norm", f"{count} merged", reason))
            exactly = self.runtime.precision == "fp32" or stage.epochs == 1
            with vocabulary.narrowed(self, stage):
                frontier = self.frontiers.of_stage(wanted, self.train, self.val, ahead)
                loop = self._fit(index, stage, frontier.train, frontier.val, exactly)
            return self._measured(loop, stage, frontier.val, frontier.decision, loop.judged if exactly else None)

    def _ahead(self, index: int) -> Iterator[Training]:
        """Later stages that train on top of the weights that stage ``index`` leaves frozen."""
        for stage in self.plan[index + 1 :]:
            if stage.prepares or isinstance(stage, contrastive.Settings | scratch.Settings):
                return
            if isinstance(stage, Training) and not streams.why_fresh(stage, self.train.store.modality):
                yield stage

    def _wanted(self, stage: Training) -> Wanted:
        """What this stage wants to be recorded; the model is prepared for it."""
        self.prepare(stage)
        return Wanted.by(stage, self.model)

    def prepare(self, stage: Stage) -> None:
        """What trains in a stage, and what BatchNorm does meanwhile: all that a model knows of the stage it is in."""
        self.model.bn = stage.bn if isinstance(stage, Training) else "frozen_eval"
        self.model.thaw(**(stage.thawed if isinstance(stage, Training) else {"count": 0}))

    def _fit(
        self,
        index: int,
        stage: Training,
        cached: FrontierCache | None,
        val: FrontierCache | None,
        exactly: bool = False,
    ) -> Loop:
        """Train on the streams, judged after every epoch as the training computes, or else ``exactly``.

        Where nothing is to be compared (one epoch), the answers that count are asked for at once.
        """
        weights = balance.class_weights(self.train.rows.labels, self.model.classes, stage.class_weights)
        task = registry.find("headstart.tasks", self.model.task)
        loss = task.Loss(label_smoothing=stage.label_smoothing, class_weights=weights)
        mixer = None
        if stage.mixup or stage.cutmix:
            mixer = Mixer(stage.mixup, stage.cutmix, stage.mix_probability, len(self.model.classes))

        def validate() -> Evaluation:
            if exactly:
                return self._exact(stage, val)
            size = stage.batch_size
            return features.evaluate(self.model, self.val, self.runtime, batch_size=size, cache=val, emit=self.emit)

        learner = Learner(self.model, loss, self.runtime.autocast)
        stream = streams.of_stage(stage, self.train, self.model, self.runtime, (self.seed, index), cached)
        return self.descend(index, stage, learner, stream, validate, self.metric, mixer)

    def _measured(
        self,
        loop: Loop,
        stage: Training,
        val: FrontierCache | None,
        decision: CacheDecision | None,
        known: Evaluation | None = None,
    ) -> Outcome:
        """What the stage gave, by the answers that count, where they are not ``known`` already."""
        outcome = self.told(loop, self._exact(stage, val) if known is None else known, decision)
        outcome.again = known is None
        return outcome

    def _exact(self, stage: Training, val: FrontierCache | None) -> Evaluation:
        """The answers of the model as it is saved, in fp32, but for the rounding of what is merged."""
        with self.runtime.exactly():
            return features.evaluate(
                self.model, self.val, self.runtime, batch_size=stage.batch_size, cache=val, emit=self.emit
            )

    def descend(
        self,
        index: int,
        stage: Training,
        learner: Any,
        stream: streams.Stream,
        validate: Callable[[], Any],
        metric: str | OwnMetric,
        mixer: Mixer | None = None,
    ) -> Loop:
        """Train a learner of this model: afterwards the model is that of the best epoch, and plain again."""
        frozen = self.model.frozen_hash()
        folder = self.run.stage_folder(index, stage.title)
        job = Job(
            runtime=self.runtime,
            learner=learner,
            settings=stage,
            stream=stream,
            groups=groups.of_learner(learner, weight_decay=stage.weight_decay, **stage.by_depth),
            validate=validate,
            metric=metric,
            decides="log_loss" if stage.prepares else self.decides,
            stage=index,
            seed=self.seed,
            checkpoints=Checkpoints(
                folder / "state", warn=lambda text: self.emit(Notice("warning", "checkpoint", text))
            ),
            mixer=mixer,
            names=self.train.rows.names,
            deadline=self.deadline,
        )
        if stage.find_lr:
            rate.find(job, folder / "lr.json", self.emit)
        loop = Loop(job)
        with interruption.deferred():  # a signal waits for the end of the step, and for its checkpoint
            for event in loop.run():
                self.emit(event)
        candidate = job.learner.finish()
        if candidate.frozen_hash() != frozen:
            raise TrainingError("frozen weights or buffers have moved", where=f"stage {stage.title}")
        self.runtime.insist_equal(candidate, f"stage {stage.title}")
        return loop

    def told(
        self, loop: Loop, evaluation: Any, decision: CacheDecision | None, details: dict[str, Any] | None = None
    ) -> Outcome:
        """What the stage gave that this loop trained."""
        rates = {group["depth"]: group["base_lr"] for group in loop.job.groups}
        history = {"history": loop.state.history, "best_epoch": loop.state.best_epoch + 1}
        trained = sum(parameter.numel() for group in loop.job.groups for parameter in group["params"])
        return Outcome(
            evaluation,
            rates,
            loop.state.updates,
            loop.state.epoch,
            trained,
            cache=decision,
            details={**history, **(details or {})},
        )

    def _replay(self, index: int, stage: Stage, folder: Path) -> Verdict:
        """Take a complete stage as it was."""
        stored = outcomes.stored(folder, index, stage)["verdict"]
        Checkpoints(folder / "state").clear()
        if stored["decision"] == "keep":
            self.prepare(stage)
            tensors = load_tensors(folder / "state" / "model.safetensors")
            self.model.load_state_dict(tensors, strict=False)
            read = None if stage.prepares else Evaluation.load(folder / "predictions.npz")
            self._keep(None if read is None else Incumbent(index, stage, read), stage)
        self.emit(Notice("info", "stage-kept", f"stage {stage.title} is complete; its result is taken as it is"))
        return Verdict(stored["decision"], stored["reason"], stored["metric"], None, stored["incumbent"])

    def start(self, index: int, stage: Stage, summary: str, rows: int | None = None) -> None:
        """Tell that a stage begins, on so many rows (None: the training rows)."""
        count = len(self.train) if rows is None else rows
        epochs, updates = (stage.epochs, stage.updates(count)) if isinstance(stage, Training) else (0, 0)
        self.emit(StageStarted(index, stage.title, stage.method, summary, epochs, updates))
