"""Resume any network from a recorded block output, without knowing its code.

Blocks ``0 .. k-1`` get a ``forward`` that answers from the record; the network's own forward then runs on a blank
stand-in input, so that only what comes after block ``k-1`` is computed. Three traps, each a test: clone when recording
(an in-place ReLU edits the record), stand-ins are real memory (never ``expand``), and the record is cloned again when
it is handed out.

Shapes: B rows, D features; a record is whatever block ``k-1`` returns (a tensor, or a tuple or dict of tensors), and
where rows differ in length a dict of that ``value`` and the ``lengths``. Where a block is given several places a row
(patches, heads: B c), the record holds them as (B, c, …), so that whoever keeps or cuts rows need not know.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from headstart.core.lengths import evened
from headstart.models import hooks

if TYPE_CHECKING:
    from headstart.models.backbone import Backbone


class _Reached(Exception):
    """Ends a recording forward: what comes after the block is not needed."""


def record(backbone: Backbone, k: int, inputs: Tensor) -> Any:
    """The output of block ``k-1`` for ``inputs`` (B, …), cloned and detached; later blocks are not computed.

    Raises:
        ValueError: ``k`` is not in 1 .. number of blocks.
    """
    with recording(backbone, [k]) as outputs:
        return outputs(inputs)[0]


@contextmanager
def recording(backbone: Backbone, ks: Sequence[int]) -> Iterator[Callable[[Tensor], list[Any]]]:
    """Inside, what this yields gives the output of block ``k-1`` for every ``k`` of ``ks``, as ``record`` would.

    One forward for all of them, which ends with the last. Several threads may call it at once.

    Raises:
        ValueError: one of ``ks`` is not in 1 .. number of blocks.
    """
    for k in ks:
        _check(backbone, k)
    here = threading.local()  # what this thread's forward is given and has recorded

    def keep(k: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            here.found[k] = recorded(backbone, k, here.inputs, tree_map(clone, output))
            if k == max(ks):
                raise _Reached

        return hook

    def outputs(inputs: Tensor) -> list[Any]:
        here.inputs, here.found = inputs, {}
        with suppress(_Reached), torch.no_grad():
            backbone.features(inputs)
        missed = [f"block {k - 1} ({backbone.blocks[k - 1]!r})" for k in ks if k not in here.found]
        if missed:
            raise ValueError(f"{', '.join(missed)} was not reached")
        return [here.found[k] for k in ks]

    with hooks.attached(backbone.block(k - 1).register_forward_hook(keep(k)) for k in set(ks)):
        yield outputs


def recorded(backbone: Backbone, k: int, inputs: Tensor, value: Any) -> Any:
    """What block ``k-1`` returned, row by row, with the lengths of the rows where they differ."""
    lengths = backbone.intake.lengths(inputs) if backbone.intake.ragged else None
    value = _folded(backbone, k, value, lengths, lambda leaf, count: leaf.unflatten(0, (-1, count)))
    return value if lengths is None else {"lengths": lengths, "value": value}


def _folded(
    backbone: Backbone, k: int, value: Any, lengths: Tensor | None, fold: Callable[[Tensor, int], Tensor]
) -> Any:
    """Apply ``fold`` to what has several places a row; rows of several windows stay as they are."""
    if max(backbone.places.get(k, ()), default=0) < 2 or (lengths is not None and lengths.dim() > 1 < lengths.shape[1]):
        return value
    leaves, spec = tree_flatten(value)
    pairs = zip(leaves, backbone.places[k], strict=True)
    return tree_unflatten([fold(leaf, count) if count > 1 else leaf for leaf, count in pairs], spec)


@contextmanager
def resumed(backbone: Backbone, k: int, value: Any) -> Iterator[None]:
    """Inside, ``backbone.features(anything)`` answers for the recorded ``value`` instead of its argument.

    Hooks of the replaced blocks still run, their attributes stay readable, and their parameters get no gradient.
    """
    _check(backbone, k)
    lengths = None
    if backbone.intake.ragged:
        lengths, value = value["lengths"], value["value"]
    value = _folded(backbone, k, value, lengths, lambda leaf, _: leaf.flatten(0, 1))
    blanks = _stand_ins(backbone, tree_leaves(value)[0], value, lengths)
    replaced = [backbone.block(i) for i in range(k)]
    try:
        for i, block in enumerate(replaced):
            answer = _Answer(value, copy=True) if i == k - 1 else _Answer(blanks.outputs[i], copy=False)
            block.forward = answer  # type: ignore[assignment]
        backbone.stand_in, backbone.stand_in_lengths = blanks.inputs, lengths
        yield
    finally:
        backbone.stand_in = backbone.stand_in_lengths = None
        for block in replaced:
            block.__dict__.pop("forward", None)


def features_from(backbone: Backbone, k: int, value: Any, batch: int) -> Tensor:
    """Features (B, D) of the recorded ``value`` of ``batch`` rows: the network's own forward from block ``k`` on."""
    with resumed(backbone, k, value):
        features = backbone.features(torch.empty(0))
    if len(features) != batch:
        raise ValueError(f"the record holds {len(features)} rows, {batch} were asked for")
    return features


