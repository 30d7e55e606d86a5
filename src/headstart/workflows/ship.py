"""``export``: from a finished run to files that run without torch, each with its proof. To be read like a recipe.

Shapes: B rows of a batch, K classes.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart import __version__
from headstart.core import manifest, registry, storage
from headstart.core.errors import ArtefactError, NothingAccepted
from headstart.core.events import Event, Progress
from headstart.core.run import Run
from headstart.deploy import card, contract, folder, graph, timing, verdict
from headstart.deploy.folder import Golden
from headstart.deploy.predictor import RUNTIMES, Variant, open_session, usable_cores
from headstart.deploy.verdict import BATCHES, Judged, Speed
from headstart.measure.evaluation import Evaluation
from headstart.workflows import materials
from headstart.workflows.materials import Decoded
from headstart.workflows.predict import load

if TYPE_CHECKING:
    from headstart.engine.streams import Examples
    from headstart.models.model import Model

Emit = Callable[[Event], None]
Session = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
EXPORT = "export"  # the folder inside that of the run
SHARES = ("accuracy", "top5", "macro_f1", "balanced_accuracy")  # metrics whose points a tolerance speaks of
GOLDEN_ROWS = 4


@dataclass(frozen=True)
class Settings:
    """What an export has to keep.

    ``tolerance`` is the loss of the metric that is accepted (0.005: half a point); ``precision`` asks for a threshold
    below which the answer is "don't know", so that what is answered is right that often on validation rows;
    ``seconds`` go into each comparison by the clock.
    """

    tolerance: float = verdict.TOLERANCE
    precision: float | None = None
    int8: bool = True
    threads: int | None = None
    seconds: float = 6.0


@dataclass
class Bench:
    """What every variant is judged with."""

    place: Path
    val: Examples
    reference: Evaluation
    golden: Golden
    metric: str
    threads: int
    settings: Settings
    emit: Emit
    plain: Session | None = None  # the plain file in ONNX Runtime


@storage.reported("the export")
def export(
    path: str | Path | Run, *, data: Any = None, settings: Settings | None = None, on_event: Emit | None = None
) -> Path:
    """Write ``RUN/export``: ONNX files, the verdict on each way to run them, golden rows; the folder's path.

    Args:
        data: the data of the run, where it was given in Python or has moved.
        on_event: called with every event, to show progress.

    Raises:
        ArtefactError: the run has no model, or these are not its rows.
        NothingAccepted: no variant kept what it had to keep; the verdict says why.
    """
    settings, emit = settings or Settings(), on_event or (lambda event: None)
    run = path if isinstance(path, Run) else Run.open(path)
    model = load(run).model
    decoded = rows_of(run, model, data, emit)
    with _draft(run.path / EXPORT) as place:
        emit(Progress("export", 0, 3, "files", folder.FLOAT))
        graph.write(model, place / folder.FLOAT)
        if contract.read(place / folder.FLOAT) != graph.contract_of(model):
            raise ArtefactError("the file does not say what the model does", where=folder.FLOAT)
        bench = _bench(run, model, decoded, place, settings, emit)
        judged = _plain(bench)
        if settings.int8:
            judged += _climb(bench, decoded)
        judged_json = [each.as_json() for each in judged]
        order = verdict.order(judged)
        manifest.write_json(place / folder.VERDICT, _verdict(bench, decoded, judged_json, order))
        manifest.write_text(place / folder.README, card.readme(judged, order, bench.reference.classes, bench.metric))
        manifest.seal(place)
    if not order:
        reasons = "; ".join(f"{each.name}: {each.refused}" for each in judged)
        remedy = "a larger --tolerance accepts more; the run itself predicts with torch"
        raise NothingAccepted(f"no variant was accepted ({reasons})", where=str(run.path / EXPORT), remedy=remedy)
    return run.path / EXPORT


def rows_of(run: Run, model: Model, data: Any, emit: Emit) -> Decoded:
    """The rows that the run was trained and judged on, decoded for its model.

    Raises:
        ArtefactError: other rows than the run's are there now.
    """
    from dataclasses import replace

    from headstart.experiment import load as read_experiment

    experiment = read_experiment(run.path / "experiment.yaml")
    known = run.read("data.json", default={})
    if data is None and experiment.data.source is None:
        remedy = "give it with --data FOLDER, or in Python: export(run, data=…)"
        raise ArtefactError("the run was trained on data given in Python", where=str(run.path), remedy=remedy)
    if isinstance(data, (str, Path)):
        experiment = replace(experiment, data=replace(experiment.data, source=str(data)))
        data = None
    collection = materials.collect(experiment, data)
    decoded = materials.decode(collection, experiment, model.backbone.spec, _progress_only(emit))
    if decoded.splits.fingerprint != known.get("fingerprint"):
        remedy = "restore them, or give their new place with --data"
        what = f"the rows of {decoded.splits.source} are not those that the run was trained and judged on"
        raise ArtefactError(what, where=str(run.path), remedy=remedy)
    return decoded


def _bench(run: Run, model: Model, decoded: Decoded, place: Path, settings: Settings, emit: Emit) -> Bench:
    from headstart.engine import features
    from headstart.engine.runtime import Runtime

    val = decoded.examples("val")
    reference = features.evaluate(model, val, Runtime("cpu"), batch_size=BATCHES[1], emit=emit)
    few = next(iter(val.batches(np.arange(min(GOLDEN_ROWS, len(val))), batch_size=GOLDEN_ROWS))).inputs
    golden = graph.golden(model, few)
    golden.save(place / folder.GOLDEN)
    judged_by = run.read("result.json", default={}).get("metric")
    metric = judged_by if judged_by in SHARES else "accuracy"
    threads = settings.threads or usable_cores()
    return Bench(place, val, reference, golden, metric, threads, settings, emit)


def _plain(bench: Bench) -> list[Judged]:
    """The plain file in every runtime and precision that is here."""
    variants = [
        Variant(folder.FLOAT, name, precision, 0.0)
        for name in _runtimes()
        for precision in registry.find(RUNTIMES, name).PRECISIONS
    ]
    return _judge(bench, variants, "weights as they are")


def _climb(bench: Bench, decoded: Decoded) -> list[Judged]:
    """The rungs of the ladder, until one is accepted in some runtime; of the others only the verdict stays."""
    return []


def _runtimes() -> list[str]:
    """Those that are installed, ONNX Runtime first: the plain file in it is what the others are measured against."""
    return [name for name in registry.names(RUNTIMES) if registry.find(RUNTIMES, name).version()]


def _judge(bench: Bench, variants: list[Variant], how: str) -> list[Judged]:
    """Evaluate every variant on the validation rows, time all of them in turns, and judge."""
    sessions = {_name(each, how): open_session(bench.place, each, bench.threads) for each in variants}
    if bench.plain is None:
        bench.plain = next(iter(sessions.values()))
    speeds = _speeds({"plain": bench.plain, **sessions}, bench)
    found = []
    for (name, session), variant in zip(sessions.items(), variants, strict=True):
        answers, gap = _answers(bench, session, variant), bench.golden.gap(session(bench.golden.inputs)[0])
        found.append(
            verdict.judge(
                bench.reference,
                answers,
                speeds[name],
                speeds["plain"],
                name=name,
                file=variant.file,
                runtime=variant.runtime,
                precision=variant.precision,
                how=how,
                size=(bench.place / variant.file).stat().st_size,
                gap=gap,
                exact=variant.file == folder.FLOAT and variant.precision == "fp32",
                metric=bench.metric,
                tolerance=bench.settings.tolerance,
                wanted_precision=bench.settings.precision,
            )
        )
    return found


def _name(variant: Variant, how: str) -> str:
    kind = variant.file.removeprefix("model.").removesuffix(".onnx").removesuffix("onnx")
    return " ".join(part for part in (variant.runtime, kind or variant.precision) if part)


def _answers(bench: Bench, session: Session, variant: Variant) -> Evaluation:
    """What a variant answers on the validation rows: columns by the names that its own file gives them."""
    val, classes = bench.val, contract.read(bench.place / variant.file).classes
    columns = [classes.index(name) for name in bench.reference.classes]
    parts = []
    for batch in val.batches(np.arange(len(val)), batch_size=BATCHES[1]):
        parts.append((batch.rows, session(batch.inputs)[0][:, columns]))
        bench.emit(Progress("judge", len(parts) * BATCHES[1], len(val) + BATCHES[1], "rows", variant.runtime))
    bench.emit(Progress("judge", 1, 1, "rows"))
    return Evaluation.gather("val", parts, val.rows.labels, bench.reference.classes)


def _speeds(sessions: dict[str, Session], bench: Bench) -> dict[str, Speed]:
    order = np.arange(BATCHES[1]) % len(bench.val)
    many = next(iter(bench.val.batches(order, batch_size=BATCHES[1]))).inputs
    one = np.ascontiguousarray(many[:1])
    timed = [
        timing.interleaved(
            {name: functools.partial(run, inputs) for name, run in sessions.items()}, seconds=bench.settings.seconds
        )
        for inputs in (one, many)
    ]
    return {name: Speed(timed[0][name], timed[1][name]) for name in sessions}


def _verdict(bench: Bench, decoded: Decoded, judged: list[dict[str, Any]], order: list[str]) -> dict[str, Any]:
    return {
        "format": 1,
        "headstart": __version__,
        "host": {"threads": bench.threads, "runtimes": {name: _version(name) for name in _runtimes()}},
        "data": {"split": "val", "rows": len(bench.val), "fingerprint": decoded.splits.fingerprint},
        "metric": bench.metric,
        "tolerance": bench.settings.tolerance,
        "reference": bench.reference.metric(bench.metric).as_json(),
        "variants": judged,
        "accepted": order,
    }


def _version(name: str) -> str:
    return str(registry.find(RUNTIMES, name).version())


def _progress_only(emit: Emit) -> Emit:
    """The audit of these rows was told when the run began."""
    return lambda event: emit(event) if isinstance(event, Progress) else None


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when all of it is written; an old export stays until then."""
    if target.exists() and not folder.is_export(target) and any(target.iterdir()):
        raise ArtefactError("the folder is not empty and holds no export; nothing was written", where=str(target))
    draft = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    manifest.remove(draft)
    draft.mkdir()
    try:
        yield draft
        old = target.with_name(f".{target.name}.tmp-old-{os.getpid()}")
        if target.exists():
            os.replace(target, old)
        os.replace(draft, target)
        manifest.remove(old)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
