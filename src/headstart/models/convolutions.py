"""A convolution on a CPU with the activation after it, and quicker ways to its gradients than torch's own.

Measured on two cores of a server CPU with AMX, 16 rows at 224 pixels, bf16:

- **A clamp after a convolution** (ReLU, ReLU6) is computed while oneDNN writes the maps, and its gradient told from
  them: by itself it reads and writes all maps once more, and in place ReLU6 also keeps a copy of them. A training step
  of MobileNetV2 takes 1.25 times as long with them outside.
- **Strided depthwise convolutions** (96 x 112 x 112, kernel 3 x 3): their gradient for the inputs has no bf16 kernel in
  oneDNN: 64 ms, in fp32 24 ms with the conversions, 4 ms as a convolution of stride 1. MobileNetV2 has four of them, a
  third of its training step.
- **Many weights and few places** (512 x 512 x 3 x 3 over 7 x 7): the gradient for the weights takes 8.3 ms, as one
  product of matrices 2.7 ms. ResNet-18 has four of them, ResNet-50 nine.

Shapes: B rows, C channels in, O channels out, H x W places, K x L the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

OPERATION = "_convolution_pointwise"  # of oneDNN, which torch's own compiler takes
LARGE, FEW = 2**20, 2048  # weights at least and places at most, of all rows, for which one product is quicker

Pair = tuple[int, int]

_backward = torch.ops.aten.convolution_backward


@dataclass(frozen=True)
class Activation:
    """An activation as oneDNN knows it."""

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""

    def is_told_by_answers(self, dtype: torch.dtype) -> bool:
        """Whether the gradient can be told from what it gives: of a clamp whose edges are numbers of that type, else
        values that are rounded onto an edge would pass for those beyond it."""
        edges = torch.tensor(self.scalars, dtype=dtype).tolist()
        return self.name in ("relu", "hardtanh") and (dtype != torch.bfloat16 or edges == list(self.scalars))

    def gradient(self, gradient: Tensor, given: Tensor) -> Tensor:
        """That for what a clamp was given, by that for what it gave, ``given``."""
        if self.name == "relu":
            return torch.ops.aten.threshold_backward(gradient, given, 0)  # type: ignore[no-any-return]
        low, high = self.scalars
        return torch.ops.aten.hardtanh_backward(gradient, given, low, high)  # type: ignore[no-any-return]


class Settings(NamedTuple):
    """What ``conv2d`` takes beside maps and weights, padding as numbers."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @classmethod
    def of(cls, stride: Any, padding: Any, dilation: Any, groups: int) -> Settings:
        """From what torch takes: a number, or one for each side."""
        pairs: list[Pair] = [
            (each, each) if isinstance(each, int) else (each[0], each[-1]) for each in (stride, padding, dilation)
        ]
        return cls(pairs[0], pairs[1], pairs[2], groups)


def has_quicker_gradients(maps: Tensor, weight: Tensor, settings: Settings) -> bool:
    """Whether those of this convolution, if it is computed in bf16, are found in another way than torch's."""
    spread = maps.requires_grad and _is_spread(weight, settings)
    return spread or (weight.requires_grad and _is_product(maps.shape, weight, settings))


def activated(maps: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings, after: Activation) -> Tensor:
    """The convolution (B, O, H, W) and ``after``, where no gradient is asked for; all of one type, bf16 or fp32."""
    stride, padding, dilation, groups = settings
    operation = getattr(torch.ops.mkldnn, OPERATION)
    found: Tensor = operation(
        *(maps, weight, bias, padding, stride, dilation, groups),
        *(after.name, after.scalars, after.algorithm),
    )
    return found


