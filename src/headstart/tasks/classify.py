"""Classification: cross-entropy with smoothing, class weights and soft targets, one exact definition for all of them.

Shapes: B rows, K classes. Targets are class indices (B,) int64 or shares (B, K) float whose rows sum to 1.

With one-hot (or soft) targets y, class weights w (all 1 without) and smoothing s:

    loss = sum_ik w_k y'_ik (-log p_ik) / B        where y' = (1 - s) y + s / K

That is torch's ``cross_entropy`` with soft targets, and without weights also with indices. For *weighted* indices torch
divides by the weights of the rows at hand instead, so that the same classes given as indices and as one-hot rows would
give different losses, and a rare row another gradient in every batch. Here they agree: weights have a mean of 1 over
the training rows (``balance.class_weights``), so the mean over rows is the right one without looking at the batch.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from headstart.core.errors import TrainingError
from headstart.tasks.base import Weighted


def loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
    total: float | None = None,
) -> torch.Tensor:
    """Scalar loss of logits (B, K), in nats: the sum over rows divided by ``total``, default B.

    Give the rows of the effective batch as ``total`` where this batch is a part of it.

    Raises:
        TrainingError: targets of the wrong shape or type.
    """
    _check(logits, targets, class_weights)
    if targets.ndim == 2:
        targets = targets.to(logits.dtype)
    summed = functional.cross_entropy(logits, targets, class_weights, reduction="sum", label_smoothing=label_smoothing)
    return summed / (len(logits) if total is None else total)


class Loss(Weighted):
    """``loss`` as the sum over rows."""

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over rows of the loss of logits (B, K), in float32."""
        return loss(
            outputs.float(), targets, label_smoothing=self.label_smoothing, class_weights=self.class_weights, total=1.0
        )


def _check(logits: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None) -> None:
    rows, classes = logits.shape
    if targets.shape not in ((rows,), (rows, classes)):
        raise TrainingError(f"targets {tuple(targets.shape)} do not fit logits {tuple(logits.shape)}")
    if targets.ndim == 1 and targets.is_floating_point():
        raise TrainingError(f"class indices must be integers, not {targets.dtype}")
    if class_weights is not None and class_weights.shape != (classes,):
        raise TrainingError(f"{len(class_weights)} class weights for {classes} classes")
