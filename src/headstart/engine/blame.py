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
    for part in update.parts(1):
        loss = learner(part.inputs, part.targets, 1.0, part.frontier)
        if not loss.isfinite() or not _has_finite_gradients(learner, loss):  # a loss may hide a NaN (``models.fusing``)
            rows.extend(int(row) for row in part.rows)
    if not rows:
        return "no single row explains it"
    named = [names[row] if names else f"row {row}" for row in rows[:5]]
    return f"rows whose loss or gradient is not finite: {', '.join(named)}"


def _has_finite_gradients(learner: Learner, loss: torch.Tensor) -> bool:
    if not loss.requires_grad:
        return True
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    return all(value is None or bool(value.isfinite().all()) for value in found)
