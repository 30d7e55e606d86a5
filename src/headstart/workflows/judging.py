"""Variants of an export before their judge: evaluated on the validation rows, and timed in turns.

Shapes: B rows of a batch, K classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.core import registry
from headstart.core.errors import ArtefactError, ConfigError
from headstart.core.events import Event, Notice, Progress
from headstart.deploy import contract, folder, mates, parallel, timing, verdict
from headstart.deploy.folder import Golden
from headstart.deploy.predictor import RUNTIMES, Variant, open_session, ways
from headstart.deploy.runtimes.base import Session
from headstart.deploy.verdict import BATCHES, Judged, Speed
from headstart.measure.evaluation import Evaluation

if TYPE_CHECKING:
    from headstart.engine.streams import Examples

Emit = Callable[[Event], None]
BASE = "onnxruntime"  # of the base install


@dataclass(frozen=True)
class Judge:
    """What every variant is judged by: torch's answers ``reference`` on ``val``, and the plain file's times.

    ``seconds`` go into each comparison by the clock; ``runtimes`` are those that are judged, ONNX Runtime first.
    """

    place: Path
    val: Examples
    reference: Evaluation
    temperature: float  # of the probabilities that all of them give, and thresholds are for
    golden: Golden
    metric: str
    tolerance: float
    wanted_precision: float | None
    threads: int
    seconds: float
    emit: Emit
    runtimes: tuple[str, ...]

    def judge(self, file: str, how: str) -> list[Judged]:
        """The verdict on a file in every precision of the runtimes."""
        variants = {found.name: found for runtime in self.runtimes for found in ways(file, runtime)}
        plain = Variant(folder.FLOAT, self.runtimes[0], "fp32", 0.0)
        opened, timed = self._opened({plain.name: plain, **variants})
        used = {
            name: opened[name] if each.batches else mates.row_by_row(opened[name], self._pad)
            for name, each in timed.items()
        }
        speeds = self.speeds(used)
        return [
            self._judged(name, timed[name], opened[name], used[name], speeds, plain.name, how)
            for name in timed
            if name in variants
        ]

    def _opened(self, variants: dict[str, Variant]) -> tuple[dict[str, Session], dict[str, Variant]]:
        """Those that answer the validation rows of ``batch_gap``, and what it found: not every runtime knows every
        operation in every precision, which is no reason to export nothing."""
        opened, found = {}, {}
        for name, variant in variants.items():
            try:
                opened[name] = open_session(self.place, variant, self.threads)
                found[name] = replace(variant, batch_gap=self.batch_gap(opened[name]))
            except ArtefactError as error:
                if variant.runtime == self.runtimes[0]:
                    raise
                self.emit(Notice("info", "runtime", f"{name} is left out: {error.summary[:160]}"))
        return opened, found

    def batch_gap(self, session: Session) -> float:
        """By how much a probability in a batch differs from the same row's alone.

        Asked of the validation rows that torch is least sure of, where a probability moves most, beside the longest.
        """
        sure = self.reference.probabilities.max(axis=1)
        longest = self.val.by_length(self.reference.rows)[: mates.ROWS // 4]
        unsure = self.reference.rows[np.argsort(sure, kind="stable")]
        rows = np.concatenate([longest, unsure[~np.isin(unsure, longest)]])[: mates.ROWS]
        inputs = next(iter(self.val.batches(rows, batch_size=mates.ROWS))).inputs
        return mates.gap(session, inputs, self._pad)

    @property
    def _pad(self) -> int | None:
        return mates.padding(self.val.store.modality)

    def speeds(self, sessions: dict[str, Session]) -> dict[str, Speed]:
        """Times of one row and of sixteen of like length, as rows are predicted, all in turns."""
        by_length = self.val.by_length(np.arange(len(self.val)))
        start = max(0, (len(by_length) - BATCHES[1]) // 2)  # the middle: a longest row would say little of the others
        order = by_length[(start + np.arange(BATCHES[1])) % len(by_length)]
        timed = []
        for rows in (order[: BATCHES[0]], order):
            inputs = next(iter(self.val.batches(rows, batch_size=len(rows)))).inputs
            calls = {name: functools.partial(run, inputs) for name, run in sessions.items()}
            timed.append(timing.interleaved(calls, seconds=self.seconds))
        return {name: Speed(timed[0][name], timed[1][name]) for name in sessions}

    def answers(self, session: Session, classes: Sequence[str], what: str) -> Evaluation:
        """What a session answers on the validation rows: columns by the names that its own file gives them."""
        columns = [list(classes).index(name) for name in self.reference.classes]
        parts = []
        for batch in self.val.batches(np.arange(len(self.val)), batch_size=BATCHES[1]):
            parts.append((batch.rows, session(batch.inputs)[0][:, columns]))
            self.emit(Progress("judge", int(batch.rows[-1]) + 1, len(self.val), "rows", what))
        known = (self.val.rows.labels, self.reference.classes)
        found = Evaluation.gather("val", parts, *known, threshold=self.reference.threshold)
        return found.with_temperature(self.temperature)

    def _judged(
        self,
        name: str,
        variant: Variant,
        session: Session,
        used: Session,
        speeds: dict[str, Speed],
        plain: str,
        how: str,
    ) -> Judged:
        classes = contract.read(self.place / variant.file).classes
        exact = variant.file == folder.FLOAT and variant.precision == "fp32"
        return verdict.judge(
            self.reference,
            self.answers(used, classes, name),
            speeds[name],
            speeds[plain],
            name=name,
            file=variant.file,
            runtime=variant.runtime,
            precision=variant.precision,
            how=how,
            size=(self.place / variant.file).stat().st_size,
            gap=self.golden.gap(parallel.together(session)(self.golden.inputs)[0]),
            batch_gap=variant.batch_gap,
            exact=exact,
            together=self.answers(session, classes, name) if exact and not variant.batches else None,
            metric=self.metric,
            tolerance=self.tolerance,
            wanted_precision=self.wanted_precision,
        )


def runtimes(wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Those of ``wanted``, or all that are installed here; ONNX Runtime is always one: the others are timed against it.

    Raises:
        ConfigError: one that is not known, or not installed here.
    """
    installed = {
        name: registry.find(RUNTIMES, name, where="--runtime").version() for name in wanted or registry.names(RUNTIMES)
    }
    missing = [name for name in wanted if not installed[name]]
    if missing:
        what = f"{' and '.join(missing)} cannot judge: not installed here"
        raise ConfigError(what, where="--runtime", remedy=f"pip install 'headstart[{missing[0]}]'")
    return (BASE, *(name for name, version in installed.items() if version and name != BASE))
