"""An activation computed inside the convolution before it, on a CPU: any where no gradient is asked for, else clamps.

A ReLU by itself reads and writes whole maps once more; oneDNN applies it while a convolution writes them, with the
operation that torch's own compiler uses for it. Measured on one core of a server CPU with AMX (MobileNetV2 with
BatchNorm folded, 16 rows at 224): 231 pictures a second in bf16 instead of 115, 94 in fp32 instead of 83. What it gains
in training is told in ``convolutions``.

Convolutions without an activation take the same way where no gradient is asked for: in fp32, with one thread and fewer
than 16 rows, torch computes those of 1 x 1 by another that is much slower. ReLU and clamps give the same values bit for
bit, but for NaN, of which oneDNN makes a number: so this is for pictures, whose pixels hold none, and for weights
without it. Shapes: B rows.
"""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from headstart.models import convolutions, kernels, sole
from headstart.models.backbone import Backbone
from headstart.models.convolutions import Activation

Weights = tuple[Tensor, Tensor | None]


def activation(layer: nn.Module) -> Activation | None:
    """What ``layer`` computes, where oneDNN can; None for any other layer, and where it has a forward of its own."""
    known = None if "forward" in vars(layer) else _KNOWN.get(type(layer))
    return None if known is None else known(layer)


def fuse(backbone: Backbone, inputs: Tensor) -> int:
    """Let convolutions compute the activation that alone reads them, for good; returns how many activations.

    For a copy in eval mode that nobody trains. ``inputs`` (B, …) are real ones, by which pairs are told and proven.
    """
    replaced: dict[nn.Module, Any] = {}
    if convs := _computable(backbone):
        replaced = _replaced(convs, _readers(backbone, inputs), set())
    for layer, forward in replaced.items():
        layer.forward = forward
    return sum(isinstance(forward, _Fused) and forward.layer is not None for forward in replaced.values())


@contextmanager
def fused(backbone: Backbone) -> Iterator[None]:
    """Inside, the same for a network in training, wherever no gradient is asked for; clamps where one is, too."""
    replaced: dict[nn.Module, Any] = {}
    if convs := _computable(backbone):
        replaced = _replaced(convs, *sole.remembered(backbone, "activations", lambda noise: _trained(backbone, noise)))
    with sole.forwards(replaced):
        yield


def _computable(backbone: Backbone) -> list[nn.Conv2d]:
    """The convolutions that oneDNN may compute here, as the weights are now."""
    convs = [part for part in backbone.modules() if isinstance(part, nn.Conv2d) and _is_plain(part)]
    here = backbone.modality == "image" and backbone.device.type == "cpu" and kernels.fuses(convolutions.OPERATION)
    if not convs or not here:
        return []
    return convs if all(bool(value.isfinite().all()) for value in backbone.module.state_dict().values()) else []


def _readers(backbone: Backbone, inputs: Tensor) -> sole.Readers:
    """The activation that alone reads a convolution, in the same block."""
    found = sole.readers(backbone, inputs, lambda layer: activation(layer) is not None, shared=_is_clamp)
    return sole.inside_blocks(backbone, found)


def _trained(backbone: Backbone, inputs: Tensor) -> tuple[sole.Readers, set[nn.Conv2d]]:
    """The same, and which of these convolutions may compute it where a gradient is asked for, too."""
    found = _readers(backbone, inputs)
    plain = {conv: layer for conv, layer in found.items() if _is_plain(conv)}
    return found, _steady(backbone, inputs, plain)


def _replaced(convs: Sequence[nn.Conv2d], readers: sole.Readers, steady: set[nn.Conv2d]) -> dict[nn.Module, Any]:
    """The forwards of the convolutions, and of the activations that they compute."""
    found = {conv: layer for conv, layer in readers.items() if conv in convs}
    replaced: dict[nn.Module, Any] = {conv: _Fused(conv, found.get(conv), trains=conv in steady) for conv in convs}
    return replaced | {layer: _Passing(layer) for layer in found.values()}


def _steady(backbone: Backbone, inputs: Tensor, found: Mapping[nn.Conv2d, nn.Module]) -> set[nn.Conv2d]:
    """The convolutions whose clamp gets their maps as they are in training too, and whose answers then stay the same.

    The gradient is told from these answers. Dropout may lie between or after, in place, and acts in training alone, so
    a copy in training mode is asked; where it fails, none is known.
    """
    if not any(map(_is_clamp, found.values())):
        return set()
    asked = copy.deepcopy(backbone)
    copies = dict(zip(backbone.modules(), asked.modules(), strict=True))
    clamps: dict[Any, nn.Module] = {copies[conv]: copies[layer] for conv, layer in found.items() if _is_clamp(layer)}
    made: dict[int, tuple[Any, Tensor, int, Tensor]] = {}  # by the id of what a convolution wrote, which stays alive
    reads: list[Any] = []
    given: list[tuple[Any, Tensor, int, Tensor]] = []

    def wrote(conv: nn.Module, _args: tuple[Any, ...], maps: Tensor) -> None:
        made[id(maps)] = conv, maps, maps._version, maps.clone()

    def read(layer: nn.Module, args: tuple[Any, ...]) -> None:
        conv, maps, version, then = made.get(id(args[0]) if args else 0, (None, inputs, 0, inputs))
        same = conv in clamps and clamps[conv] is layer and maps._version == version and torch.equal(maps, then)
        reads.append(conv if same else None)

    def gave(_layer: nn.Module, _args: tuple[Any, ...], answer: Tensor) -> None:
        if (conv := reads.pop()) is not None:
            given.append((conv, answer, answer._version, answer.clone()))

    for conv in clamps:
        conv.register_forward_hook(wrote)
    for layer in set(clamps.values()):
        layer.register_forward_pre_hook(read)
        layer.register_forward_hook(gave)
    for part in asked.modules():
        part.training = not isinstance(part, _NormBase)
    try:
        with _undrawn(), torch.no_grad():
            asked.features(inputs)
    except Exception:  # the user's own code: what it needs in training is not known here
        return set()
    steady = {conv for conv, answer, then, same in given if answer._version == then and torch.equal(answer, same)}
    return {conv for conv in found if copies[conv] in steady}


