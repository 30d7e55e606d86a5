"""What one step of continued pretraining computes: the cross-entropy of hidden words.

Shapes: B rows, T tokens, M hidden tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from headstart.data.texts.masking import IGNORED
from headstart.models import masked
from headstart.models.model import Model


class Restorer(nn.Module):
    """A model with the head of its backbone's family that restores words; ``finish()`` gives the plain model back."""

    def __init__(
        self, model: Model, seed: int, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        super().__init__()
        self.model = model
        self.words = masked.head(model.backbone, seed)
        self.autocast = autocast

    def forward(self, inputs: Any, targets: torch.Tensor, total: float, frontier: int = 0) -> torch.Tensor:
        """Sum of the losses of hidden tokens over ``total``, those of the effective batch."""
        return self.losses(inputs, targets)[0].sum() / total

    def losses(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every hidden token (M,) of tokens (B, 2, T), and its row (M,)."""
        with self.autocast():
            return masked.losses(self.model.backbone, self.words, inputs, targets)

    def spare(self) -> None:
        """Freeze what restoring words does not reach, such as a pooler: ranks wait for the gradient of all that trains.

        Measured on noise, as is what features do not reach.
        """
        inputs = torch.from_numpy(self.model.backbone.spec.noise(2)).to(self.model.backbone.device)
        targets = torch.full_like(inputs[:, 0], IGNORED, dtype=torch.int64)
        targets[:, 0] = inputs[:, 0, 0]
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(self(inputs, targets, 1.0), trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def finish(self) -> Model:
        """The plain model, in evaluation mode."""
        return self.model.eval()
