"""Continued pretraining: the backbone restores masked words of the user's own texts before it learns the classes.

Gururangan et al. 2020, Don't Stop Pretraining. Rates and schedule are those of the Hugging Face recipe (run_mlm).
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from headstart.stages.base import STRICT, Training


@dataclass(frozen=True, config=STRICT)
class Settings(Training):
    """``texts``: a table, a folder, or a ``.txt`` file with a text a line; without it the training texts are used.

    Every epoch hides another ``share`` of the tokens. The stage knows no classes: it is judged by what restoring the
    words of the validation texts costs, against the backbone as it was.
    """

    texts: str | None = None
    share: float = Field(default=0.15, gt=0.0, lt=1.0)
    epochs: int = Field(default=3, ge=1, le=10_000)
    lr: float = Field(default=5e-5, gt=0.0, le=10.0)
    head_multiple: float = Field(default=1.0, gt=0.0)
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    batch_size: int = Field(default=16, ge=1)
    schedule: Literal["one_cycle", "cosine", "linear", "constant"] = "linear"
    prepares: bool = field(default=True, init=False, repr=False)
    # what only classes have, or pictures
    metric: str = field(default="auto", init=False, repr=False)
    label_smoothing: float = field(default=0.0, init=False, repr=False)
    mixup: float = field(default=0.0, init=False, repr=False)
    cutmix: float = field(default=0.0, init=False, repr=False)
    mix_probability: float = field(default=1.0, init=False, repr=False)
    class_weights: Literal["none"] = field(default="none", init=False, repr=False)
    sampler: Literal["shuffle"] = field(default="shuffle", init=False, repr=False)
    augment: Any = field(default="none", init=False, repr=False)
    views: Literal["live"] = field(default="live", init=False, repr=False)
    bn: Literal["eval"] = field(default="eval", init=False, repr=False)
    front_end: bool = field(default=False, init=False, repr=False)
