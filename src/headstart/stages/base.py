"""What a stage is: frozen settings that either solve for a head or build a learner whose forward is the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
Share = Annotated[float, Field(gt=0, le=1)] | Annotated[int, Field(ge=0)] | Literal["all"]


@dataclass(frozen=True, config=STRICT)
class Gate:
    """When a stage replaces the model kept so far: judged on validation rows, pair by pair.

    A stage is kept when it gains more than ``min_gain``; the paired interval says whether that is clear or within the
    noise. A tie keeps the cheaper, earlier model.
    """

    metric: str = "auto"  # auto: the metric of the run
    min_gain: float = Field(default=0.0, ge=0.0, lt=1.0)
    on_fail: Literal["revert", "stop", "warn"] = "revert"


@dataclass(frozen=True, config=STRICT)
class Stage:
    """Settings that all methods share."""

    # shown in tables and folder names; the method's name where None
    name: Annotated[str, Field(pattern=r"^[\w-][\w.-]{0,63}$")] | None = None
    gate: Gate = field(default_factory=Gate)

    @property
    def method(self) -> str:
        """The file name of the method, which is what a plan calls it."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def title(self) -> str:
        return self.name or self.method

    solves: bool = field(default=False, init=False, repr=False)
    prepares: bool = field(default=False, init=False, repr=False)  # the backbone, without a look at the classes


@dataclass(frozen=True, config=STRICT)
class Training(Stage):
    """Settings of every method that trains by gradient steps.

    ``lr`` is the rate of the last thawed block; earlier blocks get ``lr * layer_decay**distance`` and the head
    ``lr * head_multiple``, unless ``rates`` lists a rate for each block by its name (and for ``head``).
    """

    epochs: int = Field(default=5, ge=1, le=10_000)
    lr: float = Field(default=1e-4, gt=0.0, le=10.0)
    find_lr: bool = False  # sweep rising rates first; all rates of the stage are scaled to what the sweep finds
    # None: 10 where the head is new, 1 where an earlier stage has trained it
    head_multiple: Annotated[float, Field(gt=0.0)] | None = None
    layer_decay: float = Field(default=0.75, gt=0.0, le=1.0)
    rates: dict[str, float] | None = None
    batch_size: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)  # micro-batches per update; the effective batch stays batch_size
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    schedule: Literal["one_cycle", "cosine", "linear", "constant"] = "one_cycle"
    warmup: float = Field(default=0.1, ge=0.0, le=1.0)  # share of the updates
    clip: float | None = Field(default=1.0, gt=0.0)
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    mixup: float = Field(default=0.0, ge=0.0)
    cutmix: float = Field(default=0.0, ge=0.0)
    mix_probability: float = Field(default=1.0, ge=0.0, le=1.0)
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    # a preset's name, a mapping of policy fields, or the user's callable; auto: standard, but of texts none
    augment: Any = "auto"
    # cached augmented views of the training rows, or fresh ones every epoch
    views: Annotated[int, Field(ge=1, le=64)] | Literal["live"] = "live"
    bn: Literal["eval", "frozen_eval", "train"] = "frozen_eval"
    front_end: bool = False  # whether the convolutional front end of wav2vec2 and its relatives counts as a block too
    patience: int | None = Field(default=None, ge=1)  # epochs without improvement before stopping
    # what early stopping and the best epoch look at; auto: the run's metric where one was asked for, else the log-loss
    metric: str = "auto"
    time_limit: float | None = Field(default=None, gt=0.0)  # seconds for this stage

    @property
    def thawed(self) -> dict[str, Any]:
        """What of the backbone trains, as ``Model.thaw`` takes it."""
        return {"count": getattr(self, "blocks", "all"), "front_end": self.front_end}

    @property
    def by_depth(self) -> dict[str, Any]:
        """What says how fast each depth trains, as ``engine.groups`` takes it."""
        head = self.lr * (1.0 if self.head_multiple is None else self.head_multiple)
        return {"lr": self.lr, "head_lr": head, "layer_decay": self.layer_decay, "rates": self.rates}

    def updates_per_epoch(self, rows: int) -> int:
        """Optimizer steps in one pass over ``rows`` training rows; the uneven last batch counts."""
        return max(1, -(-rows // self.batch_size))

    def passes(self, rows: int) -> int:
        """Rows that go through the network in the whole stage."""
        return self.epochs * rows

    def updates(self, rows: int) -> int:
        """Optimizer steps of the whole stage."""
        return self.epochs * self.updates_per_epoch(rows)


def as_mapping(stage: Stage) -> Mapping[str, Any]:
    """The settings as plain values for ``experiment.yaml`` and ``result.json``; a callable is shown by its name."""
    import dataclasses

    def plain(value: Any) -> Any:
        if callable(value):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value) if item.init}
        return value

    return {item.name: plain(getattr(stage, item.name)) for item in dataclasses.fields(stage) if item.init}
