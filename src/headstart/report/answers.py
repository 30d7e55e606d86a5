"""What the model answered, row by row: confusion, classes, the worst answers, calibration.

Shapes: N rows, K classes, M bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from headstart.measure.calibration import SMALLEST_HONEST_N, Reliability
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import Measured
from headstart.report import charts
from headstart.report.charts import Line, Scale
from headstart.report.contents import Contents
from headstart.report.exhibits import exhibit
from headstart.report.formats import interval, number, score

NUMBERED = 12  # classes up to which the matrix carries numbers
DRAWN = 150  # classes up to which the whole matrix is drawn
SELECTED = 60  # classes that are drawn where there are more
LONGEST_NAME = 24  # characters of a class beside the matrix
LISTED = 300  # classes in the table


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: numbered cells (text, class) for few classes, a drawing for many.

    ``shown`` are the names of the classes, shortened in their middle where they would push the cells off the page.
    """

    classes: tuple[str, ...]
    cells: tuple[tuple[tuple[str, str], ...], ...] = ()
    drawing: Markup | None = None
    note: str = ""
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassRow:
    name: str
    n: int
    precision: str
    recall: str
    f1: str
    f1_sort: str
    bar: Markup
    average_precision: str = ""  # with its interval, where a row may have several labels


@dataclass(frozen=True)
class ClassTable:
    axis: Markup
    rows: tuple[ClassRow, ...]
    note: str


@dataclass(frozen=True)
class Answer:
    """One row with what it shows (nothing where the run has no preview)."""

    shown: Markup
    name: str
    label: str
    predicted: str
    confidence: str  # "98% sure · "; nothing where a row may have several labels
    correct: bool


@dataclass(frozen=True)
class Pair:
    """One kind of mistake: how often, of how many, and some of its rows."""

    label: str
    predicted: str
    count: int
    total: int
    bar: Markup
    shown: tuple[Markup, ...]


@dataclass(frozen=True)
class Diagram:
    """A reliability diagram with what it says."""

    title: str
    chart: Markup
    ece: str
    null: str
    log_loss: str
    verdict: str


@dataclass(frozen=True)
class Calibration:
    temperature: float | None
    diagrams: tuple[Diagram, ...]
    note: str


def matrix(evaluation: Evaluation) -> Matrix:
    """The confusion matrix, readable at any number of classes."""
    table, classes = evaluation.confusion(), evaluation.classes
    k = len(classes)
    if k <= NUMBERED:
        rows = np.maximum(1, table.sum(axis=1))
        cells = tuple(
            tuple((str(value) if value else "", _shade(value / rows[i], i == j)) for j, value in enumerate(line))
            for i, line in enumerate(table.tolist())
        )
        return Matrix(classes, cells, shown=tuple(_shortened(name) for name in classes))
    note = ""
    if k > DRAWN:
        wrong = table.sum(axis=0) + table.sum(axis=1) - 2 * np.diag(table)
        chosen = np.sort(np.argsort(-wrong, kind="stable")[:SELECTED])
        table, classes = table[np.ix_(chosen, chosen)], tuple(classes[i] for i in chosen)
        note = f"The {SELECTED} of {k} classes that take part in most mistakes."
    return Matrix(classes, drawing=charts.heatmap(table, classes), note=note)


