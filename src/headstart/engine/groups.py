"""Parameter groups: which parameter trains at which rate, and which of them decay.

Depth 0 is the stem, i + 1 is block i (whatever trails the blocks, such as a last norm, counts to the last one), and
one more is the head, to which every parameter that is not the backbone's belongs (head, critic, adapter: new layers).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from headstart.core.errors import ConfigError, Problem, TrainingError
from headstart.core.registry import suggest

Rates = Mapping[str, float]


def groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    depths: Mapping[str, int],
    blocks: int | Sequence[str],
    *,
    lr: float,
    head_lr: float | None = None,
    head_multiple: float = 1.0,
    layer_decay: float = 1.0,
    rates: Rates | None = None,
    weight_decay: float = 0.0,
    no_decay: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The optimizer's parameter groups, from the stem to the head; frozen parameters are left out.

    Args:
        named_parameters: all parameters of what trains, frozen ones too.
        depths: depth of every backbone parameter, under the same names.
        blocks: how many blocks the backbone has, or their names (needed for ``rates`` by name).
        lr, head_lr, head_multiple, layer_decay, rates: see ``rates_by_depth``.
        weight_decay: for matrices and kernels; biases and one-dimensional parameters (norms) never decay.
        no_decay: further names that never decay (timm's ``model.no_weight_decay()``, such as ``pos_embed``).

    Returns:
        Dicts with ``params``, ``lr``, ``weight_decay`` (for torch) and ``base_lr``, ``names``, ``depth``, ``name``.
        torch's schedulers would know nothing of a scale kept beside the rate, so rates are absolute here and
        ``schedules.apply`` multiplies ``base_lr``.

    Raises:
        TrainingError: nothing trains; a depth names no parameter (a renamed wrapper would give the whole backbone
            the head's rate); a parameter comes twice.
    """
    named = list(named_parameters)
    count, _ = _counted(blocks)
    _check_names(named, depths, count)
    by_depth = rates_by_depth(
        blocks, lr=lr, head_lr=head_lr, head_multiple=head_multiple, layer_decay=layer_decay, rates=rates
    )
    found: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        depth = depths.get(name, count + 1)
        decays = bool(weight_decay) and parameter.ndim > 1 and not name.endswith(".bias") and name not in no_decay
        group = found.setdefault((depth, decays), _empty(depth, decays, by_depth[depth], weight_decay))
        group["params"].append(parameter)
        group["names"].append(name)
    chosen = [found[key] for key in sorted(found)]
    check(named, chosen)
    return chosen


def of_learner(learner: Any, **settings: Any) -> list[dict[str, Any]]:
    """``groups`` of a learner with its ``model``; what is not the backbone's has the head's rate."""
    blocks = learner.model.backbone.blocks
    depths = {f"model.{name}": depth for name, depth in learner.model.depths().items() if depth <= len(blocks)}
    return groups(learner.named_parameters(), depths, blocks, **settings)


def rates_by_depth(
    blocks: int | Sequence[str],
    *,
    lr: float,
    head_lr: float | None = None,
    head_multiple: float = 1.0,
    layer_decay: float = 1.0,
    rates: Rates | None = None,
) -> list[float]:
    """The learning rate of every depth: blocks + 2 numbers, stem first, head last.

    Without ``rates``, depth d of B blocks gets lr * layer_decay ** (B - d), so ``lr`` is the last block's; the head
    gets ``head_lr``, or lr * head_multiple. (BEiT and timm's ``param_groups_layer_decay`` call the head's rate lr and
    begin one factor lower: theirs are these rates at lr * layer_decay and a head multiple of 1 / layer_decay.)

    ``rates`` are by block name or its dotted beginning ("layer1" covers "layer1.0"), "stem" and "head";
    every block must be covered; a stem that is not named takes the first block's rate, a head the rule above.

    Raises:
        ConfigError: a rate is not positive, or a name is unknown or missing.
    """
    count, names = _counted(blocks)
    head = head_lr if head_lr is not None else lr * head_multiple
    _check_rates({"lr": lr, "head_lr": head, "layer_decay": layer_decay})
    if rates is None:
        return [lr * layer_decay ** (count - depth) for depth in range(count + 1)] + [head]
    return _by_name(names, rates, head)


