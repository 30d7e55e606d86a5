"""What a finished run answers on labelled rows: its own test rows, or others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import ArtefactError, ConfigError
from headstart.core.events import Event
from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation
from headstart.workflows import seen
from headstart.workflows.classifier import Classifier
from headstart.workflows.predict import load

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings

Emit = Callable[[Event], None]


def evaluate(
    path: str | Path | Run,
    data: Any = None,
    *,
    input_column: str | None = None,
    label_column: str | tuple[str, ...] | None = None,
    sampling_rate: int | None = None,
    allow_module: Any = False,
    on_event: Emit | None = None,
) -> Evaluation:
    """What a run's model answers on labelled data, or on the run's own test rows (every such reading is counted).

    Args:
        input_column, label_column: of a table; unless told those of the run where it has them, else familiar ones.
        sampling_rate: of sounds given as arrays; unless told that of the run's.

    Raises:
        ArtefactError: the run has no test rows of its own, and no ``data`` is given.
    """
    run = path if isinstance(path, Run) else Run.open(path)
    told = {"input_column": input_column, "label_column": label_column}
    if data is None:
        if any(told.values()) or sampling_rate is not None:
            what = "columns or a rate are told, and no data"
            raise ConfigError(what, where="data", remedy="give labelled data with --data")
        file = run.path / "predictions-test.npz"
        if not file.is_file():
            what = "this run has no test rows"
            if (run.path / "folds.json").is_file():
                what = "every row was tested once, fold by fold: predictions-folds.npz holds the answers"
            raise ArtefactError(what, where=str(run.path), remedy="give labelled data with --data")
        run.count_test_read()
        names = (run.read("rows.json") or {}).get("test")
        found = Evaluation.load(file).with_temperature(run.read("result.json")["temperature"])
        return replace(found, names=None if names is None else tuple(names))
    from headstart.data import sources

    model = load(run, allow_module=allow_module)
    rows, classes = sources.read_labelled(data, _reading(run, model, data, told, sampling_rate))
    where = str(data) if isinstance(data, (str, Path)) else ""
    seen.warn(run, rows.items, model.modality, on_event)
    return model.evaluate(rows, classes, "given", on_event, where=where)


def _reading(run: Run, model: Classifier, data: Any, told: dict[str, Any], rate: int | None) -> DataSettings:
    """How other labelled data are read: as the run's were, columns and what says that rows may have several labels."""
    from headstart.data import sources
    from headstart.data.reading.columns import holds
    from headstart.data.settings import DataSettings
    from headstart.experiment import load as read_experiment

    known = read_experiment(run.path / "experiment.yaml", metric="auto").data  # a file holds no function
    usual = {name: value for name in told if (value := getattr(known, name)) is not None}
    columns = sources.columns_of(data) if usual else ()
    usual = {name: value for name, value in usual.items() if holds(columns, value)}
    told = usual | {name: value for name, value in told.items() if value is not None}
    if model.several:
        told |= {"task": "multilabel", "label_separator": known.label_separator}
        if not columns and isinstance(known.label_column, tuple):  # such as of a data set of the Hub
            told.setdefault("label_column", known.label_column)
    told["sampling_rate"] = known.sampling_rate if rate is None else sources.rate_of(rate, model.modality)
    return DataSettings(on_unreadable="stop", modality=model.modality, **told)
