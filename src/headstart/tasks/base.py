"""What a task brings: a loss whose rows add up, so that a batch can be split in any way.

Shapes: B rows, K outputs.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch


@runtime_checkable
class RowLoss(Protocol):
    """A loss without parameters. Divide by the rows of the *effective* batch: over its micro-batches, however uneven,
    and over its ranks, losses and gradients then add up to exactly those of the batch in one piece.
    """

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over rows of the loss of ``outputs`` (B, K); scalar."""
        ...
