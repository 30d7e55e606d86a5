"""The demo: what pretraining is worth on a small labelled set that every installation has, in four runs of ``fit``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core import registry, storage
from headstart.core.errors import ConfigError
from headstart.core.events import Event, Notice, Progress, StageDone
from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import Difference

Emit = Callable[[Event], None]
SAMPLES = "headstart.data.samples"
MODALITIES = ("image", "text", "audio")
OTHER: dict[str, Any] = {"offline": True}  # settings of every run
# After the probe, for networks of two million parameters: the named plans' rates are for ten times as many. Statistics
# of drawn pictures are not those of photographs: BatchNorm learns them anew.
TUNING: dict[str, dict[str, Any]] = {
    "image": {
        "epochs": 12,
        "lr": 2e-3,
        "batch_size": 16,
        "layer_decay": 0.9,
        "augment": "light",
        "bn": "train",
        "label_smoothing": 0.1,
    },
    "text": {"epochs": 8, "lr": 1e-3, "batch_size": 16, "layer_decay": 0.9, "schedule": "linear"},
    "audio": {"epochs": 10, "lr": 5e-4, "batch_size": 16, "layer_decay": 0.9, "augment": "light"},
}


@dataclass(frozen=True)
class Strategy:
    """One way to learn from the labelled rows: a plan, with the pretrained weights or with random ones."""

    title: str
    about: str
    method: str  # scratch, probe, or thaw, which begins with a probe
    pretrained: bool

    @property
    def name(self) -> str:
        """Of its run."""
        return self.title.replace(" ", "-")

    def plan(self, modality: str) -> str | list[Any]:
        """Its plan on rows of a modality."""
        return ["probe", {"thaw": {"blocks": "all", **TUNING[modality]}}] if self.method == "thaw" else self.method


STRATEGIES = (
    Strategy("from scratch", "the same network from random weights, all of it trained", "scratch", False),
    Strategy("frozen random", "random weights that stay as they are, and a new head", "probe", False),
    Strategy("probe", "the pretrained weights as they are, and a new head", "probe", True),
    Strategy("fine-tuned", "the probe, then all of the pretrained network", "thaw", True),
)


@dataclass(frozen=True)
class Line:
    """What a strategy reached on the test rows."""

    strategy: Strategy
    run: Run
    seconds: float
    trained: int  # parameters
    accuracy: dict[str, Any]  # value, low, high, n


@dataclass(frozen=True)
class Demonstration:
    """All strategies on one sample. ``gains`` are those of the pretrained over their random counterparts, paired."""

    modality: str
    title: str
    backbone: str
    rows: dict[str, int]  # of each split
    lines: tuple[Line, ...]
    gains: dict[str, Difference]

    @property
    def run(self) -> Run:
        """The fine-tuned one."""
        return self.lines[-1].run


def demo(modality: str, output_dir: Path, *, on_event: Emit | None = None) -> Demonstration:
    """Write the sample into ``output_dir/demo/<modality>`` and fit on it with every strategy.

    Raises:
        HeadstartError: as ``fit``.
    """
    storage.insist_writable(output_dir, "--output-dir")
    emit = on_event or (lambda event: None)
    if modality not in MODALITIES:
        what = f"there is no demo of '{modality}'{registry.suggest(modality, MODALITIES)}"
        raise ConfigError(what, where="demo", remedy=f"known: {', '.join(MODALITIES)}")
    sample = registry.find(SAMPLES, modality)
    place = output_dir / "demo" / modality
    emit(Notice("info", "demo", f"{sample.TITLE} ({sample.ABOUT}), written to {place / 'data'}"))
    data = sample.write(place / "data")
    own = {"data": str(data), "backbone": sample.BACKBONE, "output_dir": str(place), **sample.SETTINGS, **OTHER}
    lines = tuple(_line(strategy, modality, own, emit) for strategy in STRATEGIES)
    counts = lines[-1].run.read("data.json")["counts"]
    scratch, random, probe, tuned = (Evaluation.load(line.run.path / "predictions-test.npz") for line in lines)
    return Demonstration(
        modality=modality,
        title=sample.TITLE,
        backbone=sample.BACKBONE,
        rows={split: sum(by_class.values()) for split, by_class in counts.items()},
        lines=lines,
        gains={"fine-tuned": tuned.compare(scratch, "accuracy"), "probe": probe.compare(random, "accuracy")},
    )


def _line(strategy: Strategy, modality: str, own: dict[str, Any], emit: Emit) -> Line:
    """One run, of which only the progress is shown: its report tells the rest."""
    from headstart.experiment import load
    from headstart.workflows.fit import fit

    emit(Notice("info", "demo", f"{strategy.title}: {strategy.about}"))
    last = strategy is STRATEGIES[-1]
    experiment = load(
        pretrained=strategy.pretrained,
        plan=strategy.plan(modality),
        name=strategy.name,
        baseline=last,  # the comparison is with the other strategies; the report of the last has the baseline too
        normalisation_check=last,
        **own,
    )
    run = fit(experiment, on_event=_Quiet(emit))
    result, best = run.read("result.json"), run.best() or {}
    return Line(strategy, run, result["seconds"], int(best.get("trainable", 0)), result["metrics"]["test"]["accuracy"])


class _Quiet:
    """Lets only progress through, and ends what a stage leaves open."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.open: dict[str, Progress] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.open[event.task] = event
            self.emit(event)
            if event.done >= event.total:
                del self.open[event.task]
        elif isinstance(event, StageDone):
            for left in self.open.values():
                self.emit(Progress(left.task, left.total, left.total, left.unit))
            self.open.clear()
