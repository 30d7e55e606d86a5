"""A backbone with a head: what is trained, what is frozen, and what is saved.

Shapes: B rows, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.core.errors import ConfigError
from headstart.models import identity
from headstart.models.backbone import Backbone
from headstart.models.heads import Head

BatchNormPolicy = Literal["frozen_eval", "train", "eval"]


@dataclass(frozen=True)
class Layer:
    """One line of the plan: ``depth`` 0 is the stem, ``i + 1`` block ``i``, the last the head."""

    name: str
    depth: int
    params: int
    trainable: int  # parameters that train


class Model(nn.Module):
    """``forward``: inputs (B, C, H, W), uint8 or normalised floats, to logits (B, K).

    Args:
        bn: what BatchNorm does while training: "frozen_eval" keeps it at its running statistics wherever its own
            parameters are frozen; "train" uses batch statistics everywhere; "eval" nowhere.
        temperature: divides the logits before the softmax where probabilities are shown; ``forward`` does not use it.
        task: "classify" (one class a row) or "multilabel" (each logit a yes or no of its own): the file in ``tasks``.
        threshold: the probability from which a label is given, where a row may have several.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        classes: Sequence[str],
        *,
        bn: BatchNormPolicy = "frozen_eval",
        temperature: float = 1.0,
        task: str = "classify",
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if bn not in ("frozen_eval", "train", "eval"):
            raise ConfigError(f"unknown BatchNorm policy '{bn}'", remedy="known: frozen_eval, train, eval")
        self.backbone = backbone
        self.head = head
        self.classes = tuple(classes)
        self.bn = bn
        self.temperature = temperature
        self.task = task
        self.threshold = threshold

    @property
    def several(self) -> bool:
        """Whether a row may have several labels."""
        return self.task == "multilabel"

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.backbone.features(inputs))

    def thaw(self, count: int | float | str, *, front_end: bool = False) -> None:
        """Choose what trains: the head, and the last ``count`` blocks with everything after them.

        ``0`` is the head only; a share such as ``0.25`` is rounded up to whole blocks; ``"all"``, the number of
        blocks, or ``1.0`` also thaws what comes before block 0. A backbone's front end is none of these blocks and
        stays frozen, unless ``front_end`` makes it one.

        Raises:
            ConfigError: not a number of blocks this backbone has, nor a share, nor "all".
        """
        blocks, total = self.opened(count, front_end=front_end)
        frozen = len(self.backbone.blocks) - blocks  # this many leading blocks stay
        depths = self.backbone.depths()
        unused = self.backbone.measured.unused if self.backbone.measured else ()
        spared = f"{self.backbone.front_end}." if self.backbone.front_end and not front_end else None
        for name, parameter in self.backbone.module.named_parameters():
            trains = blocks == total or (blocks > 0 and depths[name] > frozen)
            trains = trains and name not in unused and not (spared and name.startswith(spared))
            parameter.requires_grad_(trains and parameter.is_floating_point())
        for parameter in self.head.parameters():
            parameter.requires_grad_(True)
        self.train(self.training)

    def opened(self, count: int | float | str, *, front_end: bool = False) -> tuple[int, int]:
        """How many blocks ``thaw`` would open, and of how many.

        Raises:
            ConfigError: not a number of blocks this backbone has, nor a share, nor "all".
        """
        total = len(self.backbone.blocks) - (0 if front_end else self.backbone.front)
        return _blocks_to_thaw(count, total), total

    @property
    def frozen_prefix(self) -> int:
        """How many leading blocks can be cached: nothing up to their end trains or moves. Computed, never stored."""
        depths = self.backbone.depths()
        moving = [depths[name] for name, p in self.backbone.module.named_parameters() if p.requires_grad]
        if self.bn == "train":
            moving += [depths[name] for name in self._batch_norm_parameters()]
        return max(0, min(moving) - 1) if moving else len(self.backbone.blocks)

    def depths(self) -> dict[str, int]:
        """Depth of every parameter by its name in this model; the head is one deeper than the last block."""
        found = {f"backbone.module.{name}": depth for name, depth in self.backbone.depths().items()}
        return found | {f"head.{name}": len(self.backbone.blocks) + 1 for name, _ in self.head.named_parameters()}

    def layers(self) -> list[Layer]:
        """The stem, every block, what follows them, and the head: parameters in all and those that train."""
        blocks = self.backbone.blocks
        names = ["stem", *(block or "network" for block in blocks)]
        totals: dict[str, list[int]] = {name: [depth, 0, 0] for depth, name in enumerate(names)}
        prefixes = tuple(f"{block}." if block else "" for block in blocks)
        for name, depth in self.backbone.depths().items():
            trailing = depth == len(blocks) and not name.startswith(prefixes)
            row = totals.setdefault("after the blocks" if trailing else names[depth], [depth, 0, 0])
            _count(row, self.backbone.module.get_parameter(name))
        head = totals.setdefault("head", [len(blocks) + 1, 0, 0])
        for parameter in self.head.parameters():
            _count(head, parameter)
        return [Layer(name, *row) for name, row in totals.items() if row[1] or name != "stem"]

    def train(self, mode: bool = True) -> Model:
        """Training mode for what trains; frozen parts (their BatchNorm, dropout, stochastic depth) stay in eval."""
        super().train(mode)
        if mode:
            _settle(self.backbone)
            if self.bn != "frozen_eval":
                for part in self.backbone.modules():
                    if isinstance(part, _BatchNorm):
                        part.training = self.bn == "train"
        return self

    def frozen_hash(self) -> str:
        """SHA-256 over every frozen parameter, and every buffer of a module that nothing in it trains.

        Equal before and after a stage, or something frozen moved. BatchNorm statistics are left out where the policy
        lets them move ("train").
        """
        frozen: list[tuple[str, Tensor]] = [
            (name, parameter) for name, parameter in self.named_parameters() if not parameter.requires_grad
        ]
        for name, part in self._frozen_modules():
            if self.bn == "train" and isinstance(part, _BatchNorm):
                continue
            frozen += [(f"{name}.{buffer_name}", buffer) for buffer_name, buffer in part.named_buffers(recurse=False)]
        return identity.digest(frozen)

    def save(self, folder: str | Path, **extra: Any) -> Path:
        """Write the model's folder (see ``saving.save``)."""
        from headstart.models import saving

        return saving.save(self, Path(folder), **extra)

    @classmethod
    def load(cls, folder: str | Path, **extra: Any) -> Model:
        """Read a folder that ``save`` wrote (see ``saving.load``)."""
        from headstart.models import saving

        return saving.load(Path(folder), **extra)

    def _batch_norm_parameters(self) -> list[str]:
        """One parameter name inside every BatchNorm of the backbone (its depth is the module's)."""
        return [
            f"{name}.{next(iter(dict(part.named_parameters())))}"
            for name, part in self.backbone.module.named_modules()
            if isinstance(part, _BatchNorm) and part.affine
        ]

    def _frozen_modules(self) -> list[tuple[str, nn.Module]]:
        """Modules whose nearest owner of parameters (itself or above) has none that trains."""
        found: list[tuple[str, nn.Module]] = []

        def walk(name: str, part: nn.Module, frozen: bool) -> None:
            flags = [parameter.requires_grad for parameter in part.parameters()]
            frozen = not any(flags) if flags else frozen
            if frozen:
                found.append((name, part))
            for child, inner in part.named_children():
                walk(f"{name}.{child}" if name else child, inner, frozen)

        walk("", self, False)
        return found


