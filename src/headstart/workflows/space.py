"""Room on the disk, asked for before the first stage: a full disk must not be found after a night of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from headstart.core import storage
from headstart.core.errors import ArtefactError
from headstart.core.events import Event, Notice
from headstart.core.run import Run
from headstart.data import canvases
from headstart.stages.base import Stage, Training

if TYPE_CHECKING:
    from headstart.models.model import Model

OTHERS = 2_000_000  # bytes: predictions, previews, events, the report


def insist(run: Run, model: Model, stages: Sequence[Stage]) -> None:
    """Refuse where the run would not fit; what it wrote before an interruption counts.

    Raises:
        ArtefactError: with the bytes that are needed and those that are free.
    """
    there = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    storage.insist(run.path, max(0, needed(model, stages) - there), "the run")


def warn_of_cache(emit: Callable[[Event], None]) -> None:
    """Say it where nothing can be kept for a later run, and every one will compute all of it again."""
    try:
        storage.insist_writable(canvases.default_folder(), "HEADSTART_CACHE")
    except ArtefactError as error:
        problem = error.problems[0]
        what = f"nothing is kept for a later run: {problem.where}: {problem.what}"
        emit(Notice("warning", "cache", what, "set HEADSTART_CACHE to a folder of your own with some room"))


def needed(model: Model, stages: Sequence[Stage]) -> int:
    """Bytes of disk at the worst moment: all stages kept, the model, and the largest stage writing a checkpoint."""
    from headstart.engine.checkpoint import KEPT

    whole = sum(value.nbytes for value in model.state_dict().values())
    training = [stage for stage in stages if isinstance(stage, Training)]
    largest = max((checkpoint(model, stage) for stage in training), default=0)
    return OTHERS + whole * (len(training) + 2) + largest * (KEPT + 1)


def checkpoint(model: Model, stage: Training) -> int:
    """Bytes of one checkpoint: the weights now, the best, the moments of the optimizer, the average."""
    from headstart.engine.moving import moving

    model.thaw(**stage.thawed)
    size = sum(value.nbytes for value in moving(model).values())
    return size * (2 + (1 if stage.optimizer == "sgd" else 2) + (1 if stage.ema else 0))