@contextmanager
def _undrawn() -> Iterator[None]:
    """Inside, draws are taken that nobody misses afterwards."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _computes(dtype: torch.dtype) -> bool:
    """Whether the operation takes this type here: bf16 needs a processor with instructions for it."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _is_clamp(layer: nn.Module) -> bool:
    """Whether applying it twice is applying it once, and its gradient can be told from its answer."""
    return type(layer) in (nn.ReLU, nn.ReLU6, nn.Hardtanh)


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether it pads with zeros, so many on each side, and its forward is known."""
    usual = type(conv).forward is nn.Conv2d.forward and conv.padding_mode == "zeros" and conv.padding != "same"
    return usual and ("forward" not in vars(conv) or hasattr(conv.forward, "weights"))


class _Fused:
    """The forward of a convolution that computes the activation of ``layer`` too, and tells ``_Passing``.

    ``trains`` says that it may do so where a gradient is asked for, too.
    """

    def __init__(self, conv: nn.Conv2d, layer: nn.Module | None, *, trains: bool) -> None:
        self.conv, self.layer = conv, layer
        self.activation = Activation() if layer is None else activation(layer) or Activation()
        types = (torch.float32, torch.bfloat16) if trains else ()
        self.trained = {dtype for dtype in types if self.activation.is_told_by_answers(dtype)}
        padding = (0, 0) if conv.padding == "valid" else conv.padding
        self.settings = convolutions.Settings.of(conv.stride, padding, conv.dilation, conv.groups)
        self.plain: Callable[[Tensor], Tensor] | None = vars(conv).get("forward")

    def __call__(self, input: Tensor) -> Tensor:
        conv, weights, dtype = self.conv, self._weights(), _dtype(input)
        trains = torch.is_grad_enabled() or (self.layer is not None and self.layer.training)
        if weights is None or input.dim() != 4 or not _computes(dtype) or (trains and dtype not in self.trained):
            self._tell(None)
            return type(conv).forward(conv, input) if weights is None else conv._conv_forward(input, *weights)
        asked = torch.is_grad_enabled() and _ask(input, *weights)
        way = convolutions.trained if asked else convolutions.activated
        weight, bias = (None if each is None else each.to(dtype) for each in weights)
        assert weight is not None
        maps = way(input.to(dtype), weight, bias, self.settings, self.activation)
        self._tell(maps)
        return maps

    def _tell(self, maps: Tensor | None) -> None:
        if self.layer is not None:
            vars(self.layer)["forward"].hear(maps)

    def _weights(self) -> Weights | None:
        """Those to compute with; None while something else comes before the activation."""
        if self.plain is None:
            return self.conv.weight, self.conv.bias
        found: Weights | None = self.plain.weights()  # type: ignore[attr-defined]
        return found


class _Passing:
    """The forward of an activation that convolutions compute: it hands on what one has given it, once.

    A clamp may be called elsewhere too, so what it is given has to be the very maps; a copy of them is clamped again,
    which changes nothing. Any other is called once: the next call in this thread is the one, whatever lies between.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.here = layer, threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Passing:
        return _Passing(copy.deepcopy(self.layer, memo))

    def hear(self, maps: Tensor | None) -> None:
        """A convolution has computed the activation of these, or (None) has left it to this layer."""
        self.here.maps = maps

    def __call__(self, input: Tensor) -> Tensor:
        given, self.here.maps = getattr(self.here, "maps", None), None
        if given is input or (given is not None and not _is_clamp(self.layer)):
            return input
        answer: Tensor = type(self.layer).forward(self.layer, input)
        return answer


def _ask(*values: Tensor | None) -> bool:
    """Whether a gradient is asked for, for one of them."""
    return any(value is not None and value.requires_grad for value in values)


def _dtype(input: Tensor) -> torch.dtype:
    """What a convolution computes in here."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype


def _gelu(layer: Any) -> Activation:
    return Activation("gelu", (), layer.approximate)


_KNOWN: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.ReLU: lambda layer: Activation("relu"),
    nn.ReLU6: lambda layer: Activation("hardtanh", (0.0, 6.0)),
    nn.Hardtanh: lambda layer: Activation("hardtanh", (layer.min_val, layer.max_val)),
    nn.LeakyReLU: lambda layer: Activation("leaky_relu", (layer.negative_slope,)),
    nn.SiLU: lambda layer: Activation("swish"),
    nn.Hardswish: lambda layer: Activation("hardswish"),
    nn.GELU: _gelu,
}