def _blocks_to_thaw(count: int | float | str, total: int) -> int:
    if count == "all":
        return total
    if isinstance(count, float) and 0 < count <= 1:
        return math.ceil(count * total - 1e-9)
    if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= total:
        return count
    raise ConfigError(
        f"cannot thaw {count!r} of {total} blocks",
        where="blocks",
        remedy=f"give a number from 0 to {total}, a share such as 0.25, or 'all'",
    )


def _settle(backbone: Backbone) -> None:
    """Put every part that nothing trains into eval mode; parts without parameters follow what stands around them.

    Those registered before the first thing that trains (a dropout after the position embeddings) are frozen too:
    otherwise a cached prefix and a live one would differ.
    """
    blocks = {backbone.block(i) for i in range(len(backbone.blocks))}
    started = False

    def walk(part: nn.Module, training: bool) -> None:
        nonlocal started
        flags = [parameter.requires_grad for parameter in part.parameters()]
        part.training = training and (any(flags) if flags else started)
        holds_block = part in blocks or any(inner in blocks for inner in part.modules())
        if any(flags) and (part in blocks or not holds_block):
            started = True
        for inner in part.children():
            walk(inner, part.training)

    walk(backbone.module, backbone.training)
    backbone.training = backbone.module.training


def _count(row: list[int], parameter: nn.Parameter) -> None:
    row[1] += parameter.numel()
    row[2] += parameter.numel() if parameter.requires_grad else 0
