"""Learner: what one gradient step computes. Its forward *is* the loss, so that wrapping it for many ranks is safe.

Shapes: B rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from headstart.models import resume
from headstart.models.model import Model

POOLED = -1  # the frontier above the last block: pooled features, only the head is left


class Learner(nn.Module):
    """A model with its loss (a ``tasks.base.RowLoss``). ``finish()`` gives the plain model back."""

    def __init__(
        self, model: Model, loss: nn.Module, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.autocast = autocast

    def forward(self, inputs: Any, targets: torch.Tensor, total: float, frontier: int = 0) -> torch.Tensor:
        """Sum of the rows' losses over ``total``, the rows of the effective batch: the losses of its parts add up.

        ``inputs`` are pictures (B, C, H, W) for frontier 0, else what the frozen blocks gave; ``targets`` are class
        indices (B,) or soft targets (B, K).
        """
        with self.autocast():
            logits = logits_from(self.model, inputs, len(targets), frontier)
        return self.loss(logits, targets) / total

    def finish(self) -> Model:
        """The plain model, in evaluation mode, with nothing of the learner left."""
        return self.model.eval()


def logits_from(model: Model, inputs: Any, batch: int, frontier: int) -> torch.Tensor:
    """Logits (B, K) from pictures, from the output of block ``frontier - 1``, or from pooled features."""
    if frontier == POOLED:
        return model.head(inputs)
    if frontier == 0:
        return model(inputs)
    return model.head(resume.features_from(model.backbone, frontier, inputs, batch))
