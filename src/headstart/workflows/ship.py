"""``export``: from a finished run to files that run without torch, each with its proof. To be read like a recipe.

Shapes: B rows of a batch, K classes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart import __version__
from headstart.core import keyed, manifest, registry, storage
from headstart.core.errors import ArtefactError, ConfigError, NothingAccepted
from headstart.core.events import Event, Notice, Progress
from headstart.core.machine import processor, usable_cores
from headstart.core.run import Run
from headstart.data.reading.unlabelled import Usual
from headstart.deploy import card, contract, folder, graph, ladder, parallel, verdict
from headstart.deploy.ladder import Climber
from headstart.deploy.predictor import RUNTIMES, Variant, open_session
from headstart.deploy.quantise import Quantiser
from headstart.deploy.verdict import BATCHES, Judged
from headstart.measure import metrics
from headstart.workflows import finish, folds, materials
from headstart.workflows.judging import Judge, runtimes
from headstart.workflows.materials import Decoded
from headstart.workflows.predict import load, usual_of

if TYPE_CHECKING:
    from headstart.models.model import Model

Emit = Callable[[Event], None]
# metrics whose points a tolerance speaks of
SHARES = ("accuracy", "top5", "macro_f1", "balanced_accuracy", "mAP", "micro_f1", "subset_accuracy")
GOLDEN_ROWS = 4


@dataclass(frozen=True)
class Settings:
    """What an export has to keep.

    ``tolerance`` is the loss of the metric that is accepted (0.005: half a point); ``precision`` asks for a threshold
    below which the answer is "don't know", so that what is answered is right that often on validation rows;
    ``seconds`` go into each comparison by the clock; ``runtimes`` are those of the machines that will use the export:
    all that are installed here unless told.
    """

    tolerance: float = verdict.TOLERANCE
    precision: float | None = None
    int8: bool = True
    threads: int | None = None
    seconds: float = 6.0
    runtimes: tuple[str, ...] = ()


@storage.reported("the export")
def export(
    path: str | Path | Run,
    *,
    data: Any = None,
    settings: Settings | None = None,
    allow_module: Any = False,
    on_event: Emit | None = None,
) -> Path:
    """Write ``RUN/export``: ONNX files, the verdict on each way to run them, golden rows; the folder's path.

    Args:
        data: the data of the run, where it was given in Python or has moved.
        allow_module: as for ``headstart.load``: a model on the user's own code.
        on_event: called with every event, to show progress.

    Raises:
        ArtefactError: the run has no model, or these are not its rows.
        ConfigError: a runtime that is not known or not installed.
        NothingAccepted: no variant kept what it had to keep; the verdict says why.
    """
    settings, emit = settings or Settings(), on_event or (lambda event: None)
    runtimes(settings.runtimes)  # a mistake in a name is told at once
    run = path if isinstance(path, Run) else Run.open(path)
    model = load(run, allow_module=allow_module).model
    if model.several and settings.precision is not None:
        what = "one threshold for the most likely label says nothing of rows that may have several"
        raise ConfigError(what, where="--precision", remedy="leave it out; threshold=… of the run says what is given")
    finish.warn_of_baseline(run, emit)
    decoded = rows_of(run, model, data, emit)
    with _draft(run.path / folder.EXPORT) as place:
        emit(Notice("info", "export", f"writing {folder.FLOAT}"))
        graph.write(model, place / folder.FLOAT)
        if contract.read(place / folder.FLOAT) != graph.contract_of(model):
            raise ArtefactError("the file does not say what the model does", where=folder.FLOAT)
        judge = _judge(run, model, decoded, place, settings, emit)
        kept = judge.judge(folder.FLOAT, "weights as they are")
        tried: list[Judged] = []
        if settings.int8 and any(each.accepted for each in kept):
            tried = _climb(judge, decoded)
            kept += [each for each in tried if (place / each.file).is_file()]
        order = verdict.order(kept)
        gone = [each for each in tried if each not in kept]
        _write(judge, decoded, kept, gone, order, usual_of(run.path))
    finish.report(run)
    where = run.path / folder.EXPORT
    if not order:
        reasons = "; ".join(f"{each.name}: {each.refused}" for each in kept)
        remedy = "a larger --tolerance accepts more; the run itself predicts with torch"
        raise NothingAccepted(f"no variant was accepted ({reasons})", where=str(where), remedy=remedy)
    return where


def rows_of(run: Run, model: Model, data: Any, emit: Emit) -> Decoded:
    """The rows that the run was trained and judged on, decoded for its model.

    Raises:
        ArtefactError: other rows than the run's are there now.
    """
    from headstart.experiment import load as read_experiment

    experiment = read_experiment(run.path / "experiment.yaml", metric="auto")  # a file holds no function
    known = run.read("data.json", default={})
    if data is None and experiment.data.source is None:
        remedy = "give it with --data FOLDER, or in Python: headstart.export(run, data=…)"
        raise ArtefactError("the run was trained on data given in Python", where=str(run.path), remedy=remedy)
    if isinstance(data, (str, Path)):
        experiment = replace(experiment, data=replace(experiment.data, source=str(data)))
        data = None
    collection = materials.collect(experiment, data)
    named = run.read("rows.json", default={})
    if (found := folds.held_out(run)) is not None:
        collection = folds.holding_out(collection, np.flatnonzero(np.isin(collection.rows.names, found)))
    decoded = materials.decode(collection, experiment, model.backbone.spec, _progress_only(emit))
    if decoded.splits.fingerprint != known.get("fingerprint"):
        what = f"the rows of {decoded.splits.source} are not those that the run was trained and judged on"
        remedy = "restore them, give their new place with --data, or train on what is there now: headstart fit"
        raise ArtefactError(f"{what}{_moved(named, decoded)}", where=str(run.path), remedy=remedy)
    return decoded


def _moved(named: dict[str, list[str]], decoded: Decoded) -> str:
    """Which rows are gone and which are new since the run."""
    before = {name for names in named.values() for name in names}
    now = {name for rows in decoded.splits.present().values() for name in rows.names}
    changes = {"gone": sorted(before - now), "new": sorted(now - before)}
    told = [f"{len(names)} {how} (such as {names[0]})" for how, names in changes.items() if names]
    return f": {', '.join(told)}" if told else ": the same names with other labels or in other splits"


def _judge(run: Run, model: Model, decoded: Decoded, place: Path, settings: Settings, emit: Emit) -> Judge:
    """Torch's answers on the validation rows, eager and in fp32, and the golden rows."""
    from headstart.engine import features
    from headstart.engine.runtime import Runtime

    val = decoded.examples("val")
    with materials.phase(emit, "torch"):
        logits = features.evaluate(model, val, Runtime("cpu"), batch_size=BATCHES[1], emit=emit)
    few = next(iter(val.batches(np.arange(min(GOLDEN_ROWS, len(val))), batch_size=GOLDEN_ROWS))).inputs
    golden = graph.golden(model, few)
    golden.save(place / folder.GOLDEN)
    judged_by = run.read("result.json", default={}).get("metric")
    return Judge(
        place=place,
        val=val,
        reference=logits.with_temperature(model.temperature),
        temperature=model.temperature,
        golden=golden,
        metric=judged_by if judged_by in SHARES else str(metrics.usual("auto", logits.labels)),
        tolerance=settings.tolerance,
        wanted_precision=settings.precision,
        threads=settings.threads or max(1, round(usable_cores())),
        seconds=settings.seconds,
        emit=emit,
        runtimes=runtimes(settings.runtimes),
    )


