"""Answers of an exported model, without torch: the project's own decoder, and ONNX Runtime or OpenVINO.

Shapes: N rows, B rows of a batch, K classes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core import registry
from headstart.core.errors import ArtefactError
from headstart.core.events import Event, Notice, Progress
from headstart.core.machine import usable_cores
from headstart.data import loaders, sources
from headstart.data.reading.unlabelled import Usual
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.deploy import contract, folder, mates, parallel
from headstart.deploy.folder import Golden
from headstart.deploy.runtimes.base import Session
from headstart.measure.prediction import Predictions

RUNTIMES = "headstart.deploy.runtimes"
CHUNK = 512  # rows decoded at a time: memory does not grow with the number of rows
# Other processors round differently; where int8 products saturate (U8S8 without VNNI), answers differ by far more.
SLACK = 3.0
Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Variant:
    """One way to run an export: a file, a runtime, the precision of its floats, and what the verdict found."""

    file: str
    runtime: str
    precision: str
    gap: float  # from torch's logits on the golden rows, relative to the largest
    batch_gap: float = 0.0  # by how much a probability in a batch differs from the same row's alone

    @property
    def name(self) -> str:
        """``onnxruntime fp32``, ``openvino bf16``, ``openvino int8+bf16``; fp16 are weights only."""
        return f"{self.runtime} {_kind(self.file, self.precision)}"

    @property
    def batches(self) -> bool:
        """Whether rows may be answered together."""
        return self.batch_gap <= mates.allowed(self.precision)


def ways(file: str, runtime: str) -> list[Variant]:
    """A file in every precision that a runtime has here, the plain one first; what a verdict finds is still open."""
    precisions = registry.find(RUNTIMES, runtime).precisions()
    plain = precisions[:1] if file == folder.HALF else precisions  # weights in 16 bits are for the size alone
    return [Variant(file, runtime, precision, 0.0) for precision in plain]


def _kind(file: str, precision: str) -> str:
    if file == folder.INT8:
        return "int8" if precision == "fp32" else f"int8+{precision}"
    return precision if file == folder.FLOAT else "fp16"


class Predictor:
    """An export that takes the user's own files: ``Predictor("runs/photos/export").predict(["new/1.jpg"])``.

    The quickest variant that the verdict accepted and this machine can run is taken; its answers on the golden rows
    are compared with torch's before anything else.

    Args:
        variant: a variant of the verdict by name, accepted or not, instead of the quickest.
        threads: for the runtime; by default all that this process may use.
        on_event: told where another variant than the verdict's first choice is taken.

    Raises:
        ArtefactError: the export is damaged or incomplete, no variant of it was accepted, or it answers differently
            here from where it was written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        variant: str | None = None,
        threads: int | None = None,
        on_event: Emit | None = None,
    ) -> None:
        self.folder = Path(path)
        verdict = folder.read_verdict(self.folder)
        self.threads = threads or max(1, round(usable_cores()))
        found = _opened(verdict, variant, self.folder, self.threads, on_event)
        self.name, self.variant, self.contract, session = found
        self.threshold = _threshold(verdict, self.name)
        self.usual = Usual(verdict.get("input_column"), verdict.get("sampling_rate"))
        self._modality = registry.find(contract.MODALITIES, self.contract.modality)
        self._session = session if self.variant.batches else mates.row_by_row(session, mates.padding(self.modality))
        self._turn = threading.Lock()
        self._check_golden(session)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.contract.classes

    @property
    def several(self) -> bool:
        """Whether a row may have several labels."""
        return self.contract.given_from is not None

    @property
    def modality(self) -> str:
        return self.contract.modality

    def predict(
        self,
        source: Any,
        *,
        top_k: int | None = None,
        input_column: str | None = None,
        sampling_rate: int | None = None,
        on_event: Emit | None = None,
    ) -> Predictions:
        """Labels and probabilities, most likely first, for a folder, files, arrays, pictures, texts or sounds.

        ``input_column`` names what to read of a table; without it the column that the run learned from is looked for,
        then a familiar name; ``sampling_rate`` is that of sounds given as arrays, without it that of the run's. A row
        that cannot be read gets a prediction without scores whose ``problem`` says why; where the export has a
        threshold, so does one that is not sure enough ("don't know").

        Raises:
            DataError: there is nothing to predict.
        """
        say = on_event or (lambda event: None)
        rows, notes = sources.find_unlabelled(
            source, self.modality, input_column=input_column, sampling_rate=sampling_rate, usual=self.usual
        )
        for note in notes:
            say(Notice("info", "data", note))
        parts = self._parts(rows, say)
        return Predictions.gather(
            rows.names,
            self.classes,
            parts,
            top_k=top_k,
            threshold=self.threshold,
            given_from=self.contract.given_from,
            texts=sources.texts_of(rows, self.modality),
        )

    def prepare(self, item: Any) -> np.ndarray:
        """One item (a path, bytes, a text, an array) to what the model is given, without the axis of rows.

        Raises:
            DecodeError: it cannot be read.
        """
        return self._modality.prepare(item, self.contract.spec)

    def answer(self, values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Logits and probabilities (B, K) of prepared items, each as if it had come alone.

        They are computed as one batch where that changes no answer beyond the precision's rounding. Calls from several
        threads take turns.
        """
        return self.run(self._modality.collate(values))

    def run(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and probabilities (B, K) of a batch as the modality collates it."""
        with self._turn:
            return self._session(inputs)

    def batch_gap(self, inputs: np.ndarray, longest: int) -> float:
        """By how much a probability of these rows depends on their batch on this machine (see ``mates.gap``)."""
        with self._turn:
            return mates.gap(self._session, inputs, mates.padding(self.modality), longest)

    def _parts(self, rows: Rows, say: Emit) -> Iterator[tuple[np.ndarray, np.ndarray, dict[int, str]]]:
        for start in range(0, len(rows), CHUNK):
            part = rows.take(np.arange(start, min(start + CHUNK, len(rows))))
            store = Store.build(part, self.contract.spec, modality=self.modality)
            problems = {start + row: f"{reason.message} [{reason.code}]" for row, reason in store.errors.items()}
            spec, order = self.contract.spec, store.usable
            if self.modality != "image":  # rows of like length together: the least padding is computed
                order = order[np.argsort(store.lengths[order], kind="stable")]
            found = [
                self._session(batch.inputs)[1]
                for batch in loaders.batches(store, part.labels, spec, batch_size=mates.ROWS, order=order)
            ]
            say(Progress("predict", start + len(part), len(rows), "rows"))
            shares = np.concatenate(found) if found else np.zeros((0, len(self.classes)), np.float32)
            yield order + start, shares, problems

    def _check_golden(self, session: Session) -> None:
        """In one batch, as torch answered them, whether or not rows are answered together later."""
        golden = Golden.read(self.folder / folder.GOLDEN)
        try:
            gap = golden.gap(parallel.together(session)(golden.inputs)[0])
        except Exception as error:  # whatever a runtime raises where inputs or outputs do not fit
            raise ArtefactError(f"its golden rows do not fit the model ({error})", where=str(self.folder)) from error
        if not gap <= max(folder.PARITY, SLACK * self.variant.gap):
            raise ArtefactError(
                f"'{self.name}' answers differently here from where it was written (by {gap:.2g} of the largest logit, "
                f"{self.variant.gap:.2g} there)",
                where=str(self.folder),
                remedy="export the run again on this machine",
            )

    def __repr__(self) -> str:
        return f"Predictor({str(self.folder)!r}, {self.name!r}, {len(self.classes)} classes)"


def open_session(place: Path, variant: Variant, threads: int) -> Session:
    """The file of a variant, opened by its runtime (see ``runtimes.base.Session``)."""
    runtime = registry.find(RUNTIMES, variant.runtime)
    loaded: Session = runtime.load(place / variant.file, threads=threads, precision=variant.precision)
    return loaded


def _opened(
    verdict: dict[str, Any], wanted: str | None, place: Path, threads: int, on_event: Emit | None
) -> tuple[str, Variant, contract.Contract, Session]:
    """Name, variant, contract and session: of the wanted one, else of the first in the verdict's order that runs here.

    A runtime that is older than the one of the export may refuse its file: then the next is taken.
    """
    where, known = str(place / folder.VERDICT), variants(verdict, place)
    try:
        order = [str(name) for name in verdict["accepted"]] if wanted is None else [wanted]
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"not a verdict ({error})", where=where) from error
    remedy = "verdict.json says why; train on, or export with a larger --tolerance"
    refused = ArtefactError("no variant of this export was accepted", where=where, remedy=remedy)
    for name in order:
        if name not in known:
            raise ArtefactError(f"there is no variant '{name}'", where=where, remedy=f"known: {', '.join(known)}")
        if wanted is None and not registry.find(RUNTIMES, known[name].runtime).version():
            continue
        told = contract.read(place / known[name].file)
        try:
            session = open_session(place, known[name], threads)
        except ArtefactError as error:
            refused = error
            continue
        if name != order[0] and on_event is not None:
            what = f"'{order[0]}' was quickest where this was exported; '{name}' is what can run here"
            on_event(Notice("info", "runtime", what))
        return name, known[name], told, session
    raise refused


