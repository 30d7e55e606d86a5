"""What a stage wants of the frozen blocks, and what was recorded for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.engine.cache import CacheDecision, FrontierCache
from headstart.models.model import Model
from headstart.stages.base import Training


@dataclass(frozen=True)
class Frontier:
    """The cached frontier of one stage, or the reason why there is none."""

    decision: CacheDecision
    train: FrontierCache | None = None
    val: FrontierCache | None = None


@dataclass(frozen=True)
class Wanted:
    """What a stage wants to be recorded: what its frozen blocks give, ``frontier`` of them."""

    stage: Training
    frontier: int
    below: str  # digest of the weights that are frozen in it

    @classmethod
    def by(cls, stage: Training, model: Model) -> Wanted:
        """What a stage wants of the model that is prepared for it."""
        return cls(stage, model.frozen_prefix, model.frozen_hash())

    @property
    def views(self) -> int:
        return 1 if self.stage.views == "live" else self.stage.views

    @property
    def seen(self) -> tuple[int, Any]:
        """How many views, and of what kind."""
        return self.views, self.stage.augment if self.views > 1 else None

    def is_of(self, other: Wanted) -> bool:
        """Whether what is recorded for the other serves this one."""
        return (self.frontier, self.below, *self.seen) == (other.frontier, other.below, *other.seen)


@dataclass(frozen=True)
class Held:
    """What was recorded, of the training and the validation rows."""

    wanted: Wanted
    train: FrontierCache
    val: FrontierCache


@dataclass(frozen=True)
class Passed:
    """Rows that went through the frozen blocks, up to this frontier."""

    rows: int
    frontier: int
    precision: str
