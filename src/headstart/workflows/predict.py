"""What one does with a finished run: open it, predict new rows, take embeddings.

Shapes: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import manifest, process, settings
from headstart.core.errors import ArtefactError, ConfigError, MissingExtra
from headstart.core.events import Event
from headstart.core.run import Run
from headstart.data.reading.unlabelled import NOTHING, Usual
from headstart.measure.prediction import Predictions
from headstart.workflows.classifier import Classifier

if TYPE_CHECKING:
    from headstart.deploy.predictor import Predictor

Emit = Callable[[Event], None]


@process.importing()
def load(path: str | Path | Run, *, device: str = "cpu", allow_module: Any = False) -> Classifier:
    """The model of a run, of a model folder, or of ``hf://owner/name`` on the Hub (``@revision`` pins it).

    Raises:
        ArtefactError: no model is there, or it is damaged. Unreachable: it is on the Hub, which does not answer.
    """
    from headstart.deploy.folder import is_export
    from headstart.engine.runtime import choose_device
    from headstart.models import published
    from headstart.models.model import Model

    folder = Run.place(path)
    place = published.address(folder)
    if place is not None:
        folder = published.fetch(*place)
    usual = usual_of(folder)
    if (folder / "model").is_dir():
        folder = folder / "model"
    if not (folder / "headstart.json").is_file() and (is_export(folder) or not manifest.is_sealed(folder)):
        raise _no_model(folder)
    return Classifier(Model.load(folder, allow_module=allow_module).to(choose_device(device)), usual)


def usual_of(run: Path) -> Usual:
    """The column of its tables and the rate of its arrays that a run was told, whatever else its settings name."""
    file = run / "experiment.yaml"
    data = settings.read(file).plain().get("data") if file.is_file() else None
    return Usual(*(data.get(name) for name in Usual._fields)) if isinstance(data, dict) else NOTHING


def answerer(
    path: str | Path | Run,
    *,
    variant: str | None = None,
    device: str = "cpu",
    allow_module: Any = False,
    on_event: Emit | None = None,
) -> Classifier | Predictor:
    """What predicts: of an export the best accepted variant; of a run its model, or its export where torch is missing.

    Args:
        variant: of the export, by name and whatever its verdict, instead.

    Raises:
        ArtefactError: neither is there, or it is damaged.
        ConfigError: a device that is no CPU, and an export.
        MissingExtra: a run without an export, and no torch.
    """
    from headstart.deploy.folder import EXPORT, exported, is_export

    place = Run.place(path)
    if variant is not None:
        place = exported(place, "only an export has variants")
    if not is_export(place):
        try:
            return load(path, device=device, allow_module=allow_module)
        except ModuleNotFoundError as error:
            if not is_export(place / EXPORT):
                raise MissingExtra("torch", "train", "predicting with a run that was not exported") from error
        place = place / EXPORT
    if device not in ("cpu", "auto"):
        what = f"what answers here is an export, which runs on the CPU, not on {device}"
        raise ConfigError(what, where=str(place), remedy="leave the device out")
    from headstart.deploy.predictor import Predictor

    return Predictor(place, variant=variant, on_event=on_event)


def _no_model(folder: Path) -> ArtefactError:
    from headstart.deploy.folder import EXPORT, is_export

    if is_export(folder):
        run = folder.parent if (folder.parent / "experiment.yaml").is_file() else "the run that it was exported from"
        what, remedy = "an export answers, and holds no network to open", f"give {run}"
    elif (folder / "folds.json").is_file():
        what, remedy = "a cross-validated run keeps the models of its folds", f"give one of them: {folder / 'fold-1'}"
    elif folder.name == EXPORT and (folder.parent / "experiment.yaml").is_file():
        what, remedy = "this run has no export yet", f"headstart export {folder.parent}"
    elif folder.suffix == ".onnx" and folder.is_file():
        what, remedy = "an ONNX file alone is no export", f"give the folder that holds it: {folder.parent}"
    elif (folder / "experiment.yaml").is_file() and (folder / "result.json").is_file():
        what, remedy = "the model of this run is gone", f"restore {folder / 'model'}, or train again under another name"
    elif (folder / "experiment.yaml").is_file():
        what, remedy = "this run did not finish", "the same `headstart fit` with --resume goes on with it"
    else:
        what, remedy = "there is no model here", "give a run folder such as runs/photos, or its model/"
    return ArtefactError(what, where=str(folder), remedy=remedy)


def predict(
    path: str | Path | Run,
    source: Any,
    *,
    top_k: int | None = None,
    input_column: str | None = None,
    sampling_rate: int | None = None,
    allow_module: Any = False,
    on_event: Emit | None = None,
) -> Predictions:
    """Labels and probabilities for new rows; see ``Classifier.predict`` and, of an export, ``Predictor.predict``."""
    model = answerer(path, allow_module=allow_module, on_event=on_event)
    return model.predict(source, top_k=top_k, input_column=input_column, sampling_rate=sampling_rate, on_event=on_event)


def embed(
    path: str | Path | Run,
    source: Any,
    *,
    input_column: str | None = None,
    sampling_rate: int | None = None,
    allow_module: Any = False,
    on_event: Emit | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Features of new rows; see ``Classifier.embed``."""
    model = load(path, allow_module=allow_module)
    return model.embed(source, input_column=input_column, sampling_rate=sampling_rate, on_event=on_event)
