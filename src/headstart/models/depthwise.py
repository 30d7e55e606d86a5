"""Depthwise convolutions with a stride, in bf16 on a CPU: their gradient for the inputs is computed in fp32.

oneDNN has no fast bf16 kernel for that one gradient. Measured on two cores of a server CPU with AMX, for 16 maps of
96 x 112 x 112 and a 3 x 3 kernel: 64 ms in bf16, 5 ms in fp32; a training step of MobileNetV2, which has four of them,
took a third less time. Rounded once at the end, the gradient is nearer to the exact one, too.

Shapes: B rows, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_backward = torch.ops.aten.convolution_backward


def convolve(conv: nn.Conv2d, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What ``conv`` would give for ``maps`` (B, C, H, W) if its weights were ``weight`` and its bias ``bias``."""
    in_bf16 = maps.dtype == torch.bfloat16 or (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )
    slow = in_bf16 and maps.device.type == "cpu" and torch.is_grad_enabled() and maps.requires_grad
    strided = max(conv.stride) > 1 and conv.groups == conv.in_channels > 1
    if not (slow and strided and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)):
        return conv._conv_forward(maps, weight, bias)
    settings = (conv.stride, conv.padding, conv.dilation, conv.groups)
    with torch.autocast("cpu", enabled=False):
        low = (maps.to(torch.bfloat16), weight.to(torch.bfloat16), bias.to(torch.bfloat16))
        return _Strided.apply(*low, settings)


class _Strided(torch.autograd.Function):
    """A convolution whose gradient for its inputs is computed in fp32."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, settings: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.settings = settings
        stride, padding, dilation, groups = settings
        return nn.functional.conv2d(maps, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        common = (stride, padding, dilation, False, (0, 0), groups)
        inputs = None
        if ctx.needs_input_grad[0]:
            shape = torch.empty((), dtype=torch.float32).expand(maps.shape)  # only its shape counts
            inputs = _backward(gradient.float(), shape, weight.float(), None, *common, (True, False, False))[0]
            inputs = inputs.to(maps.dtype)
        own = _backward(gradient, maps, weight, [weight.shape[0]], *common, (False, *ctx.needs_input_grad[1:3]))
        return inputs, own[1], own[2], None
