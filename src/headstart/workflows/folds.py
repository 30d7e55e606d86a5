"""Cross-validation for small data: the plan runs once a fold, and every row is tested by a model that never saw it.

The rows of a fold are the sealed test rows of its run; the validation rows, by which stages are chosen, are drawn from
the others. So the scores are honest, which those of rows that chose a stage or a temperature are not.

Shapes: N rows, F folds, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import functions
from headstart.core.errors import ConfigError, TrainingError
from headstart.core.events import Event, Notice
from headstart.core.run import Run
from headstart.data import sources
from headstart.data.checks import duplicates
from headstart.data.reading import splitting
from headstart.data.reading.collection import SPLITS, Collection
from headstart.data.store import Store
from headstart.measure import metrics
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import Z95
from headstart.measure.metrics import OwnMetric
from headstart.workflows import early, finish, materials
from headstart.workflows.baselines import TEST
from headstart.workflows.places import open_run, recorder, remember_contents

if TYPE_CHECKING:
    from headstart.data.ahead import Ahead
    from headstart.engine.runtime import Runtime
    from headstart.experiment import Experiment

# Student's t at 97.5 % for 1, 2 … 9 degrees of freedom; from there on Abramowitz & Stegun 26.7.5 is exact to 0.1 %
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def cross_validate(
    experiment: Experiment,
    collection: Collection,
    runtime: Runtime,
    fit_rows: Callable[..., Run],
    on_event: Callable[[Event], None] | None,
    resume: bool,
    begun: Ahead | None,
) -> Run:
    """Fit every fold in ``runs/NAME/fold-1`` …, and write ``folds.json`` and ``predictions-folds.npz`` beside them.

    Raises:
        ConfigError: the data has splits of its own.
        DataError: there are fewer independent rows than folds.
    """
    started = time.monotonic()
    if collection.given.any():
        what = f"folds divide all rows anew, but {collection.source} comes with splits of its own"
        raise ConfigError(what, where="data.split.folds", remedy="give all rows in one place, or leave folds out")
    said: list[Event] = []
    backbone = materials.backbone(experiment, said.append, collection)
    with functions.as_they_were(), open_run(experiment, collection, backbone, resume, runtime) as (run, continued):
        emit = recorder(run, on_event)
        if continued and run.read("folds.json") is not None:
            emit(Notice("info", "complete", f"this experiment is complete in {run.path}; nothing is left to do"))
            finish.warn_of_baseline(run, emit)
            return run
        for event in said:
            emit(event)
        early.remember(experiment, backbone.spec)
        store = materials.decode_rows(collection, experiment, backbone.spec, emit, begun)
        if runtime.is_main:
            pairs = zip(collection.rows.names, store.digests, strict=True)
            remember_contents(run, collection.rows, collection.modality, pairs)
        count = int(experiment.data.split.folds or 0)
        together = sources.together(collection, duplicates.duplicate_groups(store))
        parts = splitting.folds(collection.rows, count, experiment.seed, duplicates=together)
        runs = []
        for number, (_, held) in enumerate(parts, start=1):
            emit(Notice("info", "fold", f"fold {number} of {count}, rows held out: {len(held):,}"))
            one = _alone(experiment, run, number, count)
            runs.append(fit_rows(one, holding_out(collection, held), runtime, on_event, False, store))
        if runtime.is_main:
            metric = metrics.usual(experiment.metric, collection.rows.labels)
            summary = _summary(run, runs, [held for _, held in parts], collection, store, metric)
            run.write("folds.json", {**summary, "seconds": time.monotonic() - started})
        runtime.wait()
        finish.warn_of_baseline(run, emit)
        return run


def _alone(experiment: Experiment, run: Run, number: int, count: int) -> Experiment:
    """The experiment of one fold; the time of all is shared out."""
    split = replace(experiment.data.split, folds=None)
    limit = None if experiment.time_limit is None else experiment.time_limit / count
    return replace(
        experiment,
        data=replace(experiment.data, split=split),
        output_dir=str(run.path),
        name=f"fold-{number}",
        time_limit=limit,
    )


def held_out(run: Run) -> list[str] | None:
    """The names of the rows that a fold's run held out, unreadable ones too; None of any other run."""
    parent = Run(run.path.parent)
    for fold in parent.read("folds.json", default={}).get("folds", []):
        if fold["name"] == run.path.name:
            return list(fold.get("held_out") or run.read("rows.json", default={}).get("test", []))
    return None


def holding_out(collection: Collection, held: np.ndarray) -> Collection:
    """The rows of one fold's run: those of ``held`` (indices) are its test split."""
    given = np.zeros(len(collection), dtype=np.int8)
    given[held] = SPLITS.index("test")
    return replace(collection, given=given)