def _climb(judge: Judge, decoded: Decoded) -> list[Judged]:
    """Write and judge the rungs of the ladder until one is accepted in some runtime; a refused file does not stay."""
    climber = _climber(judge, decoded)
    tried: list[Judged] = []
    slow: set[str] = set()
    for rung in climber.rungs:
        if rung.kind in slow:
            continue  # other ranges are no quicker
        target = judge.place / rung.file
        judge.emit(Notice("info", "rung", rung.how))
        try:
            how = climber.write(rung, target)
        except Exception as error:  # a quantiser of many thousand lines meets networks it was never tried on
            text = (str(error).splitlines() or [type(error).__name__])[0]
            judge.emit(Notice("warning", "rung", f"this file cannot be made of this network: {text[:200]}"))
            target.unlink(missing_ok=True)
            continue
        found = judge.judge(rung.file, how)
        tried += found
        slow |= {rung.kind} if all(each.fault == "time" for each in found) else set()
        if any(each.accepted for each in found):
            break
        target.unlink()
    return tried


def _climber(judge: Judge, decoded: Decoded) -> Climber:
    """The quantiser with training rows: some to calibrate, others to measure the damage on."""
    train = decoded.examples("train")
    order = keyed.generator(0, "calibration").permutation(len(train))[: ladder.CALIBRATION + ladder.HELD]
    cut = min(ladder.CALIBRATION, -(-2 * len(order) // 3))
    # Damage is measured row by row: what dynamic ranges do to a row depends on the rows beside it.
    calibration, held = (
        [batch.inputs for batch in train.batches(rows, batch_size=size)]
        for rows, size in ((order[:cut], 8), (order[cut:], 1))
    )

    def answer(file: Path) -> np.ndarray:
        session = open_session(judge.place, Variant(file.name, judge.runtimes[0], "fp32", 0.0), judge.threads)
        return parallel.joined(parallel.each(session, held))[0]

    wanted = answer(judge.place / folder.FLOAT)
    return Climber(
        Quantiser(judge.place / folder.FLOAT),
        calibration,
        answer,
        wanted,
        lambda done, total: judge.emit(Progress("sensitivity", done, total, "layers")),
        ladder.saturates(),
    )


def _write(
    judge: Judge, decoded: Decoded, kept: list[Judged], gone: list[Judged], order: list[str], usual: Usual
) -> None:
    """The verdict, the README, and last the manifest."""
    versions = {name: registry.find(RUNTIMES, name).version() for name in judge.runtimes}
    cpu, features = processor()
    told = {
        "format": folder.FORMAT,
        "headstart": __version__,
        "host": {"processor": cpu, "features": features, "threads": judge.threads, "runtimes": versions},
        "data": {
            "modality": decoded.splits.modality,
            "split": "val",
            "rows": len(judge.val),
            "fingerprint": decoded.splits.fingerprint,
        },
        **usual._asdict(),
        "metric": judge.metric,
        "tolerance": judge.tolerance,
        "reference": judge.reference.metric(judge.metric).as_json(),
        "variants": [each.as_json() for each in kept],
        "gone": [each.as_json() for each in gone],  # files that were refused, and do not lie here
        "accepted": order,
    }
    manifest.write_json(judge.place / folder.VERDICT, told)
    readme = card.readme(kept, order, judge.reference, judge.metric, decoded.splits.modality)
    manifest.write_text(judge.place / folder.README, readme)
    manifest.seal(judge.place)


def _progress_only(emit: Emit) -> Emit:
    """The audit of these rows was told when the run began."""
    return lambda event: emit(event) if isinstance(event, Progress) else None


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when all of it is written; an old export stays until then.

    What else lies in an old one is the user's, and goes into the new one.
    """
    if target.exists() and not folder.is_export(target) and any(target.iterdir()):
        raise ArtefactError("the folder is not empty and holds no export; nothing was written", where=str(target))
    draft = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    manifest.remove(draft)
    draft.mkdir()
    try:
        yield draft
        for own in folder.foreign(target) if target.exists() else ():
            if own.is_dir() and not own.is_symlink():
                shutil.copytree(own, draft / own.name, symlinks=True)
            else:
                shutil.copy2(own, draft / own.name, follow_symlinks=False)
        old = target.with_name(f".{target.name}.tmp-old-{os.getpid()}")
        if target.exists():
            os.replace(target, old)
        os.replace(draft, target)
        manifest.remove(old)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
