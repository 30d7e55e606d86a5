"""Whether blocks hold: each is called once, in order, and resuming from its output gives the same features.

Shapes: B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from headstart.models import hooks, resume

if TYPE_CHECKING:
    from headstart.models.backbone import Backbone


def refuted(backbone: Backbone, inputs: Tensor) -> str:
    """Why the backbone's blocks do not hold on ``inputs`` (B, …), or nothing. The backbone must be in eval mode."""
    count = len(backbone.blocks)
    outputs: list[Any] = [None] * count
    order: list[int] = []

    def keep(i: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            order.append(i)
            outputs[i] = tree_map(resume.clone, output)

        return hook

    with hooks.attached(backbone.block(i).register_forward_hook(keep(i)) for i in range(count)), torch.no_grad():
        full = backbone.features(inputs)
    if sorted(set(order)) != list(range(count)) or len(order) != count:
        calls = {backbone.blocks[i]: order.count(i) for i in range(count) if order.count(i) != 1}
        return f"blocks are not called exactly once ({_named(calls)})"
    if order != list(range(count)):
        return "blocks run in another order than they are registered"
    backbone.places = _places(backbone, inputs, outputs)
    for k in range(1, count + 1):
        with torch.no_grad():
            again = resume.features_from(backbone, k, resume.recorded(backbone, k, inputs, outputs[k - 1]), len(inputs))
        if not resume.same(full, again):
            gap = (full - again).abs().max().item()
            return f"resuming after {backbone.blocks[k - 1]!r} gives other features (by {gap:.1e})"
    return ""


def _places(backbone: Backbone, inputs: Tensor, outputs: list[Any]) -> dict[int, tuple[int, ...]]:
    """Of every tensor that block ``k-1`` returned: places a row, 0 where it is the same for any rows, -1 if neither.

    Told from the outputs for all rows of ``inputs`` and for the first alone.
    """

    def heard(rows: Tensor) -> int:
        lengths = backbone.intake.lengths(rows) if backbone.intake.ragged else None
        return len(rows) if lengths is None or lengths.dim() == 1 else int((lengths > 0).sum())

    def count(both: Tensor, first: Tensor) -> int:
        if not both.dim() or both.shape[0] == first.shape[0]:
            return 0
        each = first.shape[0] // alone
        return each if (each * alone, each * together) == (first.shape[0], both.shape[0]) else -1

    alone, together = heard(inputs[:1]), heard(inputs)
    found = {}
    for k, (output, first) in enumerate(zip(outputs, resume.zero_outputs(backbone, inputs[:1]), strict=True), start=1):
        pairs = zip(tree_leaves(output), tree_leaves(first), strict=True)
        found[k] = tuple(count(a, b) if isinstance(a, Tensor) else 0 for a, b in pairs)
    return found


@dataclass(frozen=True)
class Outside:
    """Where the parameters outside the blocks work; those in none of the sets work before the first block, or twice.

    One that works in two places must not count as one that a resumed forward gives a gradient: it would be half.
    """

    trailing: frozenset[str] = frozenset()  # after the last block only
    between: frozenset[str] = frozenset()  # after the front end only
    unused: frozenset[str] = frozenset()  # nowhere


def outside(backbone: Backbone, inputs: Tensor) -> Outside:
    """Measured by gradients: a forward resumed after some block gives all of them to what works after that block."""
    names = backbone.outside()
    if not names:
        return Outside()
    parameters = [backbone.module.get_parameter(name) for name in names]
    wanted = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        full = dict(zip(names, _gradients(backbone.features(inputs), parameters), strict=True))
        after = {k: frozenset[str]() for k in (0, len(backbone.blocks))}
        for k in {backbone.front, len(backbone.blocks)} - {0}:
            value = resume.record(backbone, k, inputs)
            again = _gradients(resume.features_from(backbone, k, value, len(inputs)), parameters)
            after[k] = frozenset(name for name, b in zip(names, again, strict=True) if _equal(full[name], b))
    finally:
        for parameter, flag in zip(parameters, wanted, strict=True):
            parameter.requires_grad_(flag)
    trailing = after[len(backbone.blocks)]
    unused = frozenset(name for name, gradient in full.items() if gradient is None)
    return Outside(trailing, after[backbone.front] - trailing, unused)


def _gradients(features: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    weights = torch.linspace(0.5, 1.5, features.numel(), device=features.device).view_as(features)
    if not features.requires_grad:
        return (None,) * len(parameters)
    return torch.autograd.grad((features * weights).sum(), parameters, allow_unused=True)


def _equal(full: Tensor | None, again: Tensor | None) -> bool:
    if full is None or again is None:
        return False
    return torch.allclose(full, again, rtol=1e-4, atol=1e-6 * max(1.0, full.abs().max().item()))


def _named(calls: dict[str, int]) -> str:
    return ", ".join(f"{name!r} {count} times" for name, count in list(calls.items())[:3])
