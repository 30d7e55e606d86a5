"""Choices that this machine makes: written down before first use, and replayed when the run is resumed.

A resumed run must not measure anew: another precision, or a frontier that is cached now and was not then, would change
what is trained.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from headstart import __version__
from headstart.core import keyed
from headstart.core.errors import ArtefactError
from headstart.core.events import Decision, Notice
from headstart.core.machine import processor
from headstart.core.remembered import Remembered
from headstart.core.run import Run
from headstart.data import canvases
from headstart.stages.base import Stage, Training
from headstart.workflows.materials import Decoded, Emit, few, phase

if TYPE_CHECKING:
    from headstart.engine.runtime import Runtime
    from headstart.experiment import Experiment
    from headstart.models.model import Model

FILE = "choices.json"
CACHE_SHARE = 0.25  # of the memory that is free: what frontier caches may take
TIMED_ROWS = 4  # of the batch that is timed


@dataclass(frozen=True)
class Choices:
    """``precision`` is fp32 or bf16; ``frontier_bytes`` the budget of all frontiers that are kept."""

    precision: str
    frontier_bytes: int


def settle(
    run: Run,
    runtime: Runtime,
    model: Model,
    decoded: Decoded,
    stages: Sequence[Stage],
    experiment: Experiment,
    emit: Emit,
) -> Choices:
    """The choices of this run, measured now or taken from its folder; the runtime works by them from here on."""
    stored = run.read(FILE)
    if stored is not None:
        try:
            choices = Choices(str(stored["precision"]), int(stored["frontier_bytes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError("not the choices of a run", where=str(run.path / FILE)) from error
    else:
        free = frontier_budget(experiment)
        name = _remembered(runtime, model, decoded, stages, experiment, emit)
        choices = Choices(runtime.tell(name), int(runtime.tell(str(free))))  # every rank takes the first one's
        if runtime.is_main:
            run.write(FILE, asdict(choices))
    runtime.precision = choices.precision
    return choices


def frontier_budget(experiment: Experiment) -> int:
    """Bytes that a frontier cache may take now."""
    limit = experiment.cache_budget
    return int(canvases.free_bytes() * CACHE_SHARE) if limit is None else int(limit * 1e9)


def _remembered(
    runtime: Runtime, model: Model, decoded: Decoded, stages: Sequence[Stage], experiment: Experiment, emit: Emit
) -> str:
    """The precision that this machine chose for this network once: a noisy moment must not give another model.

    Kept in the cache folder by processor, threads, torch, architecture, input and kind of work; removing
    ``precision.json`` there has it measured anew.
    """
    import torch

    if experiment.precision != "auto":
        return _precision(runtime, model, decoded, stages, experiment, emit)
    backbone = model.backbone
    name, features = processor()
    facts = (name, *features, str(os.cpu_count()), str(torch.get_num_threads()))
    work = "train" if any(isinstance(stage, Training) for stage in stages) else "features"
    built = json.dumps([backbone.architecture, backbone.spec.input_shape, str(runtime.device), work], default=str)
    key = f"{keyed.digest(*facts, str(torch.__version__), __version__, built):032x}"
    earlier = Remembered(canvases.default_folder() / "precision.json")
    if (known := earlier.get(key)) in ("fp32", "bf16"):
        emit(Decision("precision", known, "measured by an earlier run on this machine"))
        return str(known)
    name = _precision(runtime, model, decoded, stages, experiment, emit)
    if runtime.is_main:
        earlier.put(key, name)
    return name


def _precision(
    runtime: Runtime, model: Model, decoded: Decoded, stages: Sequence[Stage], experiment: Experiment, emit: Emit
) -> str:
    """bf16 only where one step of what the plan does is measured to be faster in it here."""
    import torch

    from headstart.engine import memory, precision
    from headstart.models import kernels, merging

    trains = any(isinstance(stage, Training) for stage in stages)
    inputs, rows = few(decoded, runtime, TIMED_ROWS), TIMED_ROWS
    model.thaw("all")

    def timed(candidate: precision.Precision, rows: int) -> float:
        model.eval()
        with torch.set_grad_enabled(trains), candidate.autocast(runtime.device), kernels.Quick():
            loss = model(inputs[:rows]).float().logsumexp(1).mean()
        if trains:
            loss.backward()
            model.zero_grad(set_to_none=True)
        return float(loss.detach())

    def step(candidate: precision.Precision) -> float:
        nonlocal rows
        loss, rows = memory.halving(
            lambda part: timed(candidate, part), rows, on_halved=lambda part: emit(memory.told(part)), where="precision"
        )
        return loss

    pictures = model.backbone.modality == "image"
    candidates = [precision.Precision(name, channels_last=pictures) for name in ("fp32", "bf16")]
    asked = experiment.precision
    with phase(emit, "precision"), merging.merged(model.backbone):
        ruled = {} if asked == "fp32" else precision.hopeless(runtime.device)
        if asked in ruled:
            remedy = "leave precision out, or precision=fp32"
            emit(Notice("warning", "precision", f"precision={asked} was asked for, and {ruled[asked]}", remedy))
        choice, decision = precision.choose(step, wanted=asked, candidates=candidates, without=ruled, rounds=2)
    emit(decision)
    return choice.name
