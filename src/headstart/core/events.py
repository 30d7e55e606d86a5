"""Frozen values that the engine yields while it works; the run records them, the terminal shows them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """Base of all events. ``recorded`` says whether it goes into ``events.jsonl``."""

    recorded = True

    def as_json(self) -> dict[str, Any]:
        return {"event": type(self).__name__, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know: ``level`` is info or warning, ``kind`` a short code."""

    level: str
    kind: str
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Progress(Event):
    """How far a piece of work is: ``done`` of ``total`` ``unit``; shown, never recorded."""

    recorded = False
    task: str
    done: int
    total: int
    unit: str = "rows"
    note: str = ""


@dataclass(frozen=True)
class Decision(Event):
    """A choice made for the user, with its reason (also collected in ``decisions.json``)."""

    topic: str
    choice: str
    reason: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase(Event):
    """A phase of the run took ``seconds`` (audit, features, probe, report…): where the time goes."""

    name: str
    seconds: float


@dataclass(frozen=True)
class StageStarted(Event):
    stage: int
    name: str
    method: str
    summary: str
    epochs: int = 0
    updates: int = 0


@dataclass(frozen=True)
class EpochDone(Event):
    """One pass over the training rows. ``lr`` is the highest rate of any group at the end of the epoch."""

    stage: int
    epoch: int
    epochs: int
    step: int
    train_loss: float
    val_loss: float
    val_metrics: dict[str, float]
    lr: float
    seconds: float
    improved: bool


@dataclass(frozen=True)
class StageDone(Event):
    """A stage ended; ``decision`` is keep, revert or stop; ``metrics`` are value, low, high, n by name."""

    stage: int
    name: str
    seconds: float
    decision: str
    reason: str
    metrics: dict[str, Any]
