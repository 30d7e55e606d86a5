"""Headstart: transfer learning in measured stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from headstart.core.errors import HeadstartError
    from headstart.core.events import Event
    from headstart.core.run import Run
    from headstart.data.audit import Audit
    from headstart.data.modalities.audio import AudioSpec
    from headstart.data.modalities.image import ImageSpec
    from headstart.data.modalities.text import TextSpec
    from headstart.data.splits import Splits
    from headstart.deploy.predictor import Predictor
    from headstart.experiment import Experiment
    from headstart.measure.evaluation import Evaluation
    from headstart.measure.prediction import Predictions
    from headstart.workflows.classifier import Classifier
    from headstart.workflows.plan import PlanTable

__version__ = "0.1.0"
__all__ = [
    "AudioSpec",
    "Experiment",
    "HeadstartError",
    "ImageSpec",
    "Run",
    "TextSpec",
    "__version__",
    "audit",
    "embed",
    "evaluate",
    "export",
    "fit",
    "load",
    "plan",
    "predict",
]

_CLASSES = {
    "AudioSpec": "headstart.data.modalities.audio",
    "Experiment": "headstart.experiment",
    "HeadstartError": "headstart.core.errors",
    "ImageSpec": "headstart.data.modalities.image",
    "Run": "headstart.core.run",
    "TextSpec": "headstart.data.modalities.text",
}


def fit(
    data: Any = None,
    *,
    config: str | Path | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Run:
    """Train in measured stages: ``fit("photos/", backbone="timm/resnet18.a1_in1k", plan="gradual", lr=3e-4)``.

    Args:
        data: a folder, a table, a Hub id, a DataFrame, ``(X, y)`` arrays, a list of pairs, a dataset; or an Experiment.
        config: a YAML file with settings; those given here win.
        resume: continue the interrupted run of the same experiment.
        on_event: called with every event; None shows progress and what was found in the terminal.
        settings: everything that the file may hold, by the same names.

    Where no stage beat the baseline that needs no backbone, a warning says so and ``Run.beaten_by`` names it.

    Raises:
        HeadstartError: with everything that is wrong, where, and what to do.
    """
    from headstart.workflows.fit import fit as run

    experiment, rows = _experiment(data, config, settings)
    if on_event is not None:
        return run(experiment, data=rows, on_event=on_event, resume=resume)
    from headstart import results
    from headstart.terminal import Terminal

    metric = experiment.metric if isinstance(experiment.metric, str) else ""
    with Terminal(metric=metric, endures=True) as terminal:
        done = run(experiment, data=rows, on_event=terminal, resume=resume)
        terminal.tell(lambda: results.show(done, terminal.console))
    return done


def load(run: str | Path | Run, *, device: str = "cpu", allow_module: Any = False) -> Classifier | Predictor:
    """The model of a run, which takes files: ``load("runs/photos").predict(["new/1.jpg"])``; also ``hf://owner/name``.

    Of an export (``load("runs/photos/export")``), and of a run with one where torch is missing, what predicts without
    torch. A model on your own code needs your consent to import it (``allow_module=True``), or the module itself.
    """
    from headstart.workflows.predict import answerer

    return answerer(run, device=device, allow_module=allow_module)


def predict(
    run: str | Path | Run,
    source: Any,
    *,
    top_k: int | None = None,
    input_column: str | None = None,
    sampling_rate: int | None = None,
    allow_module: Any = False,
) -> Predictions:
    """Labels and probabilities for a folder, a table, files or arrays; ``allow_module`` as in ``load``.

    Sounds as arrays have the rate of those that the run learned from, unless ``sampling_rate`` is told.
    """
    from headstart.workflows.predict import predict as predict_with

    return predict_with(
        run, source, top_k=top_k, input_column=input_column, sampling_rate=sampling_rate, allow_module=allow_module
    )


def evaluate(
    run: str | Path | Run,
    data: Any = None,
    *,
    input_column: str | None = None,
    label_column: str | tuple[str, ...] | None = None,
    sampling_rate: int | None = None,
    allow_module: Any = False,
) -> Evaluation:
    """What the run's model answers on labelled data, or on its own test rows; ``allow_module`` as in ``load``.

    Columns of a table are those of the run where it has them, unless told. Warns where rows are left out, and where
    the run has learned from them.
    """
    from headstart.core import warned
    from headstart.core.events import Notice
    from headstart.workflows.evaluate import evaluate as evaluate_run

    def warn(event: Event) -> None:
        if isinstance(event, Notice) and event.level == "warning":
            warned.warn(event.message)

    return evaluate_run(
        run,
        data,
        input_column=input_column,
        label_column=label_column,
        sampling_rate=sampling_rate,
        allow_module=allow_module,
        on_event=warn,
    )


def embed(
    run: str | Path | Run,
    source: Any,
    *,
    input_column: str | None = None,
    sampling_rate: int | None = None,
    allow_module: Any = False,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Features (N, D) of the run's backbone, and the names of the rows; arguments as in ``predict``."""
    from headstart.workflows.predict import embed as embed_with

    return embed_with(run, source, input_column=input_column, sampling_rate=sampling_rate, allow_module=allow_module)


def export(
    run: str | Path | Run,
    *,
    data: Any = None,
    allow_module: Any = False,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Path:
    """Write ``RUN/export``, ONNX files with a verdict on each way to run them; the folder's path.

    Args:
        data: the data of the run, where it was given in Python or has moved.
        settings: ``tolerance``, ``precision``, ``int8``, ``threads``, ``seconds``, ``runtimes``.
    """
    from headstart.workflows import ship

    chosen = ship.Settings(**settings)
    return ship.export(run, data=data, settings=chosen, allow_module=allow_module, on_event=on_event)


def audit(data: Any = None, *, config: str | Path | None = None, **settings: Any) -> tuple[Splits, Audit]:
    """What is wrong with the data, before anything is trained; nothing is changed."""
    from headstart.workflows.audit import audit as check

    experiment, rows = _experiment(data, config, settings)
    return check(experiment, data=rows)


def plan(data: Any = None, *, config: str | Path | None = None, **settings: Any) -> PlanTable:
    """The stages that ``fit`` would run, with blocks, rates, updates, and estimates of time and memory."""
    from headstart.workflows.plan import plan as lay_out

    experiment, rows = _experiment(data, config, settings)
    return lay_out(experiment, data=rows)


def _experiment(data: Any, config: str | Path | None, settings: dict[str, Any]) -> tuple[Experiment, Any]:
    """The experiment, and the data where they are values and not the name of a place."""
    from headstart.experiment import Experiment, load

    if isinstance(data, Experiment):
        if config is not None or settings:
            raise TypeError("give an Experiment, or settings, not both")
        return data, None
    if data is None or isinstance(data, str) or hasattr(data, "__fspath__"):
        return load(config, data=None if data is None else str(data), **settings), None
    return load(config, **settings), data


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        import importlib

        return getattr(importlib.import_module(_CLASSES[name]), name)
    raise AttributeError(f"module 'headstart' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
