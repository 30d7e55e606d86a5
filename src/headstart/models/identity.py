"""What a network is: its weights by their bytes, and its forward by what it answers to the same noise.

Equal weights alone tell too little: the same layers may be called in another order, or pooled in another way.

Shapes: D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart.models import resume

if TYPE_CHECKING:
    from headstart.models.backbone import Backbone


def digest(named: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, in the order given."""
    found = hashlib.sha256()
    for name, value in named:
        plain = value.detach().to("cpu").contiguous()
        found.update(f"{name}|{plain.dtype}|{tuple(plain.shape)}|".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def answers(backbone: Backbone) -> Tensor:
    """Features (2, D) of the noise, float32 on the CPU; computed where the backbone is."""
    with resume.evaluating(backbone), torch.no_grad():
        return backbone.features(torch.from_numpy(backbone.spec.noise(2)).to(backbone.device)).float().cpu()
