"""Contrastive fine-tuning for few rows (SetFit, Tunstall et al. 2022): rows of a class are drawn together.

The backbone learns that the features of two rows of one class point the same way (cosine 1), those of two classes not
(0); then the head is solved on its features, as a probe does. Its defaults are SetFit's: AdamW at 2e-5, one epoch.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from headstart.stages.base import STRICT, Share, Training


@dataclass(frozen=True, config=STRICT)
class Settings(Training):
    """``pairs``: how many pairs every row begins in an epoch, half of them with a row of its own class.

    ``blocks``: how many of the last blocks train, as of ``thaw``. A batch holds ``batch_size`` pairs.
    """

    blocks: Share = "all"
    pairs: int = Field(default=20, ge=2, le=1000)
    epochs: int = Field(default=1, ge=1, le=10_000)
    lr: float = Field(default=2e-5, gt=0.0, le=10.0)
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    batch_size: int = Field(default=16, ge=1)
    schedule: Literal["one_cycle", "cosine", "linear", "constant"] = "linear"
    bn: Literal["eval", "frozen_eval", "train"] = "eval"
    solves: bool = field(default=True, init=False, repr=False)  # its head, at the end
    # what only a trained head has
    head_multiple: float = field(default=1.0, init=False, repr=False)
    label_smoothing: float = field(default=0.0, init=False, repr=False)
    mixup: float = field(default=0.0, init=False, repr=False)
    cutmix: float = field(default=0.0, init=False, repr=False)
    mix_probability: float = field(default=1.0, init=False, repr=False)
    class_weights: Literal["none"] = field(default="none", init=False, repr=False)
    sampler: Literal["shuffle"] = field(default="shuffle", init=False, repr=False)
    views: Literal["live"] = field(default="live", init=False, repr=False)
    find_lr: bool = field(default=False, init=False, repr=False)
    augment: Any = "none"

    def updates_per_epoch(self, rows: int) -> int:
        """Optimizer steps in one pass over the pairs of ``rows`` training rows."""
        return max(1, -(-rows * 2 * (self.pairs // 2) // self.batch_size))

    def passes(self, rows: int) -> int:
        """Both rows of every pair."""
        return self.epochs * rows * 4 * (self.pairs // 2)
