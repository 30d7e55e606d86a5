"""Why a step gave a number that is not finite: the rows, the weights, or nothing that can be named."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def _cause(learner: Learner, update: Update, names: Sequence[str]) -> str:
    broken = [name for name, value in learner.state_dict().items() if not value.isfinite().all()]
    if broken:
        return f"weights or buffers are not finite themselves: {', '.join(broken[:3])}"
    learner.eval()  # row by row: batch statistics of a single row do not exist
    rows: list[int] = []
    with torch.no_grad():
        for part in update.parts(1):
            if not torch.isfinite(learner(part.inputs, part.targets, 1.0, part.frontier)):
                rows.extend(int(row) for row in part.rows)
    if not rows:
        return "no single row explains it"
    told = [names[row] if names else f"row {row}" for row in rows[:5]]
    return f"rows with a loss that is not finite: {', '.join(told)}"