def _summary(
    run: Run,
    runs: Sequence[Run],
    held: Sequence[np.ndarray],
    collection: Collection,
    store: Store,
    metric: str | OwnMetric,
) -> dict[str, Any]:
    """Scores of every fold, their mean with the interval over folds, and those of all rows together, each tested once.

    The interval over folds is Student's; folds share training rows, so it is a little too narrow (Bengio & Grandvalet
    2004). That of all rows says how exact the score is on these rows.
    """
    if lost := [each.name for each in runs if not (each.path / "predictions-test.npz").is_file()]:
        what = f"the rows of {', '.join(lost)} were not judged, so not every row was"
        raise TrainingError(what, where=str(run.path), remedy="see the warnings of these runs")
    results = [each.read("result.json") for each in runs]
    places: list[np.ndarray] = []
    parts: list[Evaluation] = []
    for each, rows in zip(runs, held, strict=True):
        readable = np.array([row for row in rows if row not in store.errors], dtype=np.int64)
        stored = Evaluation.load(each.path / "predictions-test.npz", expected=np.arange(len(readable)))
        parts.append(stored.with_temperature(each.read("result.json")["temperature"]))
        places.append(readable[stored.rows])
    answers = _together(collection, places, parts)
    answers.save(run.path / "predictions-folds.npz")
    pooled = answers.as_json(metric, partly=True)
    scores = [result["metrics"]["test"] for result in results]
    common = [name for name in scores[0] if all(_is_told(score.get(name)) for score in scores)]
    told = [
        {
            "name": each.path.relative_to(run.path).as_posix(),
            "held_out": [collection.rows.names[row] for row in rows],  # unreadable ones too
            "best": result["best"],
            "seconds": result["seconds"],
            "beaten_by": result["beaten_by"],
            "metrics": result["metrics"]["test"],
        }
        for each, result, rows in zip(runs, results, held, strict=True)
    ]
    return {
        "metric": metrics.name_of(metric),
        "folds": told,
        "mean": {name: _over_folds(name, [score[name]["value"] for score in scores], pooled) for name in common},
        "pooled": pooled,
        "baselines": _baselines(runs, results, answers, metric, lambda each: _together(collection, places, each)),
    }


def _together(collection: Collection, places: Sequence[np.ndarray], parts: Sequence[Evaluation]) -> Evaluation:
    """The answers of all folds as one evaluation; ``places`` (F of N) says which rows they answer."""
    pairs = [(rows, part.logits) for rows, part in zip(places, parts, strict=True)]
    labels, classes = collection.rows.labels, collection.classes
    return Evaluation.gather("folds", pairs, labels, classes, np.concatenate(places), parts[0].threshold)


def _baselines(
    runs: Sequence[Run],
    results: Sequence[dict[str, Any]],
    pooled: Evaluation,
    metric: str | OwnMetric,
    together: Callable[[Sequence[Evaluation]], Evaluation],
) -> list[dict[str, Any]]:
    """What those without a backbone reach on all rows, and how much more the models do, paired; the best first.

    None for a metric of how rows are ranked: the baselines of the folds start from other frequencies of classes, so
    their probabilities are not of one scale.
    """
    told: list[dict[str, Any]] = []
    if metric in metrics.RANKING:
        return told
    for name in dict.fromkeys(each["name"] for result in results for each in result["baselines"]):
        found = together([Evaluation.load(each.path / TEST / f"{name}.npz") for each in runs])
        gain = pooled.compare(found, metric).as_json()
        told.append({"name": name, "metrics": found.as_json(metric, partly=True), "gain": gain})
    sign = 1 if metrics.higher_is_better(metric) else -1
    return sorted(told, key=lambda each: sign * each["gain"]["value"])


def _is_told(measured: Mapping[str, float] | None) -> bool:
    """Whether a fold has that metric, as a number: rows of one class alone have no ROC."""
    return measured is not None and math.isfinite(measured["value"])


def _over_folds(name: str, values: Sequence[float], pooled: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean of F scores with Student's 95 % interval, cut where the metric ends: nothing beyond can be the truth.

    Folds that all score the same tell nothing of how far off they are: then it is the interval of all rows.
    """
    least, most = metrics.limits(name)
    count, mean = len(values), float(np.mean(values))
    half = _t95(count - 1) * float(np.std(values, ddof=1)) / np.sqrt(count)
    low, high = max(least, mean - half), min(most, mean + half)
    if min(values) == max(values) and name in pooled:
        low, high = min(mean, pooled[name]["low"]), max(mean, pooled[name]["high"])
    return {"value": mean, "low": low, "high": high, "n": count}


def _t95(freedom: int) -> float:
    if freedom <= len(T95):
        return T95[freedom - 1]
    z = Z95
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
