"""Why a step gave a number that is not finite: the rows, the weights, or nothing that can be named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from headstart.core.errors import TrainingError
from headstart.engine.streams import Update
from headstart.stages.learner import Learner


def of(learner: Learner, update: Update, loss: float, names: Sequence[str], where: str) -> TrainingError:
    """The error that says so; the learner is left in eval mode, its weights are those of the last good step."""
    kind = "the loss" if not math.isfinite(loss) else "a gradient"
    return TrainingError(
        f"{kind} is not finite (loss {loss}); {_cause(learner, update, names)}",
        where=where,
        remedy="lower lr, or precision=fp32, or look at these rows; nothing was stepped or saved with it",
    )


def broken(tensors: Mapping[str, torch.Tensor]) -> str:
    """Which weights or buffers are not finite, in words; empty where all are."""
    found = [name for name, value in tensors.items() if not value.isfinite().all()]
    return f"weights or buffers are not finite themselves: {', '.join(found[:3])}" if found else ""


def _cause(learner: Learner, update: Update, names: Sequence[str]) -> str:
    if told := broken(learner.state_dict()):
        return told
    learner.eval()  # row by row: batch statistics of a single row do not exist
    rows: list[int] = []
    for part in update.parts(1):  # with gradients, as it was computed: without them a network may hide a NaN (fusing)
        if not torch.isfinite(learner(part.inputs, part.targets, 1.0, part.frontier).detach()):
            rows.extend(int(row) for row in part.rows)
    if not rows:
        return "no single row explains it"
    named = [names[row] if names else f"row {row}" for row in rows[:5]]
    return f"rows with a loss that is not finite: {', '.join(named)}"
