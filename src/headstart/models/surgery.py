"""Small operations on networks: take the classifier off, put one on, change the number of input channels.

Shapes: C input channels, S classes, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from headstart.core.errors import BackboneError

M = TypeVar("M", bound=nn.Module)


def last_linear(module: nn.Module) -> str:
    """Name of the last linear layer in registration order: the classifier of every classification network we read.

    Raises:
        BackboneError: there is none.
    """
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        raise BackboneError("the network has no linear layer that could be its classifier")
    return names[-1]


def take_off(module: nn.Module, name: str) -> nn.Linear:
    """Replace the linear layer ``name`` by the identity and return it: the network's output is now what it saw."""
    classifier = module.get_submodule(name)
    if not isinstance(classifier, nn.Linear):
        raise BackboneError(f"the classifier '{name}' is a {type(classifier).__name__}, not a linear layer")
    module.set_submodule(name, nn.Identity())
    return classifier


def adapt_channels(module: nn.Module, channels: int) -> None:
    """Let the first convolution take ``channels`` instead of 3, in place; nothing to do for 3.

    Follows timm's ``adapt_input_conv``: one channel gets the sum over the colours, so that a grey picture answers as
    its RGB copy does; more channels repeat the colours, scaled by 3 / C so that activations keep their size.

    Raises:
        BackboneError: no convolution takes 3 channels.
    """
    if channels == 3:
        return
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d) and part.in_channels == 3 and part.groups == 1:
            _replace(part, adapted(part.weight.detach(), channels), channels)
            for other in module.modules():  # transformers' embeddings compare the input with this number
                if getattr(other, "num_channels", None) == 3:
                    other.num_channels = channels  # type: ignore[assignment]
            return
        if isinstance(part, nn.Conv2d):
            raise BackboneError(f"the first convolution ('{name}') takes {part.in_channels} channels, not 3")
    raise BackboneError(f"cannot change the network to {channels} channels: it has no convolution")


def adapted(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight (O, 3, kh, kw) for another number of input channels (O, C, kh, kw)."""
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / 3), 1, 1)[:, :channels]
    return repeated * (3 / channels)


def cycled(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Mean or std of three colours for another number of channels: their average for one, repeated for more."""
    if len(values) == channels:
        return values
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))


def seeded(seed: int, build: Callable[[], M]) -> M:
    """What ``build`` makes with torch's generator at ``seed``; the generator's state is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _replace(conv: nn.Conv2d, weight: Tensor, channels: int) -> None:
    conv.weight = nn.Parameter(weight.clone())
    conv.in_channels = channels
