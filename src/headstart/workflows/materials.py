"""What a run works with: the rows, decoded once and audited, the backbone, the model and the machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import keyed, process, registry
from headstart.core.errors import ConfigError, DataError, Problem, TrainingError
from headstart.core.events import Decision, Event, Notice, Phase, Progress
from headstart.core.remembered import Remembered
from headstart.core.run import Run
from headstart.data import audit as auditing
from headstart.data import canvases, sources
from headstart.data.audit import Audit
from headstart.data.checks import duplicates
from headstart.data.reading.collection import Collection
from headstart.data.splits import Splits
from headstart.data.store import Store
from headstart.workflows import preflight

if TYPE_CHECKING:
    from headstart.data.ahead import Ahead
    from headstart.engine.frontier import Frontiers
    from headstart.engine.runtime import Runtime
    from headstart.engine.streams import Examples
    from headstart.experiment import Experiment
    from headstart.models.backbone import Backbone
    from headstart.models.model import Model

Emit = Callable[[Event], None]
MODALITIES = "headstart.data.modalities"
PACKAGES = ("headstart", "torch", "torchvision", "timm", "transformers", "numpy", "pillow", "simplejpeg")


@dataclass(frozen=True)
class Decoded:
    """The readable rows of the user's data, decoded once, divided into splits and audited."""

    splits: Splits
    stores: dict[str, Store]
    audit: Audit
    spec: Any

    def examples(self, split: str) -> Examples:
        """The rows of one split with their pictures; those of the test split are sealed (see ``unsealed``).

        Raises:
            TrainingError: the test rows were asked for.
        """
        if split == "test":
            what = "the test rows are sealed until the end of the run"
            raise TrainingError(what, remedy="stages, gates and thresholds are judged on val rows")
        return self._examples(split)

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Name and digest of every row."""
        present = self.splits.present().items()
        return [pair for name, rows in present for pair in zip(rows.names, self.stores[name].digests, strict=True)]

    def unsealed(self, run: Run, runtime: Runtime) -> Examples:
        """The test rows; that they are read is counted in the run folder before they are."""
        if runtime.is_main:
            run.count_test_read()
        return self._examples("test")

    def _examples(self, split: str) -> Examples:
        from headstart.engine.streams import Examples

        return Examples(split, self.splits.present()[split], self.stores[split], self.spec)


@contextmanager
def phase(emit: Emit, name: str) -> Iterator[None]:
    """Measure a phase of the run, so that the user sees where the time goes."""
    started = time.monotonic()
    try:
        yield
    finally:
        emit(Phase(name, time.monotonic() - started))


def collect(experiment: Experiment, data: Any) -> Collection:
    """The user's rows, labelled and counted, before anything is decoded: they can be divided, and no setting is for
    another kind of rows.
    """
    source = experiment.data.source if data is None else data
    found = sources.collect(source, experiment.data, seed=experiment.seed, offline=experiment.offline)
    preflight.settings(experiment, found.modality)
    sources.insist_divisible(found, experiment.data)
    return found


def decode_rows(
    collection: Collection, experiment: Experiment, spec: Any, emit: Emit, ahead: Ahead | None = None
) -> Store:
    """All rows of all splits, each decoded once."""
    unit = registry.find(MODALITIES, collection.modality).NOUN[1]
    with phase(emit, "decode"):
        store = Store.build(
            collection.rows,
            spec,
            modality=collection.modality,
            budget_bytes=None if experiment.cache_budget is None else int(experiment.cache_budget * 1e9),
            progress=lambda done, total: emit(Progress("decode", done, total, unit)),
            ahead=ahead,
            keep=os.environ.get("RANK", "0") == "0",
        )
    emit(Decision(store.kind.NOUN[1], store.where, store.explain))
    return store


def inspect(
    collection: Collection, experiment: Experiment, spec: Any, emit: Emit, held: Store | Ahead | None = None
) -> tuple[Splits, dict[str, Store], Audit]:
    """Decode every row once, unless they are ``held``, divide them so that duplicates stay together, and audit all."""
    store = held if isinstance(held, Store) else decode_rows(collection, experiment, spec, emit, held)
    with phase(emit, "audit"):
        settings = experiment.data
        twins = duplicates.duplicates(store)
        division = sources.divide(collection, settings, seed=experiment.seed, duplicates=twins.groups)
        splits = sources.arranged(collection, division)
        stores = {name: store.take(rows) for name, rows in division.index.items()}
        found = auditing.audit(
            splits,
            stores,
            max_unreadable=settings.max_unreadable,
            on_unreadable=settings.on_unreadable,
            twins=twins.take(np.concatenate([division.index[name] for name in splits.present()])),
        )
    return splits, stores, found


def decode(
    collection: Collection, experiment: Experiment, spec: Any, emit: Emit, held: Store | Ahead | None = None
) -> Decoded:
    """What can be trained on: the readable rows, decoded (unless they are ``held``), divided and audited.

    Raises:
        DataError: what the audit calls an error: too many unreadable rows, a class left empty…
    """
    splits, stores, found = inspect(collection, experiment, spec, emit, held)
    for note in splits.notes:
        emit(Notice("info", "data", note))
    for finding in found.remarks:
        emit(Notice(finding.severity, finding.kind, f"{finding.split}: {finding.message}", finding.remedy))
    if found.errors:
        problems = [Problem(each.message, each.split, each.remedy) for each in found.errors]
        raise DataError("the audit of the data found errors", problems=problems)
    kept, readable = _readable(splits, stores, found)
    lengths = np.concatenate([readable[name].lengths for name in ("train", "val") if name in readable])
    fitted, why = readable["train"].kind.fitted(spec, lengths)
    if why:
        emit(Decision("inputs", fitted.described, why))
    return Decoded(kept, readable, found, fitted)


def _readable(splits: Splits, stores: dict[str, Store], found: Audit) -> tuple[Splits, dict[str, Store]]:
    """The same without the rows that could not be decoded."""
    kept = {name: rows for name, rows in found.usable.items() if len(rows) < len(stores[name])}
    if not kept:
        return splits, stores
    parts: dict[str, Any] = {name: splits.present()[name].take(rows) for name, rows in kept.items()}
    return replace(splits, **parts), {**stores, **{name: stores[name].take(rows) for name, rows in kept.items()}}


@process.importing()
def backbone(experiment: Experiment, emit: Emit, collection: Collection) -> Backbone:
    """The backbone that was asked for, or the best that is at hand for the modality of these rows; said aloud.

    Raises:
        ConfigError: it reads something else than the user's rows are.
    """
    from headstart.models import backbone as backbones

    name, modality = experiment.backbone, collection.modality
    if name is None:
        name, reason = backbones.default(experiment.offline, modality)
        emit(Decision("backbone", name, reason))
    found = backbones.load(
        name,
        weights=experiment.weights,
        image_size=experiment.image_size,
        max_length=experiment.data.max_length,
        seconds=experiment.data.seconds,
        pooling=experiment.head.pooling,
        channels=experiment.data.channels,
        pretrained=experiment.pretrained,
        offline=experiment.offline,
        seed=experiment.seed,
    )
    kinds = {name: registry.find(MODALITIES, name) for name in (found.modality, modality)}
    if found.modality != modality:
        nouns = {name: kind.NOUN[1] for name, kind in kinds.items()}
        what = f"'{found.origin.uri}' reads {nouns[found.modality]}, but the rows are {nouns[modality]}"
        remedy = "name another --backbone; or say what the rows are with data.modality=…"
        if found.origin.library == "own":
            remedy += "; a module of your own says what it reads by its spec: spec = headstart.AudioSpec(rate=16_000)"
        raise ConfigError(what, where="backbone", remedy=remedy)
    found.refit(kinds[modality].suited(found.spec, collection.rows))
    if found.origin.weights == "random":
        remedy = "give --backbone with published weights, or --weights FILE"
        what = f"{found.origin.uri} has random weights: nothing is transferred"
        emit(Notice("warning", "not-pretrained", what, remedy))
    return found


@process.importing()
def runtime(experiment: Experiment) -> Runtime:
    """The machine; fp32 until ``choices.settle`` has measured."""
    import torch

    from headstart.engine.runtime import Runtime

    if experiment.threads is not None:
        torch.set_num_threads(experiment.threads)
    return Runtime(experiment.device)


def assemble(experiment: Experiment, backbone: Backbone, decoded: Decoded, runtime: Runtime, emit: Emit) -> Model:
    """Backbone and head; the blocks are verified on one batch of the user's own rows where a stage may thaw them."""
    from headstart.engine.streams import few
    from headstart.models import heads
    from headstart.models.model import Model

    backbone.to(runtime.device)
    backbone.refit(decoded.spec)
    batch = few(decoded.examples("train"), 2, runtime.device)
    if experiment.thaws(decoded.splits.modality):
        verification = backbone.verify(batch)
        emit(Decision("blocks", str(len(verification.blocks)), verification.reason))
    else:
        backbone.insist_steady(batch)
    settings = experiment.head
    classes = decoded.splits.classes
    head = heads.build(
        settings.kind,
        backbone.feature_dim,
        len(classes),
        hidden=settings.hidden,
        dropout=settings.dropout,
        init=settings.init,
        source=backbone.source_head,
        classes=classes,
        seed=experiment.seed,
    )
    if settings.init == "source" and backbone.source_head is not None:
        matched = heads.matches(classes, backbone.source_head.labels)
        emit(Decision("head", "source rows", f"{len(matched)} of {len(classes)} classes: {', '.join(matched)}"))
    return Model(backbone, head, classes, **preflight.task(experiment, decoded.splits.train.labels)).to(runtime.device)


