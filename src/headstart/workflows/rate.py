"""``find_lr``: the learning rate of a stage, found by sweeps before it begins."""

from __future__ import annotations

from pathlib import Path

from headstart.core import manifest
from headstart.core.errors import TrainingError
from headstart.core.events import Decision
from headstart.engine import finder
from headstart.engine.features import Emit
from headstart.engine.loop import Job, Loop

SWEEP = {"start": 1e-6, "end": 1.0, "steps": 60, "repeats": 2}  # of the learning-rate finder


def find(job: Job, file: Path, emit: Emit) -> None:
    """Scale the rates of a job to what sweeps find; written to ``file`` before first use, replayed on resume."""
    scale, given = 1.0, job.settings.lr
    if file.is_file():
        scale = manifest.read_json(file)["scale"]
    else:
        try:
            found = finder.sweep(Loop(job), **SWEEP)
            scale, facts = found.lr / given, found.to_json()
            reason = f"between {found.low:.1e} and {found.high:.1e} the loss makes its fall, in every sweep"
        except TrainingError as error:
            facts, reason = {}, f"kept as it was: {error.problems[0].what}"
        if job.runtime.is_main:
            manifest.write_json(file, {"scale": scale, **facts})
        emit(Decision(f"lr of {job.settings.title}", f"{scale * given:.2e}", reason, facts))
    for group in job.groups:
        group["base_lr"] *= scale
        group["lr"] = group["base_lr"]