class _Answer:
    """The forward of a replaced block. A record is copied each time: what follows may edit it in place."""

    def __init__(self, value: Any, *, copy: bool) -> None:
        self.value, self.copy = value, copy

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return tree_map(clone, self.value) if self.copy else self.value


class _Blanks:
    """A blank input and what every block answers to it, as real memory: content never matters, shapes do."""

    def __init__(self, inputs: Tensor, outputs: list[Any]) -> None:
        self.inputs, self.outputs = inputs, outputs


def _stand_ins(backbone: Backbone, like: Tensor, value: Any, lengths: Tensor | None) -> _Blanks:
    """What goes in, and what the blocks below the record answer."""
    places = None if lengths is None or lengths.dim() > 1 else _places(value, int(lengths.max()), backbone)
    if backbone.uniform is not None and lengths is not None:  # then hardly anything needs to be computed first
        outputs = [value] * len(backbone.blocks)
        if backbone.uniform:  # what the front end answers to one window, for all rows
            window = _blanks(backbone, backbone.intake.stand_in(lengths[:1, :1])).outputs[: backbone.uniform]
            outputs[: backbone.uniform] = tree_map(lambda leaf: leaf.new_zeros(len(like), *leaf.shape[1:]), window)
        return _Blanks(backbone.intake.stand_in(lengths, places), outputs)
    rows = like.shape[0] if backbone.stand_in_rows is None else backbone.stand_in_rows
    if lengths is not None and backbone.stand_in_rows is None:
        return _blanks(backbone, backbone.intake.stand_in(lengths, places))
    return _blanks(backbone, torch.from_numpy(backbone.spec.blank(rows)).to(like.device))


def _places(value: Any, longest: int, backbone: Backbone) -> int:
    """Places of the batch that was recorded: as many as the loader gives it, or what a record (B, T, …) says."""
    usual = evened(longest, backbone.spec.max_length)
    shapes = [leaf.shape for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.dim() > 2]
    if any(usual in shape for shape in shapes):
        return usual
    return next((shape[1] for shape in shapes if shape[1] >= longest), usual)


def _blanks(backbone: Backbone, inputs: Tensor) -> _Blanks:
    """``inputs`` and what every block answers in their shape, computed by one forward and kept on the backbone."""
    key = (tuple(inputs.shape), inputs.device, backbone.blocks)
    if key in backbone.blanks:
        return _Blanks(inputs, backbone.blanks[key])  # of the same shape: the rows may have other lengths
    outputs = zero_outputs(backbone, inputs)
    backbone.blanks.clear()  # one set is enough: the last block of one training batch after the other
    backbone.blanks[key] = outputs
    return _Blanks(inputs, outputs)


def zero_outputs(backbone: Backbone, inputs: Tensor) -> list[Any]:
    """Zeros in the shapes of what every block answers to ``inputs``."""
    outputs: list[Any] = [None] * len(backbone.blocks)

    def keep(i: int) -> Any:
        return lambda _module, _args, output: outputs.__setitem__(i, tree_map(_zeros, output))

    handles = [backbone.block(i).register_forward_hook(keep(i)) for i in range(len(outputs))]
    # Batch statistics must not see a blank row, and blanks made while measuring must still serve training.
    with hooks.attached(handles), evaluating(backbone), torch.inference_mode(False), torch.no_grad():
        backbone.features(inputs)
    return outputs


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of ``module`` in eval mode inside; each part's own mode back afterwards."""
    modes = {part: part.training for part in module.modules()}
    try:
        for part in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _check(backbone: Backbone, k: int) -> None:
    if not 1 <= k <= len(backbone.blocks):
        raise ValueError(f"k must be in 1 .. {len(backbone.blocks)}, got {k}")


def clone(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    with torch.inference_mode(False):  # a record made while measuring must still serve training
        return value.detach().clone()


def _zeros(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else value


def same(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit on a CPU; within rounding elsewhere, where two runs of one kernel may differ."""
    a, b = torch.nan_to_num(a), torch.nan_to_num(b)
    return torch.equal(a, b) or (a.device.type != "cpu" and torch.allclose(a, b, rtol=1e-3, atol=1e-3))
