"""What a stage can change: one answer for the best epoch's snapshot, the checkpoint and the moving average."""

from __future__ import annotations

import torch
from torch import nn


def moving(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that train, and the persistent buffers of every module that can move, by their names in
    ``state_dict``; the tensors themselves, not copies.

    A module can move when it has a trainable parameter of its own, or when ``module.train()`` puts it in training
    mode: frozen BatchNorm under ``bn: train`` trains no parameter, yet its running statistics follow the data.
    """
    found: dict[str, torch.Tensor] = {name: p for name, p in module.named_parameters() if p.requires_grad}
    persistent = set(module.state_dict())
    modes = [(part, part.training) for part in module.modules()]
    module.train()
    for prefix, part in module.named_modules():
        if part.training or any(p.requires_grad for p in part.parameters(recurse=False)):
            buffers = part.named_buffers(prefix, recurse=False)
            found.update({name: buffer for name, buffer in buffers if name in persistent})
    for part, mode in modes:
        part.training = mode
    return found
