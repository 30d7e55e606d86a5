"""Linear probe: the backbone stays frozen, the head is solved on cached features for a whole path of strengths."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from headstart.stages.base import STRICT, Stage, Training


@dataclass(frozen=True, config=STRICT)
class Settings(Stage):
    """``views`` augmented copies of the training rows are cached (1: the plain picture only)."""

    views: int = Field(default=1, ge=1, le=64)
    augment: Any = "light"  # of the views after the first
    strengths: tuple[float, ...] | None = None  # L2 strengths of the path; None: a documented log-spaced default
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    solves: bool = field(default=True, init=False, repr=False)

    def as_training(self) -> Training:
        """Settings to train a head that has no closed form (mlp, cosine) on the cached features, by gradient steps."""
        return Training(
            name=self.title,
            gate=self.gate,
            epochs=100,
            lr=1e-3,
            head_multiple=1.0,
            weight_decay=0.01,
            class_weights=self.class_weights,
            patience=15,
        )
