"""The same network from random weights: what transfer has to beat."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from headstart.stages.base import STRICT, Training


@dataclass(frozen=True, config=STRICT)
class Settings(Training):
    """All weights are drawn anew; one rate for every block, and BatchNorm learns its statistics."""

    epochs: int = Field(default=20, ge=1, le=10_000)
    lr: float = Field(default=1e-3, gt=0.0, le=10.0)
    head_multiple: float = Field(default=1.0, gt=0.0)
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    bn: Literal["eval", "frozen_eval", "train"] = "train"
    front_end: bool = True
