"""What a task brings: a loss whose rows add up, so that a batch can be split in any way.

Shapes: B rows, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from headstart.core.errors import ConfigError


@runtime_checkable
class RowLoss(Protocol):
    """A loss without parameters. Divide by the rows of the *effective* batch: over its micro-batches, however uneven,
    and over its ranks, losses and gradients then add up to exactly those of the batch in one piece.
    """

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over rows of the loss of ``outputs`` (B, K); scalar."""
        ...


class Weighted(nn.Module):
    """What the losses of classes share: fixed smoothing and weights (a buffer: it follows the learner's device).

    Raises:
        ConfigError: smoothing outside [0, 1), or weights that are not positive.
    """

    class_weights: torch.Tensor | None

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"{label_smoothing} is outside [0, 1)", where="label_smoothing")
        if class_weights is not None and not all(math.isfinite(weight) and weight > 0 for weight in class_weights):
            raise ConfigError("class weights must be positive", where="class_weights")
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
