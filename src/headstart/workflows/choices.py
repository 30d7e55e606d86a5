"""Choices that this machine makes: written down before first use, and replayed when the run is resumed.

A resumed run must not measure anew: another precision, or a frontier that is cached now and was not then, would change
what is trained.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from headstart import __version__
from headstart.core import keyed
from headstart.core.errors import ArtefactError
from headstart.core.events import Decision, Notice
from headstart.core.machine import processor
from headstart.core.plural import plural
from headstart.core.remembered import Remembered
from headstart.core.run import Run
from headstart.data import canvases
from headstart.stages.base import Stage, Training
from headstart.stages.methods import probe
from headstart.workflows.materials import Decoded, Emit, phase

if TYPE_CHECKING:
    from headstart.engine.frontier import Frontiers
    from headstart.engine.precision import Precision
    from headstart.experiment import Experiment
    from headstart.models.inference import Copies
    from headstart.models.model import Model

FILE = "choices.json"
CACHE_SHARE = 0.25  # of the memory that is free: what frontier caches may take
TIMED_ROWS = 4  # of the batch that is timed
FEW_ROWS = 128  # that pass the network: timing takes as long there as bf16 saves (80 recordings, 4.7 s either way)
PRECISIONS = ("fp32", "bf16")


def settle(
    run: Run,
    frontiers: Frontiers,
    decoded: Decoded,
    stages: Sequence[Stage],
    experiment: Experiment,
    emit: Emit,
) -> None:
    """Measure what this run goes by, or take it from its folder; the runtime and the frontiers do so from here on."""
    runtime, stored = frontiers.runtime, run.read(FILE)
    if stored is None:
        free = frontier_budget(experiment)
        name = _remembered(frontiers, decoded, stages, experiment, emit)
        stored = {"precision": runtime.tell(name), "frontier_bytes": int(runtime.tell(str(free)))}  # the first rank's
        if runtime.is_main:
            run.write(FILE, stored)
    try:
        name, frontiers.budget = stored["precision"], int(stored["frontier_bytes"])
        runtime.precision = PRECISIONS[PRECISIONS.index(name)]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError("not the choices of a run", where=str(run.path / FILE)) from error


def frontier_budget(experiment: Experiment) -> int:
    """Bytes that a frontier cache may take now."""
    limit = experiment.cache_budget
    return int(canvases.free_bytes() * CACHE_SHARE) if limit is None else int(limit * 1e9)


def _remembered(
    frontiers: Frontiers, decoded: Decoded, stages: Sequence[Stage], experiment: Experiment, emit: Emit
) -> str:
    """The precision that this machine chose for this network once: a noisy moment must not give another model.

    Kept in the cache folder by processor, threads, torch, architecture, input and kind of work, of passes by weights
    and rows too, which may bear no bf16; removing ``precision.json`` there has it measured anew.
    """
    import torch

    trains = any(isinstance(stage, Training) for stage in stages)
    if experiment.precision != "auto":
        return _asked(frontiers, decoded, trains, experiment.precision, emit)
    views = [stage.views for stage in stages if isinstance(stage, probe.Settings)]
    passing = len(decoded.splits.train) * max(views, default=1)
    if not trains and passing < FEW_ROWS:
        reason = f"{plural(passing, 'row passes', 'rows pass')} the network: to time others takes as long as they save"
        emit(Decision("precision", "fp32", reason))
        return "fp32"
    backbone = frontiers.model.backbone
    name, features = processor()
    facts = (name, *features, str(os.cpu_count()), str(torch.get_num_threads()))
    work = "train" if trains else frontiers.key(decoded.examples("train"))
    built = json.dumps([backbone.architecture, backbone.spec.input_shape, str(backbone.device), work], default=str)
    key = f"{keyed.digest(*facts, str(torch.__version__), __version__, built):032x}"
    earlier = Remembered(canvases.default_folder() / "precision.json")
    if (known := earlier.get(key)) in PRECISIONS:
        emit(Decision("precision", known, "measured by an earlier run on this machine"))
        return str(known)
    chosen = _measured(frontiers, decoded, trains, "auto", emit)
    if frontiers.runtime.is_main:
        earlier.put(key, chosen)
    return chosen


def _asked(frontiers: Frontiers, decoded: Decoded, trains: bool, asked: str, emit: Emit) -> str:
    """The precision that the user names; one step of training shows whether it runs here, a pass finds its own way."""
    from headstart.engine import precision

    if asked != "fp32" and (ruled := precision.hopeless(frontiers.runtime.device)):
        remedy = "leave precision out, or precision=fp32"
        emit(Notice("warning", "precision", f"precision={asked} was asked for, and {ruled[asked]}", remedy))
    if asked != "fp32" and trains:
        return _measured(frontiers, decoded, trains, asked, emit)
    emit(Decision("precision", asked, f"{asked} was asked for"))
    return asked


def _measured(frontiers: Frontiers, decoded: Decoded, trains: bool, wanted: str, emit: Emit) -> str:
    """bf16 only where one step of what the plan does is measured to be faster in it here."""
    from headstart.engine import precision

    backbone = frontiers.model.backbone
    candidates = [precision.Precision(name, channels_last=backbone.modality == "image") for name in PRECISIONS]
    with phase(emit, "precision"), _step(frontiers, decoded, trains, emit) as step:
        ruled = precision.hopeless(backbone.device) if wanted == "auto" else {}
        what = "a training step" if trains else "a feature pass"
        choice, decision = precision.choose(
            step, wanted=wanted, candidates=candidates, without=ruled, what=what, rounds=2
        )
    if not trains and choice.name == "fp32":
        frontiers.copies(decoded.examples("train")).forget(precision.DTYPES["bf16"])
    emit(decision)
    return choice.name


@contextmanager
def _step(frontiers: Frontiers, decoded: Decoded, trains: bool, emit: Emit) -> Iterator[Callable[[Precision], float]]:
    """One step of what the plan does: of training, or a pass of the copies that give the features."""
    if not trains:
        yield partial(_pass, frontiers.copies(decoded.examples("train")))
        return
    from headstart.engine import memory
    from headstart.engine.streams import few
    from headstart.models import merging

    model, rows = frontiers.model, TIMED_ROWS
    inputs = few(decoded.examples("train"), TIMED_ROWS, frontiers.runtime.device)
    model.thaw("all")

    def step(candidate: Precision) -> float:
        nonlocal rows
        loss, rows = memory.halving(
            lambda part: _update(model, inputs[:part], candidate),
            rows,
            on_halved=lambda part: emit(memory.told(part)),
            where="precision",
        )
        return loss

    with merging.merged(model.backbone):
        yield step


def _update(model: Model, inputs: Any, candidate: Precision) -> float:
    """One step of training, which changes nothing; returns its loss."""
    from headstart.models import kernels

    model.eval()
    with candidate.autocast(model.backbone.device), kernels.Quick():
        loss = model(inputs).float().logsumexp(1).mean()
    loss.backward()
    model.zero_grad(set_to_none=True)
    return float(loss.detach())


def _pass(copies: Copies, candidate: Precision) -> float:
    """A pass of the copy that computes in this precision, by all threads; returns what can be told from its features.

    The first of a copy is the one that checks it, on the same rows.

    Raises:
        RuntimeError: no copy computes in it, with the reason.
    """
    import torch

    from headstart.engine.precision import DTYPES

    dtype = DTYPES[candidate.name]
    warm = dtype in copies
    fast, done = copies.of(dtype)
    if done.dtype != dtype:
        raise RuntimeError(done.notes[-1])
    if not warm:
        return done.gap
    with torch.no_grad():
        return float(fast.features(copies.sample).sum())