def _shortened(name: str) -> str:
    """Beginning and end of a long name: those of one family often differ in either."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[1 - LONGEST_NAME // 2 :]}"


def _shade(share: float, hit: bool) -> str:
    """A class of the stylesheet: hit or miss, in ten steps of the share of the row."""
    return f"{'hit' if hit else 'miss'}-{math.ceil(10 * share - 1e-9)}" if share else "none"


def class_table(evaluation: Evaluation) -> ClassTable:
    """Precision, recall and F1 of each class, the weakest first."""
    scores = evaluation.per_class()
    order = sorted(range(len(scores)), key=lambda i: (scores[i].recall.n == 0, scores[i].f1.value))[:LISTED]
    bounds = [bound for i in order if scores[i].recall.n for bound in (scores[i].f1.low, scores[i].f1.high)]
    scale = charts.scale_over([*bounds, 1.0], within=(0.0, 1.0))
    rows = []
    for index in order:
        found = scores[index]
        precision = score(found.precision.value, "accuracy") if found.precision.n else "–"
        if not found.recall.n:
            rows.append(ClassRow(found.name, 0, precision, "–", "–", "", Markup()))
            continue
        bar = charts.interval_bar(
            scale, found.f1.value, found.f1.low, found.f1.high, "small", f"F1 {_with_interval(found.f1)}"
        )
        rows.append(
            ClassRow(
                name=found.name,
                n=found.recall.n,
                precision=precision,
                recall=score(found.recall.value, "accuracy"),
                f1=score(found.f1.value, "macro_f1"),
                f1_sort=f"{found.f1.value:.6f}",
                bar=bar,
                average_precision=_average_precision(found.average_precision),
            )
        )
    labels = [charts.axis_label(tick, "accuracy", scale) for tick in scale.ticks()]
    note = f"The {LISTED} weakest of {len(scores)} classes." if len(scores) > LISTED else ""
    return ClassTable(charts.axis(scale, labels), tuple(rows), note)


def _average_precision(found: Measured | None) -> str:
    return "" if found is None else f"{score(found.value, 'mAP')} ({interval(found.as_json(), 'mAP')})"


def _with_interval(measured: Measured) -> str:
    return f"{score(measured.value, 'macro_f1')}, 95% interval {interval(measured.as_json(), 'macro_f1')}"


def worst(contents: Contents, evaluation: Evaluation, limit: int = 12) -> list[Answer]:
    """The rows with the largest loss, shown where the run has previews of them."""
    names = contents.rows.get(evaluation.split) or []
    place = {int(row): i for i, row in enumerate(evaluation.rows)}
    found = []
    labels, predicted = evaluation.told(evaluation.labels), evaluation.told(evaluation.predicted)
    for row in evaluation.worst(limit).tolist():
        i = place[row]
        file = contents.previews.get((evaluation.split, row))
        found.append(
            Answer(
                shown=exhibit(file) if file else Markup(""),
                name=names[row] if row < len(names) else f"row {row}",
                label=_said(labels[i]),
                predicted=_said(predicted[i]),
                confidence="" if evaluation.several else f"{100 * evaluation.probabilities[i].max():.0f}% sure · ",
                correct=bool(evaluation.correct[i]),
            )
        )
    return found


def _said(labels: str | list[str]) -> str:
    """One label, or several with commas between them."""
    return labels if isinstance(labels, str) else ", ".join(labels) or "no label"


def pairs(contents: Contents, evaluation: Evaluation, limit: int = 8) -> list[Pair]:
    """The most frequent mistakes, each with up to four of its pictures (texts and sounds take more room)."""
    index = {name: i for i, name in enumerate(evaluation.classes)}
    total = np.bincount(evaluation.labels, minlength=len(evaluation.classes))
    found = evaluation.most_confused(limit)
    result = []
    for label, predicted, count in found:
        mine = (evaluation.labels == index[label]) & (evaluation.predicted == index[predicted])
        files = [contents.previews.get((evaluation.split, int(row))) for row in evaluation.rows[mine]]
        result.append(
            Pair(
                label=label,
                predicted=predicted,
                count=count,
                total=int(total[index[label]]),
                bar=charts.bar(count / total[index[label]], "miss"),
                shown=tuple(exhibit(file) for file in files if file and file.suffix == ".jpg")[:4],
            )
        )
    return result


def calibration(contents: Contents, evaluation: Evaluation) -> Calibration:
    """Reliability before and after the temperature, with the band that perfect calibration would show."""
    temperature = (contents.result or {}).get("temperature")
    diagrams = [_diagram("as trained", evaluation)]
    if isinstance(temperature, int | float) and temperature > 0 and math.isfinite(temperature):
        diagrams.append(
            _diagram(f"with temperature {temperature:.2f}", evaluation.with_temperature(float(temperature)))
        )
    else:
        temperature = None
    notes = []
    if evaluation.split != "test" and temperature is not None:
        notes.append("The temperature was fitted on these very rows, so the second diagram is optimistic.")
    if len(evaluation) < SMALLEST_HONEST_N:
        few = f"{len(evaluation)} rows are too few for a judgement"
        notes.append(f"{few}: below {SMALLEST_HONEST_N} even a perfectly calibrated model looks uneven.")
    return Calibration(temperature, tuple(diagrams), " ".join(notes))


def _diagram(title: str, evaluation: Evaluation) -> Diagram:
    found = evaluation.reliability()
    low, _, high = found.ece_null
    return Diagram(
        title=title,
        chart=_reliability_chart(found, title),
        ece=score(found.ece, "ece"),
        null=interval({"low": low, "high": high}, "ece"),
        log_loss=number(evaluation.metric("log_loss").value),
        verdict=found.verdict,
    )


def _reliability_chart(found: Reliability, title: str) -> Markup:
    start = math.floor(10 * min(0.9, float(found.confidence.min()))) / 10
    floor = [start, *found.low.tolist(), *found.null_low.tolist(), 1.0]
    x, y = Scale(start, 1.0), charts.scale_over(floor, within=(0.0, 1.0))
    upper = list(zip(found.confidence.tolist(), found.null_high.tolist(), strict=True))
    lower = list(zip(found.confidence.tolist(), found.null_low.tolist(), strict=True))
    points: Sequence[charts.Point] = list(zip(found.confidence.tolist(), found.accuracy.tolist(), strict=True))
    return charts.plot(
        x,
        y,
        [Line([(start, start), (1.0, 1.0)], "diagonal", dots=False), Line(points, "val")],
        label=f"reliability {title}: share that is right by confidence",
        x_labels=[(tick, f"{100 * tick:.0f}%") for tick in x.ticks()],
        y_labels=[(tick, f"{100 * tick:.0f}%") for tick in y.ticks()],
        area=[*upper, *reversed(lower)],
        spans=list(zip(found.confidence.tolist(), found.low.tolist(), found.high.tolist(), strict=True)),
        height=260,
    )
