"""What one step of contrastive fine-tuning computes.

Shapes: P pairs, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from headstart.models.model import Model


class Contraster(nn.Module):
    """A model whose features of two rows are compared; ``finish()`` gives the plain model back, its head as it was."""

    def __init__(self, model: Model, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        super().__init__()
        self.model = model
        self.autocast = autocast

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor, total: float, frontier: int = 0) -> torch.Tensor:
        """Squared distance of the cosine from its target, summed over pairs (P, 2, …) and divided by ``total``.

        That is sentence-transformers' CosineSimilarityLoss.
        """
        with self.autocast():
            features = self.model.backbone.features(inputs.flatten(0, 1)).float().unflatten(0, (-1, 2))
        cosine = nn.functional.cosine_similarity(features[:, 0], features[:, 1])
        return (cosine - targets).square().sum() / total

    def finish(self) -> Model:
        """The plain model, in evaluation mode."""
        return self.model.eval()