def variants(verdict: dict[str, Any], place: Path) -> dict[str, Variant]:
    """Every variant of the verdict of an export in ``place``, by name.

    Raises:
        ArtefactError: it does not hold what it should.
    """
    try:
        return {str(entry["name"]): _variant(entry) for entry in verdict["variants"]}
    except (KeyError, TypeError, ValueError) as error:
        where, remedy = str(place / folder.VERDICT), "export the run again"
        raise ArtefactError(f"not a verdict ({error})", where=where, remedy=remedy) from error


def _variant(entry: dict[str, Any]) -> Variant:
    file, runtime, precision = (str(entry[key]) for key in ("file", "runtime", "precision"))
    found = Variant(file, runtime, precision, float(entry["gap"]), float(entry["batch_gap"]))
    if found.file not in folder.MODELS or found.runtime not in registry.names(RUNTIMES):
        raise ValueError(f"unknown file or runtime: {found.file[:80]!r}, {found.runtime[:80]!r}")
    if found.precision not in registry.find(RUNTIMES, found.runtime).PRECISIONS:
        raise ValueError(f"{found.runtime} knows no precision {found.precision[:80]!r}")
    return found


def _threshold(verdict: dict[str, Any], name: str) -> float:
    chosen = next(entry for entry in verdict["variants"] if entry["name"] == name).get("threshold")
    return 0.0 if chosen is None else float(chosen["value"])
