"""What can be known to be wrong before the first stage: settings that do not fit this model or these classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import registry
from headstart.core.errors import ConfigError, HeadstartError, Problem
from headstart.core.events import Decision
from headstart.measure import metrics, own
from headstart.measure.metrics import OwnMetric
from headstart.measure.ranking import SPECIFICITY
from headstart.stages import budget
from headstart.stages.base import Stage, Training
from headstart.stages.methods import contrastive, mlm, probe

if TYPE_CHECKING:
    from headstart.data.splits import Splits
    from headstart.engine.streams import Examples
    from headstart.experiment import Experiment
    from headstart.models.model import Model

MODALITIES = "headstart.data.modalities"
# Settings of some kinds of rows only, each with the value that says nothing.
BELONGS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "image_size": (None, ("image",)),
    "data.channels": (3, ("image",)),
    "data.max_length": (None, ("text",)),
    "data.seconds": (None, ("audio",)),
    "data.sampling_rate": (None, ("audio",)),
    "head.pooling": (None, ("text", "audio")),
}
BLENDING = ("mixup", "cutmix")
FEW = 256  # rows that a metric of the user's own is tried on, beside one of every class
TRIED = 2  # rows that augmentation of the user's own is tried on


def check(
    stages: Sequence[Stage], model: Model, labels: np.ndarray, examples: Examples | None = None, *, force: bool = False
) -> None:
    """Try every setting that depends on the backbone, the classes or a registry, and what the user wrote: augmentation
    of their own sees the first of the training ``examples``, where they are given. ``labels`` are those of the training
    rows; a recipe that takes too few updates on so many is refused, unless ``force``.

    Raises:
        ConfigError: all that cannot work, each with the stage it stands in.
    """
    problems = _order(stages)
    found: dict[tuple[str, str], list[str]] = {}  # what is wrong and its remedy -> where: of several stages told once
    for index, stage in enumerate(stages):
        for setting, trial in _trials(stage, model, labels, examples):
            try:
                trial()
            except HeadstartError as error:
                for each in error.problems:
                    found.setdefault((each.what, each.remedy), []).append(f"plan[{index}].{stage.title}.{setting}")
    problems += [Problem(what, ", ".join(places), remedy) for (what, remedy), places in found.items()]
    problems += [] if force else budget.starved(stages, len(labels))
    if problems:
        raise ConfigError("the plan does not fit the model or the data", problems=problems)


def metric(asked: str | OwnMetric, labels: np.ndarray) -> str | OwnMetric:
    """What the run is judged by; a function of the user's own is tried on some rows, with drawn probabilities.

    Raises:
        ConfigError: the metric says nothing of such labels, or the function fails. That it gives no finite number is no
            reason: that may be due to what is drawn.
    """
    chosen = metrics.usual(asked, labels)
    if isinstance(chosen, str):
        return metrics.check(chosen, labels)
    several = labels.ndim == 2
    _, first = np.unique(labels, axis=0, return_index=True)  # every class is there
    some = labels[np.union1d(first[:FEW], np.arange(min(FEW, len(labels))))]
    drawn = np.random.default_rng(0).random((len(some), labels.shape[1] if several else int(labels.max()) + 1))
    own.tried(metrics.name_of(chosen), chosen, some, drawn if several else drawn / drawn.sum(1, keepdims=True))
    return chosen


def sought(classes: Sequence[str]) -> Decision:
    """Which of two classes a sensitivity is of: nobody has said it, and the names may stand the other way round."""
    let_go, found = map(repr, classes)
    reason = (
        f"the second class by name, where {SPECIFICITY:.0%} of {let_go} are let go; names such as 0-… and 1-… turn it"
    )
    return Decision("sensitivity", f"of {found}", reason)


def task(experiment: Experiment, labels: np.ndarray) -> dict[str, Any]:
    """What the labels say of the model: its task, and the threshold where rows may have several.

    Raises:
        ConfigError: a threshold for rows of one class each: the most likely one is given.
    """
    if labels.ndim == 2:
        return {"task": "multilabel", "threshold": experiment.threshold}
    if experiment.threshold != 0.5:
        what = "rows of one class each are given the most likely one, whatever its probability"
        remedy = "leave it out; export --precision lets a model say that it does not know"
        raise ConfigError(what, where="threshold", remedy=remedy)
    return {"task": "classify"}


def settings(experiment: Experiment, modality: str) -> None:
    """No setting is for another kind of rows than these, or for another kind of head than that.

    Raises:
        ConfigError: all that are.
    """
    problems = []
    for name, (nothing, kinds) in BELONGS.items():
        if attrgetter(name)(experiment) != nothing and modality not in kinds:
            theirs = " and ".join(_noun(kind) for kind in kinds)
            what = f"is a setting of {theirs}, and these rows are {_noun(modality)}"
            problems.append(Problem(what, name, "leave it out, or say what the rows are: data.modality=…"))
    if modality == "audio" and experiment.data.sampling_rate is not None and experiment.data.source is not None:
        what = "is the rate of samples that are given as arrays; files tell their own"
        problems.append(Problem(what, "data.sampling_rate", "leave it out"))
    problems += _no_hidden_layer(experiment)
    if problems:
        raise ConfigError("settings do not fit the rows or the head", problems=problems)


def _no_hidden_layer(experiment: Experiment) -> list[Problem]:
    """The width of a hidden layer, of a head that has none; the usual width says nothing, it is in every file."""
    head = experiment.head
    if head.kind not in ("linear", "cosine") or head.hidden == type(head)().hidden:
        return []
    what = f"is the width of a hidden layer, and a {head.kind} head has none"
    return [Problem(what, "head.hidden", "leave it out, or say head.kind=mlp")]


def _noun(modality: str) -> str:
    return str(registry.find(MODALITIES, modality).NOUN[1])


def _order(stages: Sequence[Stage]) -> list[Problem]:
    """What prepares the backbone comes first: what a stage before it measured would no longer hold."""
    found = []
    learns = [stage.title for stage in stages if not stage.prepares]
    if not learns:
        found.append(Problem("no stage learns the classes", "plan", "for example: plan: [mlm, probe, thaw]"))
    for index, stage in enumerate(stages):
        if stage.prepares and any(not earlier.prepares for earlier in stages[:index]):
            what = f"it changes the backbone, and {stages[index - 1].title} before it would no longer hold"
            found.append(Problem(what, f"plan[{index}].{stage.title}", "write it first: plan: [mlm, probe, thaw]"))
        if stage.prepares and (stage.gate.metric != "auto" or stage.gate.on_fail == "stop"):
            what = "a stage that knows no classes is judged by its own loss, and others have to follow it"
            found.append(Problem(what, f"plan[{index}].{stage.title}.gate", "leave metric and on_fail: stop out"))
    return found


def ranks(splits: Splits, world: int) -> None:
    """Every process needs a row of every split that it shares: without one it would never answer the others.

    Raises:
        ConfigError: a split has fewer rows than there are processes; the same on all of them.
    """
    shared = {name: len(rows) for name, rows in splits.present().items()}
    few = [f"{name} ({count})" for name, count in shared.items() if count < world]
    if few:
        raise ConfigError(
            f"{world} processes cannot share fewer rows than that: {', '.join(few)}",
            where="data",
            remedy=f"start at most {min(shared.values())} processes, or give these splits more rows",
        )


def _trials(
    stage: Stage, model: Model, labels: np.ndarray, examples: Examples | None
) -> list[tuple[str, Callable[[], Any]]]:
    """Settings by name, each with a call that fails where it cannot be used."""
    from headstart.engine import balance, groups

    weights = getattr(stage, "class_weights", "none")
    trials: list[tuple[str, Callable[[], Any]]] = [
        ("augment", partial(_augmented, getattr(stage, "augment", None), model.backbone.modality, examples)),
        ("class_weights", partial(balance.class_weights, labels, model.classes, weights)),
    ]
    for setting, metric in (("gate.metric", stage.gate.metric), ("metric", getattr(stage, "metric", "auto"))):
        if metric != "auto":
            trials.append((setting, partial(metrics.check, metric, labels)))
    if isinstance(stage, mlm.Settings):
        trials.append(("texts", partial(_restores, model)))
    if isinstance(stage, contrastive.Settings):
        trials.append(("head", partial(_solvable, model)))
        trials.append(("pairs", partial(_of_classes, labels)))
    if isinstance(stage, probe.Settings) and stage.strengths is not None:
        trials.append(("strengths", partial(_has_path, model)))
    if getattr(stage, "sampler", "") == "balanced":
        trials.append(("sampler", partial(balance.row_weights, labels, len(model.classes))))
    if isinstance(stage, Training):
        trials += [(name, partial(_blends, model.backbone.modality)) for name in BLENDING if getattr(stage, name)]
        trials.append(("blocks", partial(model.thaw, getattr(stage, "blocks", "all"))))
        trials.append(("rates", partial(groups.rates_by_depth, model.backbone.blocks, **stage.by_depth)))
    return trials


def _augmented(value: Any, modality: str, examples: Examples | None) -> None:
    policy = registry.find(MODALITIES, modality).policy(value)
    if callable(policy) and examples is not None:
        next(iter(examples.batches(np.arange(min(TRIED, len(examples))), batch_size=TRIED, augment=policy, key=(0, 1))))


def _restores(model: Model) -> None:
    """A family with a head for masked words, and a tokenizer that can hide one."""
    from headstart.models import masked

    masked.demand(model.backbone)


def _solvable(model: Model) -> None:
    from headstart.models import heads

    if not isinstance(model.head, heads.Linear):
        raise ConfigError("this stage solves its head, which only a linear one can be", remedy="leave head.kind out")


def _has_path(model: Model) -> None:
    """Strengths are of a head that is solved."""
    from headstart.models import heads

    if not isinstance(model.head, heads.Linear):
        what = f"are those of a head that is solved, and one of kind {model.head.kind} is trained by gradient steps"
        raise ConfigError(what, remedy="leave them out, or leave head.kind out")


def _of_classes(labels: np.ndarray) -> None:
    """Pairs are of one class or of two: rows that may have several labels are neither."""
    if labels.ndim == 2:
        what = "pairs are drawn by class, and these rows may have several labels"
        raise ConfigError(what, remedy="probe and thaw learn them")


def _blends(modality: str) -> None:
    """Mixing is of pictures: half of each of two texts is no text."""
    if modality != "image":
        raise ConfigError(f"blends pictures, and these rows are {_noun(modality)}", remedy="leave it out")
