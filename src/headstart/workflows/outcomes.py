"""What a stage gave, and how it is written down."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import manifest
from headstart.core.errors import ConfigError
from headstart.core.events import StageDone
from headstart.engine.cache import CacheDecision
from headstart.engine.checkpoint import Checkpoints, save_tensors
from headstart.measure.evaluation import Evaluation
from headstart.measure.metrics import OwnMetric
from headstart.measure.restoring import Restoring
from headstart.models.model import Model
from headstart.stages.base import Stage, as_mapping
from headstart.stages.gates import Verdict
from headstart.stages.learner import POOLED
from headstart.stages.methods import probe

if TYPE_CHECKING:
    from headstart.engine.limits import Gauge


@dataclass
class Outcome:
    """What a stage gave, before the gate judged it."""

    evaluation: Evaluation | Restoring
    rates: dict[int, float] = field(default_factory=dict)  # learning rate by depth
    updates: int = 0
    epochs: int = 0
    trained: int = 0  # numbers that the optimizer moved; 0 where there was none
    again: bool = True  # whether the answers that count took another pass over the validation rows
    cache: CacheDecision | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> Evaluation | Restoring:
        """The same as the finished model decides (see ``Evaluation.decided``)."""
        return self.evaluation.decided() if isinstance(self.evaluation, Evaluation) else self.evaluation


def result(
    model: Model,
    index: int,
    stage: Stage,
    outcome: Outcome,
    verdict: Verdict,
    metric: str | OwnMetric,
    seconds: float,
) -> dict[str, Any]:
    """What ``result.json`` of the stage holds."""
    layers = [
        {
            **asdict(layer),
            "frozen": not layer.trainable,
            "lr": outcome.rates.get(layer.depth) if layer.trainable else None,
        }
        for layer in model.layers()
    ]
    return {
        "index": index,
        "name": stage.title,
        "method": stage.method,
        "settings": as_mapping(stage),
        "trainable": outcome.trained or sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters()),
        "frozen_blocks": model.frozen_prefix,
        "blocks": len(model.backbone.blocks),
        "updates": outcome.updates,
        "epochs": outcome.epochs,
        "seconds": seconds,
        "metrics": {"val": outcome.judged.as_json(metric)},
        "verdict": verdict.as_json(),
        "cache": None if outcome.cache is None else outcome.cache.__dict__,
        "layers": layers,
        **outcome.details,
    }


def limit(gauge: Gauge, index: int, stage: Stage, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """How near the stage came to what the machine allows, for its ``result.json``."""
    above = outcome.cache.frontier if outcome.cache is not None and outcome.cache.used else 0
    return gauge.told(
        index,
        stage,
        seconds,
        start=POOLED if isinstance(stage, probe.Settings) else above,
        epochs=outcome.epochs,
        updates=outcome.updates,
        trained=outcome.trained,
        again=outcome.again,
        solved=outcome.details.get("probe", {}).get("iterations", ()),
    )


def write(
    folder: Path, model: Model, result: dict[str, Any], evaluation: Evaluation | Restoring, verdict: Verdict
) -> None:
    """The stage's folder; its manifest comes last and makes it count."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest.write_json(folder / "result.json", result)
    if isinstance(evaluation, Evaluation):
        evaluation.save(folder / "predictions.npz")
    if verdict.decision == "keep":
        changed = dict(model.state_dict())
        if result["method"] == "probe":
            changed = {name: value for name, value in changed.items() if name.startswith("head.")}
        save_tensors(folder / "state" / "model.safetensors", changed)
    manifest.seal(folder, without="state/step-*")
    Checkpoints(folder / "state").clear()


def stored(folder: Path, index: int, stage: Stage) -> dict[str, Any]:
    """What ``result`` gave, of a stage that is complete.

    Raises:
        ArtefactError: the folder is damaged. ConfigError: it is of other settings.
    """
    manifest.check(folder)
    found: dict[str, Any] = manifest.read_json(folder / "result.json")
    if found["settings"] != json.loads(json.dumps(as_mapping(stage))):
        raise ConfigError(
            f"stage {index} ({stage.title}) of this run was made with other settings",
            where=str(folder),
            remedy="give the run another --name, or restore the settings",
        )
    return found


def done(result: dict[str, Any], verdict: Verdict) -> StageDone:
    """What is said of a stage that ended."""
    return StageDone(
        stage=result["index"],
        name=result["name"],
        seconds=result["seconds"],
        decision=verdict.decision,
        reason=verdict.reason,
        metrics=result["metrics"]["val"],
    )
