"""Find the depth-ordered blocks of a network by rule, and give every parameter a depth.

A block is a module that is called once, in order, and fed by the block before it. The rule only proposes: a proposal
counts after ``Backbone.verify`` has resumed the network from every block, bit for bit.
"""

from __future__ import annotations

import re
from collections import defaultdict

from torch import nn

WHOLE: tuple[str, ...] = ("",)  # the fallback: the network as one block (get_submodule("") is the module itself)
MIN_SHARE = 0.5  # a chain that holds less than half of the weights is not the trunk


def discover(module: nn.Module) -> tuple[str, ...]:
    """The most plausible chain of blocks in ``module``, as names in depth order; ``("",)`` where there is none."""
    return next(iter(candidates(module)), WHOLE)


def candidates(module: nn.Module) -> list[tuple[str, ...]]:
    """All plausible chains, best first.

    First the chains that authors write: the children of a ``Sequential`` or ``ModuleList``, or numbered siblings
    (``layer1`` … ``layer4``); then the children of any module in registration order, and the same with ``Sequential``
    ones opened. Only children with parameters count. Among equals, those that hold most of the weights (in tenths),
    then the longest.
    """
    total = _size(module) or 1
    found: dict[tuple[str, ...], tuple[int, float, int]] = {}
    for name, parent in module.named_modules():
        for preference, family in _families(name, parent):
            share = sum(_size(module.get_submodule(block)) for block in family) / total
            # Two children are rather a network and its projection than a chain, except in a list of stages.
            least = 2 if preference == 0 or isinstance(parent, nn.ModuleList) else 3
            if len(family) >= least and share >= MIN_SHARE:
                key = (preference, round(share, 1), len(family))
                found[family] = max(key, found.get(family, key))
    return sorted(found, key=lambda family: found[family], reverse=True)


def depths(module: nn.Module, blocks: tuple[str, ...]) -> dict[str, int]:
    """Depth of every parameter: 0 before block 0, ``i + 1`` inside block ``i``, ``len(blocks)`` after the last block.

    Parameters outside the blocks are placed by registration order: after the last block, or early (0), which can only
    make the frozen prefix shorter. ``Backbone.verify`` replaces this guess by a measurement.
    """
    owner: dict[str, int] = {}
    for index, block in enumerate(blocks):
        inside = module.get_submodule(block).named_parameters()
        owner.update({f"{block}.{name}" if block else name: index + 1 for name, _ in inside})
    found: dict[str, int] = {}
    last = max((i for i, (name, _) in enumerate(module.named_parameters()) if name in owner), default=-1)
    for i, (name, _) in enumerate(module.named_parameters()):
        found[name] = owner.get(name, len(blocks) if i > last else 0)
    return found


def _families(name: str, parent: nn.Module) -> list[tuple[int, tuple[str, ...]]]:
    """Chains among the children of one module, with a preference (higher is better among equal shares)."""
    children = [(child, module) for child, module in parent.named_children() if _size(module)]
    prefix = f"{name}." if name else ""
    if isinstance(parent, (nn.ModuleList, nn.Sequential)):
        return [(2, tuple(prefix + child for child, _ in children))]
    numbered: dict[str, list[str]] = defaultdict(list)
    for child, _ in children:
        match = re.fullmatch(r"(\D*?)_?(\d+)", child)
        if match:
            numbered[match[1]].append(prefix + child)
    opened: list[str] = []
    for child, module in children:
        if isinstance(module, nn.Sequential):
            opened += [f"{prefix}{child}.{inner}" for inner, part in module.named_children() if _size(part)]
        else:
            opened.append(prefix + child)
    plain = tuple(prefix + child for child, _ in children)
    return [*((2, tuple(group)) for group in numbered.values()), (1, plain), (0, tuple(opened))]


def _size(module: nn.Module) -> int:
    """Weights that compute: tables of embeddings, often half of a language model, are looked up."""
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    return sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in tables)
