"""The end of a run: calibration, the one reading of the test rows, previews, the model and the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import manifest, registry
from headstart.core.errors import TrainingError
from headstart.core.events import Event, Notice
from headstart.core.run import Run
from headstart.measure import calibration, metrics
from headstart.measure.evaluation import Evaluation
from headstart.workflows.baselines import unbeaten
from headstart.workflows.materials import Decoded, phase

if TYPE_CHECKING:
    from headstart.engine.streams import Examples
    from headstart.workflows.baselines import Baselines
    from headstart.workflows.course import Course

Emit = Callable[[Event], None]
WORST, CONFUSED, SEEN = 12, 12, 4  # pictures shown in the report


def conclude(
    run: Run, course: Course, decoded: Decoded, baselines: Baselines | None, started: float, emit: Emit
) -> None:
    """Calibrate on validation rows, read the test rows once, save the model and write the report.

    Ranks share the reading of the test rows; only the first writes, and has ``baselines``.
    """
    assert course.incumbent is not None
    val = course.incumbent.evaluation
    temperature = calibration.fit_temperature(val.logits, val.labels)
    test: Evaluation | None = None
    if decoded.splits.test is not None:
        with phase(emit, "test"):
            unsealed = decoded.unsealed(run, course.runtime)
            try:
                test = _answers(course, unsealed, emit)
            except TrainingError as error:  # the stages are done, and what they gave is worth more than this score
                told = "; ".join(problem.what for problem in error.problems)
                remedy = "`headstart predict` answers the other rows"
                emit(Notice("warning", "test", f"the test rows were not judged: {told}", remedy))
    if not course.runtime.is_main:
        return
    if test is not None:
        test.save(run.path / "predictions-test.npz")
    final = test if test is not None else val
    with phase(emit, "save"):
        _save_model(run, course, decoded, temperature)
        previews(run, final, decoded, emit)
    beside: list[dict[str, Any]] = []
    if test is not None and baselines is not None:
        beside = baselines.beside(test.with_temperature(temperature), unsealed)
    run.write(
        "result.json",
        {
            "best": course.incumbent.title,
            "metric": metrics.name_of(course.metric),
            "metrics": {
                "val": val.with_temperature(temperature).as_json(course.metric),
                "test": None
                if test is None
                else test.with_temperature(temperature).as_json(course.metric, partly=True),
            },
            "baselines": beside,  # on the test rows
            "temperature": temperature,
            "calibration": {
                "before": final.reliability().as_json(),
                "after": final.with_temperature(temperature).reliability().as_json(),
            },
            "beaten_by": unbeaten(run, val.with_temperature(temperature), course.metric),
            "test_reads": run.test_reads,
            "optimistic": test is None,
            "seconds": time.monotonic() - started,
            "phases": [
                {"name": event["name"], "seconds": event["seconds"]}
                for event in run.events()
                if event["event"] == "Phase"
            ],
        },
    )
    if test is None:
        none = "no test rows" if decoded.splits.test is None else "no test row was judged"
        emit(Notice("warning", "optimistic", f"{none}: the score is that of the rows the model was selected on"))
    warn_of_baseline(run, emit)
    report(run)


def _answers(course: Course, examples: Examples, emit: Emit) -> Evaluation:
    """What the best model answers, in fp32.

    Where only its head was fitted, on features computed as those of the validation rows: a later run finds them.
    """
    from headstart.engine import features
    from headstart.engine.cache import FrontierCache
    from headstart.stages.methods import probe

    assert course.incumbent is not None
    with course.runtime.exactly():
        known = None
        if isinstance(course.incumbent.stage, probe.Settings):
            known = FrontierCache.of(course.frontiers.pooled(examples)[None])
        return features.evaluate(
            course.model, examples, course.runtime, batch_size=features.BATCH, cache=known, emit=emit
        )


def warn_of_baseline(run: Run, emit: Emit) -> None:
    """Say it where what needs no backbone is as good as the best stage, or the best of every fold."""
    if run.beaten_by:
        which = "in no fold did a stage" if run.read("folds.json") else "no stage"
        what = f"{which} beat the baseline '{run.beaten_by}', which needs no backbone"
        remedy = "look at the report: wrong labels, a backbone without pretrained weights, or too little training?"
        emit(Notice("warning", "beaten", what, remedy))


def report(run: Run) -> None:
    """Write ``report.html`` from what the folder holds."""
    from headstart.report import page

    page.write(run)


def previews(run: Run, evaluation: Evaluation, decoded: Decoded, emit: Emit) -> None:
    """Small copies of the rows with the largest loss and of the most confused, and what the network sees."""
    modality = registry.find("headstart.data.modalities", decoded.splits.modality)
    rows = list(evaluation.worst(WORST))
    for true, predicted, _ in [] if evaluation.several else evaluation.most_confused(CONFUSED):
        classes = list(evaluation.classes)
        hit = (evaluation.labels == classes.index(true)) & (evaluation.predicted == classes.index(predicted))
        rows += list(evaluation.rows[hit][:2])
    folder = run.path / "previews"
    folder.mkdir(exist_ok=True)
    items = decoded.splits.present()[evaluation.split].items
    for row in dict.fromkeys(int(row) for row in rows):
        try:
            suffix, content = modality.preview(items[row])
        except Exception as error:  # what cannot be shown must not cost a run its result: its file may be gone
            emit(Notice("info", "preview", f"row {row} of {evaluation.split} cannot be shown ({error})"))
            continue
        manifest.write_bytes(folder / f"{evaluation.split}-{row}{suffix}", content)
    train = decoded.examples("train")
    step = max(1, len(train) // SEEN)
    for batch in train.batches(np.arange(0, len(train), step)[:SEEN], batch_size=SEEN):
        for row, seen in zip(batch.rows, batch.inputs, strict=True):
            suffix, content = modality.shown(seen, decoded.spec)
            manifest.write_bytes(folder / f"network-{row}{suffix}", content)


def _save_model(run: Run, course: Course, decoded: Decoded, temperature: float) -> None:
    import torch

    golden = next(iter(decoded.examples("val").batches(np.arange(min(4, len(decoded.splits.val))), batch_size=4)))
    course.model.temperature = temperature
    course.model.save(run.model_folder, examples=torch.from_numpy(golden.inputs))