def trained(
    maps: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings, after: Activation | None = None
) -> Tensor:
    """The convolution (B, O, H, W), and a clamp ``after`` it, whose gradients take the quicker ways; all of one type.

    With a clamp, what it gives must not be changed in place before the backward pass, as with ReLU.
    """
    found: Tensor = _Convolution.apply(maps, weight, bias, settings, after)
    return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings, after: Activation | None
    ) -> Tensor:
        ctx.settings, ctx.after = settings, after
        if after is None:
            ctx.save_for_backward(maps, weight)
            return F.conv2d(maps, weight, bias, *settings)
        found = activated(maps, weight, bias, settings, after)
        ctx.save_for_backward(maps, weight, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, *given = ctx.saved_tensors
        settings: Settings = ctx.settings
        if given:
            gradient = ctx.after.gradient(gradient, given[0])
        wanted, in_bf16 = ctx.needs_input_grad[:3], weight.dtype == torch.bfloat16
        inputs = weights = biases = None
        if in_bf16 and wanted[0] and _is_spread(weight, settings):
            inputs = _spread(gradient, maps.shape, weight, settings)
        if in_bf16 and wanted[1] and _is_product(maps.shape, weight, settings):
            weights = _product(gradient, maps, weight, settings)
            biases = gradient.sum((0, 2, 3)) if wanted[2] else None  # for it torch would compute all weights' again
        found: tuple[Tensor | None, ...] = (inputs, weights, biases)
        rest = [want and known is None for want, known in zip(wanted, found, strict=True)]
        if any(rest):
            stride, padding, dilation, groups = settings
            common = (stride, padding, dilation, False, (0, 0), groups)
            own = _backward(gradient, maps, weight, [len(weight)], *common, rest)
            found = tuple(b if a is None else a for a, b in zip(found, own, strict=True))
        return *found, None, None


def _is_spread(weight: Tensor, settings: Settings) -> bool:
    """Whether the gradient for the inputs is ``_spread``: that of strided depthwise ones, padded within the kernel."""
    depthwise = settings.groups == weight.shape[0] > 1 and weight.shape[1] == 1
    reach = _reach(weight, settings)
    within = all(pad <= far for pad, far in zip(settings.padding, reach, strict=True))
    return depthwise and max(settings.stride) > 1 and within


def _reach(weight: Tensor, settings: Settings) -> list[int]:
    return [step * (size - 1) for step, size in zip(settings.dilation, weight.shape[2:], strict=True)]


def _spread(gradient: Tensor, shape: torch.Size, weight: Tensor, settings: Settings) -> Tensor:
    """The gradient for the inputs (B, C, H, W): zeros between the values of ``gradient``, and the kernel mirrored.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
    """
    stride, padding, dilation, _ = settings
    reach = _reach(weight, settings)
    height, width = (size + 2 * pad - far for size, pad, far in zip(shape[2:], padding, reach, strict=True))
    spread = gradient.new_zeros(shape[0], height, width, weight.shape[0]).permute(0, 3, 1, 2)  # channels last
    filled = spread[:, :, :: stride[0], :: stride[1]]
    filled[:, :, : gradient.shape[2], : gradient.shape[3]] = gradient
    margins = tuple(far - pad for far, pad in zip(reach, padding, strict=True))
    return F.conv2d(spread, weight.flip(2, 3), None, 1, margins, dilation, weight.shape[0])


def _is_product(shape: torch.Size, weight: Tensor, settings: Settings) -> bool:
    """Whether the gradient for the weights is ``_product``: of many that see few places, on such a processor."""
    if settings.groups != 1 or weight.numel() < LARGE or not multiplies_tiles():
        return False
    stride, padding, _, _ = settings
    places = shape[0]
    for size, pad, far, step in zip(shape[2:], padding, _reach(weight, settings), stride, strict=True):
        places *= (size + 2 * pad - far - 1) // step + 1
    return 0 < places <= FEW


def multiplies_tiles() -> bool:
    """Whether the processor has AMX."""
    known = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return known is not None and bool(known())


def _product(gradient: Tensor, maps: Tensor, weight: Tensor, settings: Settings) -> Tensor:
    """The gradient for the weights (O, C, K, L): what every place answers for, by what it has seen."""
    stride, (top, left), dilation, _ = settings
    (height, width), (rows, columns) = gradient.shape[2:], weight.shape[2:]
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    seen = maps.new_empty(len(maps), height, width, rows, columns, maps.shape[1])
    for y in range(rows):
        for x in range(columns):
            down, right = (
                slice(at * step, at * step + far * (size - 1) + 1, far)
                for at, step, far, size in zip((y, x), dilation, stride, (height, width), strict=True)
            )
            seen[:, :, :, y, x] = padded[:, down, right]
    answers = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
    product = answers.t().contiguous() @ seen.flatten(3).flatten(0, 2)  # a transposed factor takes twice as long
    return product.view(len(weight), rows, columns, -1).permute(0, 3, 1, 2)
