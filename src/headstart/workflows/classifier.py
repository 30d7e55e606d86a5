"""What a finished run answers: labels with probabilities, features, and how right they are on labelled rows.

Shapes: N rows, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.errors import DataError, Problem
from headstart.core.events import Event, Notice, Progress
from headstart.core.plural import plural
from headstart.data.reading.collection import listing
from headstart.data.reading.unlabelled import NOTHING, Usual
from headstart.data.splits import Rows
from headstart.measure.evaluation import Evaluation
from headstart.measure.metrics import softmax
from headstart.measure.multilabel import sigmoid
from headstart.measure.prediction import Predictions

if TYPE_CHECKING:
    from headstart.models.model import Model

BATCH = 32
SHOWN = 5  # unreadable rows that a warning names
Emit = Callable[[Event], None]


class Classifier:
    """A trained model that takes the user's own files: ``headstart.load("runs/photos")``."""

    def __init__(self, model: Model, usual: Usual = NOTHING) -> None:
        self.model = model.eval()
        self.modality = model.backbone.modality
        self.usual = usual

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.classes

    @property
    def several(self) -> bool:
        """Whether a row may have several labels."""
        return self.model.several

    def predict(
        self,
        source: Any,
        *,
        top_k: int | None = None,
        input_column: str | None = None,
        sampling_rate: int | None = None,
        on_event: Emit | None = None,
    ) -> Predictions:
        """Labels and probabilities, most likely first, for a folder, files, arrays or pictures.

        ``input_column`` names what to read of a table; without it the column that the run learned from is looked for,
        then a familiar name. ``sampling_rate`` is that of sounds given as arrays; without it, that of the arrays which
        the run learned from.
        Where a row may have several labels, those that reach the model's threshold, unless ``top_k`` asks for so many.

        A row that cannot be read gets a prediction without scores whose ``problem`` says why.

        Raises:
            DataError: there is nothing to predict.
        """
        from headstart.data import sources

        rows, notes = sources.find_unlabelled(
            source, self.modality, input_column=input_column, sampling_rate=sampling_rate, usual=self.usual
        )
        _tell_notes(notes, on_event)
        probabilities = sigmoid if self.several else softmax
        parts = (
            (indices, probabilities(logits / self.model.temperature), problems)
            for indices, logits, problems in self._logits(rows, on_event)
        )
        given_from, texts = self.model.threshold if self.several else None, sources.texts_of(rows, self.modality)
        return Predictions.gather(rows.names, self.classes, parts, top_k=top_k, given_from=given_from, texts=texts)

    def evaluate(
        self, rows: Rows, classes: Sequence[str], split: str, on_event: Emit | None = None, *, where: str = ""
    ) -> Evaluation:
        """What ``predict`` answers on labelled rows whose classes are among the model's (in any order).

        Rows that cannot be read are left out, with a warning that names them.

        Raises:
            DataError: a class that the model does not know, or rows that cannot be read; all are named.
        """
        unknown = [name for name in classes if name not in self.classes]
        if unknown:
            strange = [place for place, name in enumerate(classes) if name in unknown]
            of = rows.labels[:, strange].any(axis=1) if rows.labels.ndim == 2 else np.isin(rows.labels, strange)
            places = [rows.names[row] for row in np.flatnonzero(of)]
            have = plural(len(places), f"of {len(rows):,} rows has", f"of {len(rows):,} rows have")
            told = f"{have} them ({listing(places)})" if places else "no row has them"
            raise DataError(
                f"the model does not know the classes {', '.join(unknown)}: {told}",
                where=where or split,
                remedy=f"it knows: {', '.join(self.classes)}",
            )
        own = np.array([self.classes.index(name) for name in classes], dtype=np.int64)
        labels = self._labels(rows, own, where or split)
        logits = np.zeros((len(rows), len(self.classes)), dtype=np.float32)
        done = np.zeros(len(rows), dtype=bool)
        unreadable: list[Problem] = []
        for indices, values, problems in self._logits(rows, on_event):
            logits[indices], done[indices] = values, True
            unreadable += [Problem(text, rows.names[row]) for row, text in problems.items()]
        if not done.any():
            raise _nothing_read(unreadable)
        _tell_unreadable(unreadable, len(rows), on_event)
        kept = np.flatnonzero(done)
        threshold = self.model.threshold
        answers = Evaluation(split, kept, logits[kept], labels[kept], self.classes, rows.names, threshold)
        return answers.with_temperature(self.model.temperature)

    def _labels(self, rows: Rows, own: np.ndarray, where: str) -> np.ndarray:
        """The labels of the rows as the model numbers its classes, ``own`` (K',) of those that index them."""
        if self.several != (rows.labels.ndim == 2):
            what = "the model gives a row {}, and the labels here are {}"
            each, any_number = "one label", "any number of labels"
            what = what.format(*(any_number, each) if self.several else (each, any_number))
            raise DataError(what, where=where, remedy="label_separator=…, or lists, say that there may be several")
        if not self.several:
            return own[rows.labels]
        marks = np.zeros((len(rows), len(self.classes)), dtype=np.uint8)
        marks[:, own] = rows.labels
        return marks

    def embed(
        self,
        source: Any,
        *,
        input_column: str | None = None,
        sampling_rate: int | None = None,
        on_event: Emit | None = None,
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Features (N, D) float32 that the head sees, with the names of the rows; unreadable rows are left out."""
        from headstart.data import sources

        rows, notes = sources.find_unlabelled(
            source, self.modality, input_column=input_column, sampling_rate=sampling_rate, usual=self.usual
        )
        _tell_notes(notes, on_event)
        parts, unreadable = [], []
        for rows_read, features, problems in self._outputs(rows, self.model.backbone.features, on_event):
            if len(rows_read):
                parts.append((rows_read, features))
            unreadable += [Problem(text, rows.names[row]) for row, text in problems.items()]
        if not parts:
            raise _nothing_read(unreadable)
        _tell_unreadable(unreadable, len(rows), on_event)
        indices = np.concatenate([i for i, _ in parts])
        return np.concatenate([features for _, features in parts]), tuple(rows.names[i] for i in indices)

    def _logits(self, rows: Rows, on_event: Emit | None) -> Iterator[tuple[np.ndarray, np.ndarray, dict[int, str]]]:
        return self._outputs(rows, self.model, on_event)

    def _outputs(
        self, rows: Rows, compute: Any, on_event: Emit | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, dict[int, str]]]:
        """Row indices, outputs and problems, chunk by chunk: memory does not grow with the number of rows."""
        import torch

        from headstart.data.loaders import batches
        from headstart.data.store import Store
        from headstart.engine import memory
        from headstart.engine.streams import on_device

        spec = self.model.backbone.spec
        device = next(self.model.parameters()).device
        self.model.eval()
        chunk, size = 16 * BATCH, BATCH
        say = on_event or (lambda event: None)
        for start in range(0, len(rows), chunk):
            part = rows.take(np.arange(start, min(start + chunk, len(rows))))
            store = Store.build(part, spec, modality=self.modality)
            problems = {start + row: f"{reason.message} [{reason.code}]" for row, reason in store.errors.items()}
            usable = store.usable
            # rows of like length share a batch, so that hardly anything is padded
            by_length = np.argsort(-store.lengths[usable], kind="stable")
            order = usable[by_length]

            def attempt(size: int, store: Store = store, part: Rows = part, order: np.ndarray = order) -> list[Any]:
                with torch.inference_mode():
                    parts = batches(store, part.labels, spec, batch_size=size, order=order)
                    return [compute(on_device(batch.inputs, device)).float().cpu().numpy() for batch in parts]

            outputs, size = memory.halving(attempt, size, on_halved=lambda n: say(memory.told(n)), where="predict")
            values = np.concatenate(outputs) if outputs else np.zeros((0, len(self.classes)), np.float32)
            say(Progress("predict", start + len(part), len(rows), "rows"))
            yield usable + start, values[np.argsort(by_length)], problems

    def __repr__(self) -> str:
        return f"Classifier({self.model.backbone.origin.uri!r}, {plural(len(self.classes), 'class')})"


def _tell_notes(notes: Sequence[str], on_event: Emit | None) -> None:
    if on_event is not None:
        for note in notes:
            on_event(Notice("info", "data", note))


def _nothing_read(unreadable: Sequence[Problem]) -> DataError:
    """All rows have their problem; the first tell enough."""
    more = [Problem(f"and {plural(len(unreadable) - SHOWN, 'more row')}")] if len(unreadable) > SHOWN else []
    return DataError("no row could be read", problems=[*unreadable[:SHOWN], *more])


def _tell_unreadable(unreadable: Sequence[Problem], count: int, on_event: Emit | None) -> None:
    """Name what is left out."""
    if unreadable and on_event is not None:
        left = "; ".join(f"{problem.where} {problem.what}" for problem in unreadable[:SHOWN])
        more = f"; and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
        of = f"of {count:,} rows"
        told = plural(len(unreadable), f"{of} is", f"{of} are")
        on_event(Notice("warning", "unreadable", f"{told} left out: {left}{more}"))
