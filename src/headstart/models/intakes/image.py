"""Pictures: uint8 to normalised floats, maps pooled to features.

Shapes: B rows, C channels, H height, W width, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headstart.data.modalities.image import ImageSpec
from headstart.models.intakes.output import pooled


class Intake(nn.Module):
    """Normalises with the backbone's mean and std inside the network, so that every path feeds it the same bytes."""

    CALL = "module(pictures), normalised floats (B, C, H, W)"
    ragged = False

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.scale: Tensor
        self.offset: Tensor
        shape = (1, -1, 1, 1)
        self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std, dtype=torch.float32).view(shape), persistent=False)
        self.register_buffer("scale", 1 / (255 * self.std), persistent=False)
        self.register_buffer("offset", self.mean / self.std, persistent=False)

    def normalise(self, inputs: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to float with the backbone's mean and std; floats are taken as normalised already."""
        if inputs.is_floating_point():
            return inputs
        return inputs * self.scale - self.offset  # (inputs / 255 - mean) / std, in two passes instead of four

    def forward(
        self,
        module: nn.Module,
        inputs: Tensor,
        call: Mapping[str, Any],
        *,
        lengths: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> Tensor:
        """Features (B, D) of pictures (B, C, H, W)."""
        inputs = self.normalise(inputs)
        if channels_last or dtype != torch.float32:
            layout = torch.channels_last if channels_last else torch.preserve_format
            return pooled(module(inputs.to(dtype, memory_format=layout), **call)).float()
        return pooled(module(inputs, **call))
