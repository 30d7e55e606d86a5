"""Thaw the last blocks (a number, a share, or all) and train them with rates that fall with depth."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from headstart.stages.base import STRICT, Share, Training


@dataclass(frozen=True, config=STRICT)
class Settings(Training):
    """``blocks``: how many of the last blocks train: a number, a share of them below 1, or ``all``.

    BatchNorm keeps its running statistics (``bn: eval``): a head that a probe solved on them is handed over exactly,
    and small batches cannot spoil them.
    """

    blocks: Share = "all"
    bn: Literal["eval", "frozen_eval", "train"] = "eval"

    @property
    def title(self) -> str:
        return self.name or f"thaw-{self.blocks}"
