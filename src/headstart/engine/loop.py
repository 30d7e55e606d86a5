"""The training loop: one learner, one optimizer, one stage; it yields events and ends with the best epoch restored.

It knows no method and no modality: the learner's forward is the loss, streams give updates, ``validate`` judges.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from headstart.core import interruption, keyed
from headstart.core.errors import ArtefactError, TrainingError
from headstart.core.events import EpochDone, Event, Notice, Progress
from headstart.engine import blame, groups, memory, optimisers, schedules
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.ema import EMA
from headstart.engine.mixing import Mixer
from headstart.engine.moving import moving
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Stream, Update
from headstart.measure import metrics
from headstart.measure.evaluation import Evaluation
from headstart.measure.metrics import OwnMetric
from headstart.models import kernels
from headstart.stages.base import Training
from headstart.stages.learner import Learner

CHECKPOINT_SECONDS = 60.0  # what a kill may cost; a signal that can be caught costs nothing while a stage trains


@dataclass
class State:
    """Where a stage stands; everything but the tensors, as plain values for the checkpoint."""

    epoch: int = 0
    step: int = 0  # updates in this epoch
    updates: int = 0  # updates in all
    best_score: float = -math.inf
    best_epoch: int = -1
    waited: int = 0  # epochs since the best
    micro_batch: int = 0
    loss_sum: float = 0.0  # of this epoch
    elapsed: float = 0.0  # seconds of earlier sessions
    finished: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Job:
    """All that training one stage needs."""

    runtime: Runtime
    learner: Learner
    settings: Training
    stream: Stream
    groups: list[dict[str, Any]]
    validate: Callable[[], Evaluation]
    metric: str | OwnMetric
    stage: int
    seed: int
    decides: str | OwnMetric = "log_loss"  # which epoch is the best, where the stage's settings do not say it
    checkpoints: Checkpoints | None = None
    mixer: Mixer | None = None
    names: tuple[str, ...] = ()  # of the training rows, for messages
    deadline: float | None = None  # time.monotonic() at which the run's budget ends


class Loop:
    """Trains one stage: iterate over ``run()``; then the learner holds the best epoch and ``state`` the record."""

    def __init__(self, job: Job) -> None:
        self.job = job
        settings = job.settings
        groups.check(job.learner.named_parameters(), job.groups)
        self.state = State(micro_batch=-(-settings.batch_size // settings.accumulate))
        self.optimizer = optimisers.build(settings.optimizer, job.groups, momentum=settings.momentum)
        self.schedule = schedules.Schedule(
            settings.schedule, warmup=settings.warmup, pct_start=max(settings.warmup, 0.01)
        )
        self.total = settings.epochs * job.stream.per_epoch
        self.wrapped, _ = job.runtime.wrap(job.learner, self.optimizer)
        self.ema = EMA(job.learner, settings.ema) if settings.ema else None
        self.best: dict[str, torch.Tensor] = {}
        self.judged: Evaluation | None = None  # of these weights, where this process has judged them
        self.notices: list[Notice] = []
        self.saved = time.monotonic()

    def run(self) -> Iterator[Event]:
        """Train until the epochs, the patience or the time are used up; the best epoch's weights are restored.

        Raises:
            TrainingError: the loss or a gradient is not finite; memory does not suffice for one row.
        """
        started = time.monotonic()
        yield from self._resume()
        before = self.state.elapsed
        while not self.state.finished:
            yield from self._epoch(started, before)
        self._put(self.best)

    def _epoch(self, started: float, before: float) -> Iterator[Event]:
        job, state = self.job, self.state
        begun = time.monotonic()
        job.learner.train()  # once: walking a large network takes milliseconds, judging is what ends it
        for update in job.stream.epoch(state.epoch, state.step):
            state.loss_sum += self._update(update)
            state.step += 1
            state.updates += 1
            while self.notices:
                yield self.notices.pop(0)
            yield Progress("train", state.updates, self.total, "updates", f"epoch {state.epoch + 1}")
            if self._is_due():
                state.elapsed = before + time.monotonic() - started
                self._save()
                if interruption.noted():  # recorded: the time until here counts when the run goes on
                    yield Notice("info", "interrupted", f"a checkpoint is written after update {state.updates}")
                interruption.check()
        try:
            evaluation = self._judge()
        except interruption.Interrupted:
            self._save()
            raise
        improved = self._note(evaluation)
        state.elapsed = before + time.monotonic() - started
        event = EpochDone(
            stage=job.stage,
            epoch=state.epoch + 1,
            epochs=job.settings.epochs,
            step=state.updates,
            train_loss=state.loss_sum / max(1, state.step),
            val_loss=float(evaluation.losses.mean()),
            val_metrics={metrics.name_of(job.metric): evaluation.metric(job.metric).value},
            lr=max(group["lr"] for group in self.optimizer.param_groups),
            seconds=time.monotonic() - begun,
            improved=improved,
        )
        state.history.append({**event.as_json(), "elapsed": state.elapsed})
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        yield event
        if reason := self._why_stop():
            state.finished = True
            if state.epoch < job.settings.epochs:
                yield Notice("info", "stopped-early", f"stopped after epoch {state.epoch}: {reason}")
        if self._is_due():
            self._save()

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint, on any rank."""
        return self.job.runtime.agree(time.monotonic() - self.saved > CHECKPOINT_SECONDS or interruption.noted())

    def trial(self, update: Update, scale: float) -> float:
        """One step at ``scale`` times the stage's rates, for the finder, which undoes it; the loss before the step."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        self.job.learner.train()
        loss = self._gradients(update)
        optimisers.clip(self.job.learner.parameters(), self.job.settings.clip)
        self.optimizer.step()
        self.job.runtime.average(self.job.learner)
        return loss

    def _update(self, update: Update) -> float:
        """One optimizer step on one effective batch; returns the mean loss."""
        job = self.job
        schedules.apply(self.optimizer, self.schedule, self.state.updates, self.total)
        loss = self._gradients(update, self._halved)
        norm = optimisers.clip(job.learner.parameters(), job.settings.clip)
        if not math.isfinite(loss) or not torch.isfinite(norm):
            raise blame.of(job.learner, update, loss, job.names, self._where())
        if not all(math.isfinite(group["lr"]) for group in self.optimizer.param_groups):
            raise TrainingError("the learning rate is not finite", where=self._where(), remedy="look at lr and rates")
        self.optimizer.step()
        job.runtime.average(job.learner)
        if self.ema is not None:
            self.ema.update(job.learner)
        return loss

    def _halved(self, micro: int) -> None:
        """Smaller parts from this step on: said, and written down first, so that a resumed run does the same."""
        self.state.micro_batch = micro
        self.notices.append(memory.told(micro))
        if self.job.runtime.world == 1:
            self._save()

    def _gradients(self, update: Update, on_halved: Callable[[int], None] = lambda micro: None) -> float:
        """Gradients of the mean loss, in as many parts as memory needs; returns that loss."""
        job, state = self.job, self.state
        if job.mixer is not None:
            key = (job.seed, job.stage, state.updates)
            update.inputs, update.targets = job.mixer(update.inputs, update.targets, key)
        loss, state.micro_batch = memory.halving(
            lambda micro: self._backward(update, micro),
            state.micro_batch,
            rewind=memory.rewinder(job.learner),
            on_halved=on_halved,
            where=f"stage {job.stage}",
        )
        return job.runtime.mean(loss)

    def _backward(self, update: Update, micro: int) -> float:
        job = self.job
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(keyed.torch_seed(job.seed, "layers", job.stage, self.state.updates, job.runtime.rank))
        total = update.total / job.runtime.world  # the ranks' gradients are averaged, not summed
        loss = 0.0
        parts = list(update.parts(micro))
        for index, part in enumerate(parts):
            with job.runtime.accumulating(self.wrapped, last=index == len(parts) - 1):
                with kernels.Quick():
                    value = self.wrapped(part.inputs, part.targets, total, part.frontier)
                job.runtime.backward(value)
            loss += float(value.detach())
        return loss

    def _where(self) -> str:
        return f"stage {self.job.stage}, epoch {self.state.epoch + 1}, update {self.state.updates + 1}"

    def _judge(self) -> Evaluation:
        self.job.learner.eval()
        if self.ema is None:
            return self.job.validate()
        with self.ema.applied(self.job.learner):
            return self.job.validate()

    def _note(self, evaluation: Evaluation) -> bool:
        """Keep the weights of the best epoch, by the stage's own metric or else what decides for the run."""
        metric = self.job.decides if self.job.settings.metric == "auto" else self.job.settings.metric
        value = evaluation.metric(metric).value
        if not math.isfinite(value):
            raise TrainingError(f"the metric {metrics.name_of(metric)} is {value}", where=self._where())
        score = value if metrics.higher_is_better(metric) else -value
        improved = score > self.state.best_score
        if improved:
            self.state.best_score, self.state.best_epoch, self.state.waited = score, self.state.epoch, 0
            self.best, self.judged = self._snapshot(), evaluation
            if told := blame.broken(self.best):  # what judges may hide it (see ``models.fusing``)
                raise TrainingError(told, where=self._where())
        else:
            self.state.waited += 1
        return improved

    def _why_stop(self) -> str:
        settings, state = self.job.settings, self.state
        if state.epoch >= settings.epochs:
            return "all epochs done"
        reason = ""
        if settings.patience is not None and state.waited >= settings.patience:
            reason = f"no improvement for {state.waited} epochs"
        late = settings.time_limit is not None and state.elapsed >= settings.time_limit
        late = late or (self.job.deadline is not None and time.monotonic() >= self.job.deadline)
        if self.job.runtime.agree(late):
            reason = reason or "the time is used up"
        return reason

    def _snapshot(self) -> dict[str, torch.Tensor]:
        """Copies of what this stage changes, averaged where there is an EMA."""
        if self.ema is not None:
            with self.ema.applied(self.job.learner):
                return _copies(self.job.learner)
        return _copies(self.job.learner)

    def _put(self, tensors: dict[str, torch.Tensor]) -> None:
        own = dict(self.job.learner.state_dict(keep_vars=True))
        if any(name not in own or own[name].shape != value.shape for name, value in tensors.items()):
            raise ArtefactError("the checkpoint is of other weights than train here", where=self._where())
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    def _save(self) -> None:
        job = self.job
        self.saved = time.monotonic()
        if job.checkpoints is None or not job.runtime.is_main:
            job.runtime.wait()
            return
        optimizer, settings = optimisers.state_tensors(self.optimizer)
        tensors = {f"now/{name}": value for name, value in _copies(job.learner).items()}
        tensors.update({f"best/{name}": value for name, value in self.best.items()})
        tensors.update({f"optimizer/{name}": value for name, value in optimizer.items()})
        if self.ema is not None:
            tensors.update({f"ema/{name}": value for name, value in self.ema.state_tensors().items()})
        facts = {"state": self.state.__dict__, "optimizer": settings, "choices": job.runtime.choices()}
        job.checkpoints.save(self.state.updates + (1 if self.state.finished else 0), tensors, facts)
        job.runtime.wait()

    def _resume(self) -> Iterator[Event]:
        found = self.job.checkpoints.latest() if self.job.checkpoints is not None else None
        if found is None:
            return
        tensors, facts = found
        try:
            state, choices = State(**facts["state"]), dict(facts["choices"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"not the checkpoint of a stage ({error})", where=self._where()) from error
        for name, now in self.job.runtime.choices().items():
            if (then := choices.get(name)) != now:
                yield Notice(
                    "warning", "resume-differs", f"{name} was {then} and is {now}: the result will not be bit-equal"
                )
        self._put(_part(tensors, "now/"))
        self.best = _part(tensors, "best/")
        optimisers.load_state(self.optimizer, _part(tensors, "optimizer/"), facts["optimizer"])
        if self.ema is not None:
            self.ema.load_tensors(_part(tensors, "ema/"))
        self.state = state
        yield Notice("info", "resumed", f"resumed at epoch {self.state.epoch + 1}, update {self.state.updates + 1}")


def _copies(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in moving(module).items()}


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
