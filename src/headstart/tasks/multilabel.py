"""Several labels a row, or none: binary cross-entropy of every label, with smoothing, weights and soft targets.

Shapes: B rows, K labels. Targets are (B, K): 0 or 1, or shares between them.

With targets y, weights w of what is true (all 1 without) and smoothing s:

    loss = sum_ik (w_k y'_ik (-log p_ik) + (1 - y'_ik) (-log (1 - p_ik))) / B        where y' = (1 - s) y + s / 2

That is torch's ``binary_cross_entropy_with_logits`` with ``pos_weight``, summed over labels, so that a label costs the
same whether it stands alone or beside hundreds, and starts at K ln 2 where the head is zero.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from headstart.core.errors import TrainingError
from headstart.tasks.base import Weighted


class Loss(Weighted):
    """The sum over rows."""

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over rows of the loss of logits (B, K), in float32.

        Raises:
            TrainingError: targets of another shape.
        """
        if targets.shape != outputs.shape:
            raise TrainingError(f"targets {tuple(targets.shape)} do not fit logits {tuple(outputs.shape)}")
        soft = targets.float() * (1 - self.label_smoothing) + self.label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(
            outputs.float(), soft, pos_weight=self.class_weights, reduction="sum"
        )
