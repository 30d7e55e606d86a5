"""Which layer alone reads what a convolution writes, unchanged: what may be computed inside that convolution.

Told by one forward, and proven by another; that follows from how the network is built, so it is found once and kept.
Shapes: B rows.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from headstart.models import hooks, resume
from headstart.models.backbone import Backbone

Readers = dict[nn.Conv2d, nn.Module]
Found = TypeVar("Found")


def readers(
    backbone: Backbone,
    inputs: Tensor,
    reads: Callable[[nn.Module], bool],
    *,
    shared: Callable[[nn.Module], bool] = lambda layer: False,
    worth: float = 0.0,
) -> Readers:
    """Every convolution whose output one layer reads, exactly as it was written, and which nothing else reads.

    Told by one forward of ``inputs`` (B, …), and proven by another, in which the convolutions answer NaN and each
    reader what it makes of the true maps: the features have to stay what they are. That holds for readers that do
    nothing yet, such as fresh BatchNorm, too. The backbone is in eval mode.

    Args:
        reads: which layers count as readers.
        shared: which readers may be called elsewhere too, as one ReLU is for a whole block.
        worth: only where the maps of a row have so many times the values that the convolution has weights.
    """
    found, wanted = _seen(backbone, inputs, reads, shared, worth)
    if found and not _hold(backbone, inputs, found, wanted):
        found = {conv: reader for conv, reader in found.items() if _hold(backbone, inputs, {conv: reader}, wanted)}
    return found


def inside_blocks(backbone: Backbone, found: Mapping[nn.Conv2d, nn.Module]) -> Readers:
    """Those whose convolution and reader are inside the same block: what a block returns is recorded and resumed."""
    blocks = [backbone.block(index) for index in range(len(backbone.blocks))]
    inside = [set(block.modules()) - {block} for block in blocks]

    def together(conv: nn.Module, reader: nn.Module) -> bool:
        places = ([part in parts for parts in inside] for part in (conv, reader))
        return next(places) == next(places) and not {conv, reader} & set(blocks)

    return {conv: reader for conv, reader in found.items() if together(conv, reader)}


def remembered(backbone: Backbone, kind: str, find: Callable[[Tensor], Found]) -> Found:
    """What ``find`` finds in eval mode with two rows of noise (2, …), for the first time; then what it found.

    Callers change how the network computes alike every time they ask for a ``kind``.
    """
    if kind not in backbone.pairs:
        noise = torch.from_numpy(backbone.spec.noise(2)).to(backbone.device)
        with resume.evaluating(backbone):
            backbone.pairs[kind] = find(noise)
    found: Found = backbone.pairs[kind]
    return found


@contextmanager
def forwards(replaced: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Inside, these modules have other forwards; afterwards those they had."""
    before = {module: vars(module).get("forward") for module in replaced}
    try:
        for module, forward in replaced.items():
            module.forward = forward
        yield
    finally:
        for module, forward in before.items():
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward


def _seen(
    backbone: Backbone,
    inputs: Tensor,
    reads: Callable[[nn.Module], bool],
    shared: Callable[[nn.Module], bool],
    worth: float,
) -> tuple[Readers, Tensor]:
    """Which reader was given the very maps that a convolution made, unchanged, both called once; the features."""
    made: dict[int, tuple[nn.Conv2d, int]] = {}  # id of an output -> the convolution that wrote it, and its version
    found: list[tuple[nn.Conv2d, nn.Module]] = []
    calls: collections.Counter[nn.Module] = collections.Counter()
    alive: list[Tensor] = []  # so that ids stay unique

    def wrote(module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        calls[module] += 1
        assert isinstance(module, nn.Conv2d)
        if isinstance(output, Tensor) and output.numel() / len(inputs) >= worth * module.weight.numel():
            alive.append(output)
            made[id(output)] = module, output._version

    def read(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls[module] += 1
        conv, version = made.get(id(args[0]), (None, 0)) if args else (None, 0)
        if conv is not None and args[0]._version == version:  # or it was changed in place
            found.append((conv, module))

    handles = [part.register_forward_hook(wrote) for part in backbone.modules() if isinstance(part, nn.Conv2d)]
    handles += [part.register_forward_pre_hook(read) for part in backbone.modules() if reads(part)]
    with hooks.attached(handles), torch.no_grad():
        features = backbone.features(inputs)
    times = collections.Counter(conv for conv, _ in found)
    once = {conv: reader for conv, reader in found if calls[conv] == times[conv] == 1}
    return {conv: reader for conv, reader in once.items() if shared(reader) or calls[reader] == 1}, features


def _hold(backbone: Backbone, inputs: Tensor, found: Readers, wanted: Tensor) -> bool:
    """Whether the features stay ``wanted`` if these convolutions answer nobody but their reader."""

    def hidden(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def answer(input: Tensor) -> Tensor:
            true = plain(input)
            told = torch.full_like(true, math.nan)
            told.true = true  # type: ignore[attr-defined]
            return told

        return answer

    def known(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda input: plain(getattr(input, "true", input))

    replaced: dict[nn.Module, Any] = {conv: hidden(conv.forward) for conv in found}
    replaced |= {reader: known(reader.forward) for reader in found.values()}
    with torch.no_grad(), forwards(replaced):
        again = backbone.features(inputs)
    return not bool(again.isnan().any()) and resume.same(again, wanted)
