"""What a network returned, as features.

Shapes: B rows, T places (tokens, frames), D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from headstart.core.errors import BackboneError

REMEDY = "return floats: features (B, D), a sequence (B, T, D), or of pictures maps (B, D, height, width)"


def tensor_of(output: Any) -> Tensor:
    """The tensor that holds the features in whatever a network returns.

    Named outputs: ``logits`` (the classifier was taken off, so they are what it saw), ``pooler_output``, else the
    first value.

    Raises:
        BackboneError: no tensor is in it, or one of another shape.
    """
    for name in ("logits", "pooler_output"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    found = output if isinstance(output, Tensor) else next(iter(tree_leaves(output)), None)
    if not isinstance(found, Tensor):
        what = f"the network returns a {type(output).__name__}, in which no tensor comes first"
        raise BackboneError(what, where="backbone", remedy=REMEDY)
    if found.dim() not in (2, 3, 4):
        what = f"the network returns a tensor of shape {tuple(found.shape)}, which are no features"
        raise BackboneError(what, where="backbone", remedy=REMEDY)
    return found


def pooled(output: Any) -> Tensor:
    """Features (B, D): maps (B, D, H, W) are averaged over places, sequences (B, T, D) over tokens."""
    found = tensor_of(output)
    if found.dim() == 4:
        return found.mean(dim=(2, 3))
    return found.mean(dim=1) if found.dim() == 3 else found


def mean_over(sequence: Tensor, real: Tensor) -> Tensor:
    """Mean (B, D), float32, of a sequence (B, T, D) over the places that ``real`` (B, T) marks; one at least."""
    weights = real.to(torch.float32).unsqueeze(-1)
    return (sequence.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1.0)