def check(named_parameters: Iterable[tuple[str, nn.Parameter]], groups: Sequence[Mapping[str, Any]]) -> None:
    """Every trainable parameter stands in exactly one group, and nothing else does.

    Raises:
        TrainingError: naming the parameters that are missing, doubled or frozen.
    """
    entered = [(name, parameter) for group in groups for name, parameter in _pairs(group)]
    times: dict[int, int] = {}
    for _, parameter in entered:
        times[id(parameter)] = times.get(id(parameter), 0) + 1
    problems = [Problem("is frozen, yet in the optimizer", name) for name, p in entered if not p.requires_grad]
    problems += [Problem("is in the optimizer twice", name) for name, p in entered if times[id(p)] > 1]
    trainable = [(name, p) for name, p in named_parameters if p.requires_grad]
    problems += [Problem("trains, but is not in the optimizer", name) for name, p in trainable if id(p) not in times]
    if not trainable:
        problems.append(Problem("no parameter trains", remedy="thaw at least one block, or train the head"))
    if problems:
        raise TrainingError("the parameter groups are wrong", problems=problems)


def _pairs(group: Mapping[str, Any]) -> Iterable[tuple[str, nn.Parameter]]:
    return zip(group["names"], group["params"], strict=True)


def _empty(depth: int, decays: bool, rate: float, weight_decay: float) -> dict[str, Any]:
    return {
        "params": [],
        "names": [],
        "depth": depth,
        "name": f"depth {depth}" + (", decays" if decays else ""),
        "lr": rate,
        "base_lr": rate,
        "weight_decay": weight_decay if decays else 0.0,
    }


def _counted(blocks: int | Sequence[str]) -> tuple[int, tuple[str, ...]]:
    if isinstance(blocks, int):
        return blocks, tuple(str(index) for index in range(blocks))
    return len(blocks), tuple(blocks)


def _check_names(named: list[tuple[str, nn.Parameter]], depths: Mapping[str, int], count: int) -> None:
    known = {name for name, _ in named}
    problems = [Problem("has a depth, but is no parameter here", name) for name in depths if name not in known]
    problems += [
        Problem(f"depth {depth} is outside 0..{count}", name)
        for name, depth in depths.items()
        if not 0 <= depth <= count
    ]
    if problems:
        raise TrainingError("the depths do not belong to these parameters", problems=problems[:8])


def _check_rates(rates: Mapping[str, float]) -> None:
    problems = [
        Problem(f"{rate!r} is no positive rate", name, "to freeze a block, thaw fewer of them")
        for name, rate in rates.items()
        if not (math.isfinite(rate) and rate > 0)
    ]
    if problems:
        raise ConfigError("learning rates must be positive", problems=problems)


def _by_name(names: tuple[str, ...], rates: Mapping[str, float], head: float) -> list[float]:
    _check_rates({f"rates.{name}": float(rate) for name, rate in rates.items()})
    given = {name: float(rate) for name, rate in rates.items() if name not in ("stem", "head")}
    used: set[str] = set()
    body: list[float] = []
    problems: list[Problem] = []
    for block in names:
        fitting = [name for name in given if block == name or block.startswith(f"{name}.")]
        used.update(fitting)
        if fitting:
            body.append(given[max(fitting, key=len)])
        else:
            problems.append(Problem(f"no rate for block '{block}'", "rates", "name every block, 'stem' and 'head'"))
    problems += [
        Problem(f"no block is called '{name}'{suggest(name, names)}", "rates") for name in given if name not in used
    ]
    if problems:
        raise ConfigError("the rates do not fit the blocks", problems=problems)
    stem = float(rates.get("stem", body[0] if body else head))
    return [stem, *body, float(rates.get("head", head))]
