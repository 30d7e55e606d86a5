"""What the user may say about the data: where it is, which columns, how it is split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, config=_STRICT)
class SplitSettings:
    """Shares of the rows for the splits that the user did not give; with ``folds``, each fold is the test split once.

    ``group_by`` keeps rows together: a column of the table, or a regular expression with one group that is searched in
    the file name (in the path relative to the data when the pattern contains a slash), such as ``(\\w+)_\\d+``.
    """

    val: Share = 0.15
    test: Share = 0.15
    group_by: str | None = None
    folds: Annotated[int, Field(ge=2, le=100)] | None = None  # cross-validation: the plan runs once a fold

    @model_validator(mode="after")
    def _leaves_rows_to_train(self) -> SplitSettings:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test = {self.val + self.test:g} leaves no rows to train on")
        return self


@dataclass(frozen=True, config=_STRICT)
class DataSettings:
    """The data of a run. Columns that are not named are found by familiar names."""

    source: Any = None
    split: SplitSettings = Field(default_factory=SplitSettings)
    modality: str = "auto"
    input_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    config: str | None = None  # the configuration of a Hub dataset
    limit: Annotated[int, Field(ge=2)] | None = None  # at most so many rows, stratified over splits and classes
    channels: Annotated[int, Field(ge=1)] = 3
    on_unreadable: Literal["skip", "stop"] = "skip"
    max_unreadable: Annotated[float, Field(ge=0, le=1)] = 0.05  # a larger share of unreadable or missing files stops
