"""What a model answered on a split, row by row; every number of a run is computed from such a value.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import arrays, manifest, notebook
from headstart.core.errors import ArtefactError, ConfigError, HeadstartError, Problem
from headstart.core.plural import plural
from headstart.measure import calibration, classes, metrics, multilabel
from headstart.measure.classes import ClassScore
from headstart.measure.intervals import Difference, Measured
from headstart.measure.metrics import OwnMetric

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1


@dataclass(frozen=True)
class Evaluation:
    """The logits of a model on the labelled rows of a split; each row occurs once.

    Labels (N, K) of 0 and 1 say that a row may have several: each logit is then a yes or no of its own, and what is
    given are the labels whose probability reaches the ``threshold``.

    Raises:
        HeadstartError: shapes disagree, a row occurs twice, a label is no class, or a logit is not finite.
    """

    split: str
    rows: np.ndarray  # (N,) int64, indices into the split
    logits: np.ndarray  # (N, K) float32
    labels: np.ndarray  # (N,) int64, or (N, K) uint8
    classes: tuple[str, ...]
    names: tuple[str, ...] | None = None  # of all rows of the split, for people; not saved
    threshold: float = 0.5

    def __post_init__(self) -> None:
        marks = np.uint8 if np.ndim(self.labels) == 2 else np.int64
        for name, kind in (("rows", np.int64), ("logits", np.float32), ("labels", marks)):
            array = np.array(getattr(self, name), dtype=kind)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "classes", tuple(str(label) for label in self.classes))
        problems = self._problems()
        if problems:
            raise HeadstartError(f"the evaluation of '{self.split}' is not sound", problems=problems)

    def _problems(self) -> list[Problem]:
        n, k = len(self.rows), len(self.classes)
        if self.rows.shape != (n,) or self.labels.shape not in ((n,), (n, k)) or self.logits.shape != (n, k):
            shapes = f"rows {self.rows.shape}, labels {self.labels.shape}, logits {self.logits.shape}"
            return [Problem(f"shapes disagree: {shapes}, {k} classes", self.split)]
        found = []
        if len(np.unique(self.rows)) != n:
            found.append(Problem("a row occurs more than once", self.split))
        if n and self.several and self.labels.max() > 1:
            found.append(Problem("labels of a row must be 0 or 1 each", self.split))
        elif n and not self.several and (self.labels.min() < 0 or self.labels.max() >= k):
            found.append(Problem(f"labels must lie in 0..{k - 1}; unlabelled rows cannot be scored", self.split))
        broken = self.rows[~np.isfinite(self.logits).all(axis=1)]
        if len(broken):
            found.append(Problem(f"the logits of {len(broken)} rows are not finite: rows {_few(broken)}", self.split))
        return found

    @classmethod
    def gather(
        cls,
        split: str,
        parts: Iterable[tuple[np.ndarray, np.ndarray]],
        labels: np.ndarray,
        classes: Sequence[str],
        expected: np.ndarray | None = None,
        threshold: float = 0.5,
    ) -> Evaluation:
        """Put (rows, logits) parts together by row index: order, sharding and padding cannot matter.

        Args:
            parts: arrays (B,) of row indices with their logits (B, K); a padded row may come again, equal or not.
            labels: (N,) or (N, K) of the whole split.
            expected: the rows that must be there, all of the split by default.

        Raises:
            HeadstartError: a row is missing, or one came that was not expected.
        """
        wanted = np.arange(len(labels)) if expected is None else np.unique(np.asarray(expected, dtype=np.int64))
        place = np.full(len(labels), -1, dtype=np.int64)
        place[wanted] = np.arange(len(wanted))
        logits = np.zeros((len(wanted), len(classes)), dtype=np.float32)
        seen = np.zeros(len(wanted), dtype=bool)
        for rows, values in parts:
            rows = np.asarray(rows, dtype=np.int64)
            outside = rows[(rows < 0) | (rows >= len(labels))]
            strange = outside if len(outside) else rows[place[rows] < 0]
            if len(strange):
                raise HeadstartError(f"unexpected rows {_few(strange)} in the evaluation of '{split}'")
            new = ~seen[place[rows]]
            logits[place[rows[new]]] = np.asarray(values)[new]
            seen[place[rows]] = True
        if not seen.all():
            missing = wanted[~seen]
            raise HeadstartError(f"{len(missing)} rows of '{split}' were never evaluated: rows {_few(missing)}")
        return cls(split, wanted, logits, np.asarray(labels)[wanted], tuple(classes), threshold=threshold)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def several(self) -> bool:
        """Whether a row may have several labels, or none."""
        return self.labels.ndim == 2

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, K) float64; each row sums to 1 where it has one class."""
        return multilabel.sigmoid(self.logits) if self.several else metrics.softmax(self.logits)

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N,) int64, the class with the largest logit; or (N, K) bool, the labels that are given."""
        if self.several:
            return self.probabilities >= self.threshold
        return self.logits.argmax(axis=1).astype(np.int64)

    @cached_property
    def correct(self) -> np.ndarray:
        """(N,) bool; of several labels all are right."""
        found = self.predicted == self.labels
        return found.all(axis=1) if self.several else found

    @cached_property
    def losses(self) -> np.ndarray:
        """(N,) float64, minus the log-probability of the true class, or of all that is true of the labels."""
        if self.several:
            return multilabel.losses(self.logits, self.labels)
        return -metrics.log_softmax(self.logits)[np.arange(len(self)), self.labels]

    def told(self, marks: np.ndarray) -> list[Any]:
        """``labels`` or ``predicted`` as names: one a row, or a list of them where a row may have several."""
        if self.several:
            return [[self.classes[index] for index in np.flatnonzero(row)] for row in marks]
        return [self.classes[index] for index in marks]

    def metric(self, metric: str | OwnMetric, *, seed: int = 0) -> Measured:
        """A metric by name, or of an own function (labels, probabilities (N, K)) -> float, with its interval."""
        return metrics.measure(metric, self.labels, self.probabilities, seed=seed, threshold=self.threshold)

    def metrics(self, names: Iterable[str | OwnMetric] | None = None) -> dict[str, Measured]:
        """Several metrics by name; by default all that say something.

        Top-5 needs more than five classes; the area under the ROC curve is told of two, where both have rows.
        """
        chosen = self._telling() if names is None else names
        return {metrics.name_of(metric): self.metric(metric) for metric in chosen}

    def _telling(self) -> list[str]:
        if self.several:
            return list(metrics.of_labels(self.labels))
        silent = {*metrics.OF_ALL}
        if len(self.classes) <= 5:
            silent.add("top5")
        if len(self.classes) != 2 or len(np.unique(self.labels)) < 2:
            silent.add("roc_auc")
        return [name for name in metrics.of_labels(self.labels) if name not in silent]

    def as_json(self, own: str | OwnMetric = "auto", *, partly: bool = False) -> dict[str, Any]:
        """Every metric that says something about these classes, and the run's ``own``, as plain values by name;
        ``partly``: without that where it gives no finite number, such as on rows of one class."""
        own, named = metrics.usual(own, self.labels), list(self.metrics().items())
        with suppress(*([ConfigError] if partly else [])):
            if (name := metrics.name_of(own)) not in dict(named):
                found = self.metric(own)
                named += [(name, found)] if not partly or math.isfinite(found.value) else []
        return {name: measured.as_json() for name, measured in named}

    def compare(self, other: Evaluation, metric: str | OwnMetric = "auto") -> Difference:
        """This evaluation's metric minus the other's, paired on rows.

        Raises:
            HeadstartError: the two are not of the same split, rows, labels and classes.
        """
        a, b = self._ordered(), other._ordered()
        same = a.split == b.split and a.classes == b.classes and np.array_equal(a.rows, b.rows)
        if not (same and np.array_equal(a.labels, b.labels)):
            raise HeadstartError(
                f"evaluations of '{self.split}' ({len(self)} rows) and '{other.split}' ({len(other)} rows) do not pair",
                remedy="compare models on the same rows, labels and classes",
            )
        thresholds = (a.threshold, b.threshold)
        metric = metrics.usual(metric, a.labels)
        return metrics.compare(metric, a.labels, a.probabilities, b.probabilities, thresholds=thresholds)

    def confusion(self) -> np.ndarray:
        """Counts (K, K) int64: true classes down, predicted classes across.

        Raises:
            HeadstartError: rows may have several labels: none is taken for another.
        """
        if self.several:
            raise HeadstartError("there is no confusion among labels of which a row may have several", where=self.split)
        return metrics.confusion(self.labels, self.predicted, len(self.classes))

    def most_confused(self, limit: int = 20) -> list[tuple[str, str, int]]:
        """(true, predicted, rows) of the most frequent mistakes, most frequent first."""
        table = self.confusion()
        np.fill_diagonal(table, 0)
        order = np.argsort(-table, axis=None, kind="stable")[:limit]
        pairs = [divmod(int(cell), len(self.classes)) for cell in order]
        return [(self.classes[t], self.classes[p], int(table[t, p])) for t, p in pairs if table[t, p]]

    def worst(self, limit: int = 20) -> np.ndarray:
        """Row indices with the largest loss, largest first."""
        return self.rows[np.argsort(-self.losses, kind="stable")[:limit]]

    def per_class(self) -> list[ClassScore]:
        """Precision, recall and F1 of every class with their intervals; of several labels average precision too."""
        if self.several:
            return classes.of_labels(self.labels, self.predicted, self.probabilities, self.classes)
        return classes.of_table(self.confusion(), self.classes)

    def reliability(self) -> calibration.Reliability:
        """The reliability diagram's numbers, with the band of perfect calibration."""
        return calibration.reliability(self.probabilities, self.labels)

    def with_temperature(self, temperature: float) -> Evaluation:
        """The same answers with logits divided by ``temperature``; no prediction changes at a threshold of 0.5."""
        return replace(self, logits=self.logits / np.float32(temperature))

    def decided(self) -> Evaluation:
        """As the finished model decides: a threshold other than 0.5 is for probabilities at the temperature that these
        rows fit; otherwise it decides as here."""
        if not self.several or self.threshold == 0.5:
            return self
        return self.with_temperature(calibration.fit_temperature(self.logits, self.labels))

    def save(self, path: str | Path) -> None:
        """Write an .npz file (numpy's own format, no pickle), atomically."""
        facts = {"format": FORMAT, "split": self.split, "classes": self.classes}
        text = json.dumps({**facts, "threshold": self.threshold} if self.several else facts)
        about = text.encode("ascii")
        told = np.frombuffer(about, dtype=np.uint8)

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:
                np.savez(file, about=told, rows=self.rows, logits=self.logits, labels=self.labels)

        manifest.write_atomically(Path(path), write)

    @classmethod
    def load(cls, path: str | Path, expected: np.ndarray | None = None) -> Evaluation:
        """Read what ``save`` wrote; with ``expected`` (row indices), prove that exactly these rows are there.

        Raises:
            ArtefactError: the file is missing, damaged, of another format, or rows are missing, doubled or foreign.
        """
        try:
            stored = arrays.read(path)
            about = json.loads(stored["about"].tobytes().decode())
            if about["format"] != FORMAT:
                raise ArtefactError(f"predictions have the unknown format {about['format']}", where=str(path))
            answers = (stored["rows"], stored["logits"], stored["labels"])
            found = cls(about["split"], *answers, tuple(about["classes"]), threshold=float(about.get("threshold", 0.5)))
        except ArtefactError:
            raise
        except (HeadstartError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtefactError(f"predictions cannot be read: {error}", where=str(path)) from error
        if expected is not None and not np.array_equal(np.sort(found.rows), np.sort(np.asarray(expected))):
            raise ArtefactError("predictions do not hold exactly the rows of the split", where=str(path))
        return found

    def frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """A DataFrame: row, (name), label, predicted, confidence, correct, loss. ``names`` are of the whole split.

        Of rows that may have several labels, label and predicted are lists, and there is no one confidence.
        """
        import pandas as pd

        names = self.names if names is None else names
        columns: dict[str, Any] = {"row": self.rows}
        if names is not None:  # object, as file names need not be valid UTF-8
            columns["name"] = pd.Series([names[row] for row in self.rows], dtype=object)
        columns["label"] = pd.Series(self.told(self.labels), dtype=object)
        columns["predicted"] = pd.Series(self.told(self.predicted), dtype=object)
        if not self.several:
            columns["confidence"] = self.probabilities.max(axis=1)
        return pd.DataFrame(columns | {"correct": self.correct, "loss": self.losses})

    def _ordered(self) -> Evaluation:
        order = np.argsort(self.rows, kind="stable")
        return replace(self, rows=self.rows[order], logits=self.logits[order], labels=self.labels[order])

    def __repr__(self) -> str:
        return f"Evaluation({self.split!r}, {self._size})"

    @property
    def _size(self) -> str:
        return f"{plural(len(self), 'row')}, {plural(len(self.classes), 'class')}"

    def _repr_html_(self) -> str:
        rows = ((name, f"{m.value:.4f}", f"{m.low:.4f} – {m.high:.4f}") for name, m in self.metrics().items())
        return notebook.table(("metric", "value", "95 % interval"), rows, f"{self.split}: {self._size}")


def _few(rows: np.ndarray) -> str:
    shown = ", ".join(str(row) for row in rows[:5])
    return f"{shown}…" if len(rows) > 5 else shown
