"""What the user may say about the data: where it is, which columns, how it is split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
Share = Annotated[float, Field(ge=0, lt=1)]
DEFAULT_TEST = 0.15  # of the rows, where that is enough of them to tell something


@dataclass(frozen=True, config=_STRICT)
class SplitSettings:
    """Shares of the rows for the splits that the user did not give; with ``folds``, each fold is the test split once.

    ``test`` is honoured where it is given, 0 for none; without it, 0.15 of the rows become the test split where that is
    50 at least, and none is drawn otherwise (said in a note).

    ``group_by`` keeps rows together: a column of the table, or a regular expression with one group that is searched in
    the file name (in the path relative to the data when the pattern contains a slash), such as ``(\\w+)_\\d+``.
    """

    val: Share = 0.15
    test: Share | None = None
    group_by: str | None = None
    folds: Annotated[int, Field(ge=2, le=100)] | None = None  # cross-validation: the plan runs once a fold

    @model_validator(mode="after")
    def _leaves_rows_to_train(self) -> SplitSettings:
        taken = self.val + (DEFAULT_TEST if self.test is None else self.test)
        if taken >= 1:
            raise ValueError(f"val + test = {taken:g} leaves no rows to train on")
        return self


@dataclass(frozen=True, config=_STRICT)
class DataSettings:
    """The data of a run. Columns that are not named are found by familiar names.

    Rows may have several labels, or none, where the label column holds lists, or says so by ``label_separator``, by
    several names, or by ``task: multilabel``.
    """

    source: Any = None
    split: SplitSettings = Field(default_factory=SplitSettings)
    modality: str = "auto"
    input_column: str | None = None
    task: Literal["auto", "classify", "multilabel"] = "auto"  # one label a row, or any number; auto: told from the data
    label_column: str | tuple[str, ...] | None = None  # several are labels themselves: 1 for the rows that have them
    label_separator: Annotated[str, Field(min_length=1)] | None = None  # between the labels of a row
    split_column: str | None = None
    config: str | None = None  # the configuration of a Hub dataset
    limit: Annotated[int, Field(ge=2)] | None = None  # at most so many rows, stratified over splits and classes
    channels: Annotated[int, Field(ge=1)] = 3  # of pictures
    max_length: Annotated[int, Field(ge=4)] | None = None  # tokens of a text; None: what is usual and the network takes
    seconds: Annotated[float, Field(ge=0.1, le=60)] | None = None  # of a sound's window; None: chosen from the lengths
    sampling_rate: Annotated[int, Field(ge=1_000, le=768_000)] | None = None  # of samples given as arrays alone
    on_unreadable: Literal["skip", "stop"] = "skip"
    max_unreadable: Annotated[float, Field(ge=0, le=1)] = 0.05  # a larger share of unreadable or missing files stops

    @model_validator(mode="after")
    def _says_one_thing(self) -> DataSettings:
        if self.task == "classify" and (self.label_separator or isinstance(self.label_column, tuple)):
            raise ValueError("task classify has one label a row, and label_separator or several columns say otherwise")
        if self.label_separator and isinstance(self.label_column, tuple):
            raise ValueError("label_separator parts one column, and several are named")
        return self