def check_normalisation(frontiers: Frontiers, decoded: Decoded, emit: Emit) -> None:
    """Warn where another normalisation than the backbone's own scores clearly better on a few rows.

    In the precision of the run: it is about the features that the run will see. The answer for these rows and this
    network is remembered in ``normalisation.json`` of the cache folder.
    """
    from headstart.engine import normalisation

    train = decoded.examples("train")
    earlier = Remembered(canvases.default_folder() / "normalisation.json")
    with phase(emit, "normalisation"):
        labels = map(str, train.rows.labels)
        key = f"{keyed.digest(str(normalisation.VERSION), frontiers.key(train), *labels):032x}"
        told = earlier.get(key)
        if not isinstance(told, list):
            try:
                finding = normalisation.check(frontiers.faster(train), train)
            except TrainingError:  # such as features that are no numbers: the pass over all rows names the files
                return
            told = [] if finding is None else [finding.message, finding.remedy]
            earlier.put(key, told)
    if told:
        emit(Notice("warning", "normalisation", *told))


def describe(run: Run, experiment: Experiment, decoded: Decoded) -> None:
    """Write what the run stands on: environment, data with its audit, and the names of the rows."""
    import torch

    packages = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    run.write(
        "environment.json",
        {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "packages": packages,
            "device": experiment.device,
        },
    )
    splits = decoded.splits
    run.write(
        "data.json",
        {
            "source": splits.source,
            "modality": splits.modality,
            "classes": splits.classes,
            "counts": splits.counts(),
            "fingerprint": splits.fingerprint,
            "notes": splits.notes,
            "audit": decoded.audit.to_json(),
        },
    )
    run.write("rows.json", {name: rows.names for name, rows in splits.present().items()})
