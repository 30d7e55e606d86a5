"""Whether a variant of an export may be used: judged on validation rows and by the clock of this machine.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.deploy.folder import PARITY
from headstart.deploy.mates import ROWS, allowed
from headstart.deploy.timing import Timed
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import Difference, Measured, wilson

TOLERANCE = 0.005  # of the metric: half a point
SLOWER = 1.05  # times the time of the plain file: within it, a clock cannot tell
BATCHES = (1, ROWS)
ROUNDING = 1e-4  # of a probability


@dataclass(frozen=True)
class Threshold:
    """Below ``value`` the answer is "don't know": what is answered was right in ``precision`` of the ``coverage``."""

    wanted: float
    value: float
    precision: Measured
    coverage: float


@dataclass(frozen=True)
class Speed:
    """Times of one row and of sixteen, answered as they will be: together, or each by itself."""

    one: Timed
    many: Timed

    def times_as_long(self, plain: Speed) -> float:
        """Beside times of the same turns; the geometric mean of a row alone and of a batch: neither use counts more."""
        return math.sqrt(self.one.times_as_long(plain.one) * self.many.times_as_long(plain.many))

    @property
    def rows_a_second(self) -> float:
        return 1e3 * BATCHES[1] / self.many.p50_ms


@dataclass(frozen=True)
class Judged:
    """One variant with everything that was measured, and the verdict."""

    name: str
    file: str
    runtime: str
    precision: str
    how: str  # what was done to the weights, in words
    bytes: int
    gap: float
    batch_gap: float  # by how much a probability in a batch differs from the same row's alone
    score: Measured
    difference: Difference  # of the metric, from torch in fp32 on the same rows
    agreement: Measured  # share of rows with the same decision
    recall_changes: tuple[tuple[str, float], ...]  # of the classes whose recall moved, the largest first
    speed: Speed
    times_as_long: float  # as the plain file in ONNX Runtime, measured in turns with it
    too_few: bool  # rows to tell a loss beyond the tolerance from none
    fault: str = ""  # parity, metric or time; nothing where it is accepted
    refused: str = ""  # the same in words
    threshold: Threshold | None = None

    @property
    def accepted(self) -> bool:
        return not self.fault

    @property
    def batches(self) -> bool:
        """Whether rows may be answered together."""
        return self.batch_gap <= allowed(self.precision)

    def as_json(self) -> dict[str, Any]:
        speed = {**asdict(self.speed), "rows_a_second": self.speed.rows_a_second}
        return {**asdict(self), "accepted": self.accepted, "batches": self.batches, "speed": speed}


def judge(
    reference: Evaluation,
    found: Evaluation,
    speed: Speed,
    plain: Speed,
    *,
    name: str,
    file: str,
    runtime: str,
    precision: str,
    how: str,
    size: int,
    gap: float,
    batch_gap: float,
    exact: bool,
    together: Evaluation | None = None,
    metric: str = "accuracy",
    tolerance: float = TOLERANCE,
    wanted_precision: float | None = None,
) -> Judged:
    """Compare ``found`` with torch's answers on the same rows, and its speed with that of the plain file.

    Args:
        found: what it answers as it will be used, row by row where ``batch_gap`` says so.
        exact: the variant computes in fp32 from the weights as they are, so that its logits have to be torch's.
        together: what it answers in batches, where that is not ``found``: torch was asked in batches.
    """
    difference = found.compare(reference, metric)
    same = found.predicted == reference.predicted
    same = same.all(axis=1) if found.several else same
    fault, refused = "", ""
    if exact and (text := _strange(reference, together or found, gap)):
        fault, refused = "parity", text
    elif -difference.value > tolerance + 1e-12:
        lost = f"{-100 * difference.value:.2f} points, more than {100 * tolerance:g}"
        fault, refused = "metric", f"{metric.replace('_', ' ')} falls by {lost}"
    elif (times := speed.times_as_long(plain)) > SLOWER:
        fault, refused = "time", f"takes {times:.2f} times as long as the plain file in ONNX Runtime"
    agreement = Measured(float(same.mean()), *wilson(int(same.sum()), len(same)), len(same))
    return Judged(
        name=name,
        file=file,
        runtime=runtime,
        precision=precision,
        how=how,
        bytes=size,
        gap=gap,
        batch_gap=batch_gap,
        score=found.metric(metric),
        difference=difference,
        agreement=agreement,
        recall_changes=_recall_changes(reference, found),
        speed=speed,
        times_as_long=speed.times_as_long(plain),
        too_few=not exact and difference.low < -tolerance,
        fault=fault,
        refused=refused,
        threshold=None if wanted_precision is None else threshold(found, wanted_precision),
    )


def order(judged: Sequence[Judged]) -> list[str]:
    """Names of the accepted variants, the quickest first."""
    return [each.name for each in sorted(judged, key=lambda each: each.times_as_long) if each.accepted]


def threshold(found: Evaluation, wanted: float) -> Threshold | None:
    """The lowest threshold from which on answers were right in at least ``wanted`` of the rows; None where none is.

    Rows of equal confidence are answered together. It lies halfway to the next less confident row, or just below the
    least confident of all, so that rounding decides for none.
    """
    confidence = found.probabilities.max(axis=1)
    ranks = np.argsort(-confidence, kind="stable")
    right = np.cumsum(found.correct[ranks])
    count = np.arange(1, len(found) + 1)
    last_of_its_value = np.r_[confidence[ranks][1:] < confidence[ranks][:-1], True]
    good = np.flatnonzero((right / count >= wanted) & last_of_its_value)
    if not len(good):
        return None
    place = int(good[-1])
    n = place + 1
    share = Measured(float(right[place] / n), *wilson(int(right[place]), n), n)
    least = float(confidence[ranks][place])
    value = (least + float(confidence[ranks][n])) / 2 if n < len(found) else least * (1 - ROUNDING)
    return Threshold(wanted, value, share, n / len(found))


def _strange(reference: Evaluation, found: Evaluation, gap: float) -> str:
    """What is wrong where logits have to be torch's, or nothing."""
    largest = max(gap, _gap(reference.logits, found.logits))
    changed = int((reference.predicted != found.predicted).sum())
    if largest <= PARITY and not changed:
        return ""
    decisions = f"{changed} of {found.predicted.size} decisions"
    told = f"they differ by {largest:.2g} of the largest (at most {PARITY:g}), and {decisions}"
    return f"its logits are not torch's: {told} changed"


def _gap(wanted: np.ndarray, found: np.ndarray) -> float:
    """Largest difference of logits (N, K), relative to the largest logit."""
    return float(np.abs(found - wanted).max() / max(1e-12, np.abs(wanted).max()))


def _recall_changes(reference: Evaluation, found: Evaluation) -> tuple[tuple[str, float], ...]:
    pairs = zip(reference.per_class(), found.per_class(), strict=True)
    changes = [(before.name, after.recall.value - before.recall.value) for before, after in pairs]
    return tuple(sorted((change for change in changes if change[1]), key=lambda change: -abs(change[1])))
