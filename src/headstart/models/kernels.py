"""Quicker ways on a CPU to what torch computes slowly while a network trains.

Measured on two cores of a server CPU with AMX, forward and backward:

- **Attention** (16 rows of 66 tokens, 12 heads, bf16): 24 ms by torch's fused kernel, whose backward is slow, 10 ms
  with dropout, where it draws value by value; 3 and 5 ms written out as matrix products.
- **Dropout** (400,000 values): 2.2 ms, nearly all of it for drawing; .4 ms with sixteen bits a value.
- **Convolutions**: see ``convolutions``.

What is computed is the same but for rounding (attention's scores are rounded to bf16 once more than in torch's
kernel); of dropout the same distribution, its probability to 2^-16. All draws follow from torch's own generator.

Shapes: B rows, H heads, T tokens, D features of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from headstart.models import convolutions

LONGEST = 256  # tokens up to which attention in bf16 is written out where the fused kernel needs less memory


class Quick(TorchFunctionMode):
    """Inside, calls of torch in this thread that train on a CPU take the quicker way, whoever makes them."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        quick = _QUICK.get(func) if torch.is_grad_enabled() and not _recomputes() else None
        found = None if quick is None else quick(*args, **kwargs)
        return func(*args, **kwargs) if found is None else found


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """``scaled_dot_product_attention`` of (B, H, T, D), or None where torch's own way is to be taken."""
    if not _trains(query) or is_causal or enable_gqa or query.dim() != 4:
        return None
    dtype = _dtype(query)
    if not dropout_p and (dtype != torch.bfloat16 or key.shape[-2] > LONGEST):
        return None
    with torch.autocast("cpu", enabled=False):
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        blind = None  # queries that may see nothing: nothing is what they get
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            sees = attn_mask.any(-1, keepdim=True)
            if bool(sees.all()):
                _hide(scores, attn_mask)
            else:
                blind = ~sees
                scores.masked_fill_(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores += attn_mask.clamp_min(torch.finfo(dtype).min).to(dtype)  # not infinite: NaN where all is
        shares = scores.softmax(-1)
        if blind is not None:
            shares = shares.masked_fill(blind, 0.0)
        return (shares * _kept(shares, dropout_p) if dropout_p else shares) @ value


@torch.no_grad()
def _hide(scores: Tensor, seen: Tensor) -> None:
    """What a query may not see gets no share of it, in place, where every query sees something.

    No gradient needs to know: that of a softmax is 0 where the share is. Keys before the first that is hidden from
    anybody, all but a few in batches of texts of a length, are not touched.
    """
    first = 0
    if seen.shape[-1] == scores.shape[-1]:
        first = int(seen.reshape(-1, seen.shape[-1]).all(0).cumprod(0).sum())
    scores[..., first:].masked_fill_(~seen[..., first:], -math.inf)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor | None:
    """``functional.dropout``, or None where torch's own way is to be taken."""
    if not (training and 0 < p < 1 and not inplace and _trains(input)):
        return None
    return input * _kept(input, p)


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """``conv2d`` where it trains in bf16 and has quicker gradients, else None."""
    if input.dim() != 4 or isinstance(padding, str) or not (_trains(input) or _trains(weight)):
        return None
    if _dtype(input) != torch.bfloat16:
        return None
    settings = convolutions.Settings.of(stride, padding, dilation, groups)
    if not convolutions.has_quicker_gradients(input, weight, settings):
        return None
    with torch.autocast("cpu", enabled=False):
        inputs, weights = input.to(torch.bfloat16), weight.to(torch.bfloat16)
        return convolutions.trained(inputs, weights, None if bias is None else bias.to(torch.bfloat16), settings)


_QUICK: dict[Any, Callable[..., Tensor | None]] = {
    F.scaled_dot_product_attention: attention,
    F.dropout: dropout,
    torch.conv2d: convolution,
}


def fuses(name: str) -> bool:
    """Whether torch has the operation of oneDNN that its own compiler takes, and may use oneDNN."""
    allowed = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return bool(allowed) and hasattr(torch.ops.mkldnn, name)


def _recomputes() -> bool:
    """Whether what is computed now is computed again in the backward pass (activation checkpointing), outside of us."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _trains(value: Tensor) -> bool:
    return value.requires_grad and value.device.type == "cpu"


def _dtype(value: Tensor) -> torch.dtype:
    """What an operation on matrices computes in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else value.dtype


def _kept(like: Tensor, p: float) -> Tensor:
    """In the shape and type of ``like``: 0 with the probability ``p``, else what makes up for it.

    NumPy's generator gives sixteen bits a value, and is begun by a number of torch's own.
    """
    begin = int(torch.empty((), dtype=torch.int64).random_())
    drawn = np.random.SFC64(begin).random_raw(-(-like.numel() // 4)).view(np.uint16)[: like.numel()]
    dropped = round(p * 2**16)
    kept = drawn >= dropped
    scale = torch.tensor(2**16 / (2**16 - dropped) if dropped < 2**16 else 0.0)
    if like.dtype == torch.bfloat16:  # which NumPy does not know: a product of its bits with 0 or 1
        bits = np.multiply(kept, scale.bfloat16().view(torch.int16).numpy())
        return torch.from_numpy(bits).view(torch.bfloat16).view(like.shape)
    return torch.from_numpy(kept).view(like.shape).to(like.dtype).mul_(scale)
