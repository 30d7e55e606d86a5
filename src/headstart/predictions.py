"""Predictions, answers and features as files: CSV that a spreadsheet may open safely, JSON lines, and .npz."""

from __future__ import annotations

import csv
import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from headstart.core import manifest, storage
from headstart.core.errors import ArtefactError, ConfigError

if TYPE_CHECKING:
    import numpy as np

    from headstart.measure.evaluation import Evaluation
    from headstart.measure.prediction import Prediction

ALL_OF = 20  # classes: up to so many, a file holds the probability of each
TEXTS, ARRAYS = (".csv", ".jsonl"), (".npz",)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def write(path: Path, rows: Sequence[Prediction], top: int | None) -> str:
    """Write ``rows`` with at most ``top`` labels each (None: all that are given), as the file's name ends.

    The file appears whole or not at all.

    Returns:
        What to say of cells that stand there otherwise; mostly nothing.

    Raises:
        ConfigError: the name ends in neither .csv nor .jsonl.
        ArtefactError: the file cannot be written.
    """
    check(path, TEXTS)
    fill, most = _csv if path.suffix.lower() == ".csv" else _jsonl, most_labels(rows, top)
    return _save_text(path, lambda file: fill(file, rows, most))


def write_answers(path: Path, answers: Evaluation) -> str:
    """Write one line for every labelled row: file (or its row), label, predicted, confidence, correct, loss.

    Where a row may have several labels, they are lists (in a .csv with a bar between them), and instead of a confidence
    there is the probability of each label (in a .csv in a column of its own).

    Returns:
        As ``write`` does.

    Raises:
        ConfigError: the name ends in neither .csv nor .jsonl.
        ArtefactError: the file cannot be written.
    """
    check(path, TEXTS)
    fill = _answers_csv if path.suffix.lower() == ".csv" else _answers_jsonl
    return _save_text(path, lambda file: fill(file, _answers(answers)))


def labels_a_file(asked: int | None, classes: int, *, whole: bool, several: bool = False) -> int | None:
    """How many labels a row is given: as many as asked; else one, or all of few in a file (``whole``).

    None where a row may have ``several``: those that it has.
    """
    if asked is None and several:
        return None
    if asked is None:
        return classes if whole and classes <= ALL_OF else 1
    return min(asked, classes)


def most_labels(rows: Sequence[Prediction], top: int | None) -> int:
    """The labels of the row with the most, at least one, where it is not told how many (``top``)."""
    return max([1, *(len(row.scores) for row in rows)]) if top is None else top


def summary(rows: Sequence[Prediction], path: Path) -> str:
    """``12 predictions in new.csv, 4 rows could not be read (named in the file)``."""
    failed = sum(bool(row.problem) and not row.scores for row in rows)
    left = f", {failed} row{'s' * (failed > 1)} could not be read (named in the file)" if failed else ""
    done = len(rows) - failed
    return f"{done} prediction{'s' * (done != 1)} in {path}{left}"


def check(path: Path, kinds: Sequence[str], given: Sequence[str] = ()) -> None:
    """Whether a file may be written at ``path``, before any work is done for it.

    Args:
        given: what is read for it: no file of the user's is written over.

    Raises:
        ConfigError: its name ends in none of ``kinds``, or it is one of those that are ``given``.
        ArtefactError: the place cannot be written to.
    """
    if path.exists() and any(os.path.exists(each) and path.samefile(each) for each in given):
        what = f"'{path}' is read here, and would be written over"
        raise ConfigError(what, where="--output", remedy="choose another name")
    ending = f"end the name in {' or '.join(kinds)}"
    if path.is_dir():
        raise ArtefactError("this is a folder", where=str(path), remedy=f"choose another place with --output; {ending}")
    if path.suffix.lower() not in kinds:
        what = f"cannot write '{path.suffix}' files" if path.suffix else f"'{path.name}' does not say what to write"
        raise ConfigError(what, where="--output", remedy=ending)
    storage.insist_writable(path.parent, "--output")


def safe_cell(text: str) -> str:
    """Text that a spreadsheet takes for text: what would start a formula is quoted; a number (-1) is none."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) and not _NUMBER.fullmatch(text) else text


def write_features(path: Path, features: np.ndarray, names: Sequence[str]) -> None:
    """``features`` (N, D) float32 and ``names`` (N,) text, as arrays that load without pickle.

    Raises:
        ConfigError: the name does not end in .npz.
        ArtefactError: the file cannot be written.
    """
    import numpy as np

    check(path, ARRAYS)

    def save(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, features=features, names=np.array(names, dtype=np.str_))

    _save(path, save)


def _save_text(path: Path, fill: Callable[[TextIO], int]) -> str:
    """Write what ``fill`` writes; what to say of the cells that were quoted, of which it tells the number."""
    count = 0

    def save(temporary: Path) -> None:
        nonlocal count
        # A file name need not be Unicode: what cannot be written is written as its code.
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            count = fill(file)

    _save(path, save)
    begin, it = ("1 cell begins", "it") if count == 1 else (f"{count} cells begin", "them")
    why = f"so that no spreadsheet takes {it} for a formula (a .jsonl has none)"
    return f"{begin} with an apostrophe, {why}" if count else ""


def _save(path: Path, save: Callable[[Path], None]) -> None:
    try:
        manifest.write_atomically(path, save)
    except OSError as error:
        raise storage.unwritable(path, error, "--output") from error


def _csv(file: TextIO, rows: Sequence[Prediction], top: int) -> int:
    out = _Table(file)
    pairs = [
        name
        for rank in range(1, top + 1)
        for name in (("label", "score") if rank == 1 else (f"label_{rank}", f"score_{rank}"))
    ]
    texts = list(dict.fromkeys(name for row in rows for name in row.said))
    out.write(["file", *texts, *pairs, "problem"])
    for row in rows:
        cells = [row.said.get(name, "") for name in texts]
        for rank in range(top):
            label, score = row.scores[rank] if rank < len(row.scores) else ("", None)
            cells += [label, "" if score is None else _number(score)]
        out.write([row.name, *cells, row.problem])
    return out.quoted


class _Table:
    """Writes CSV, and counts the cells that had to be quoted."""

    def __init__(self, file: TextIO) -> None:
        self._out = csv.writer(file, lineterminator="\n")
        self.quoted = 0

    def write(self, cells: Sequence[str]) -> None:
        safe = [safe_cell(cell) for cell in cells]
        self.quoted += sum(map(operator.ne, safe, cells))
        self._out.writerow(safe)


def _jsonl(file: TextIO, rows: Sequence[Prediction], top: int) -> int:
    for row in rows:
        value: dict[str, Any] = {"file": row.name, **row.said, "predictions": row.as_pipeline()[:top]}
        if row.problem:
            value["problem"] = row.problem
        file.write(json.dumps(value, ensure_ascii=False) + "\n")
    return 0


def _answers(answers: Evaluation) -> Iterator[dict[str, Any]]:
    shares = answers.probabilities
    labels, predicted = answers.told(answers.labels), answers.told(answers.predicted)
    for place, row in enumerate(answers.rows.tolist()):
        sure: dict[str, Any] = {"confidence": float(shares[place].max())}
        if answers.several:
            sure = {"probabilities": dict(zip(answers.classes, shares[place].tolist(), strict=True))}
        yield {
            "file": f"row {row}" if answers.names is None else answers.names[row],
            "label": labels[place],
            "predicted": predicted[place],
            **sure,
            "correct": bool(answers.correct[place]),
            "loss": float(answers.losses[place]),
        }


def _answers_csv(file: TextIO, rows: Iterable[dict[str, Any]]) -> int:
    out = _Table(file)
    for number, row in enumerate(rows):
        shares = {f"probability of {name}": share for name, share in row.pop("probabilities", {}).items()}
        if not number:
            out.write([*row, *shares])
        out.write([_cell(value) for value in (*row.values(), *shares.values())])
    return out.quoted


def _cell(value: Any) -> str:
    """One value; several labels with a bar between them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _number(value)
    return "|".join(value) if isinstance(value, list) else str(value)


def _number(value: float) -> str:
    """Six decimals; all of them where a probability that is not certain would be written as if it were."""
    short = f"{value:.6f}"
    return short if value in (0.0, 1.0) or float(short) not in (0.0, 1.0) else repr(float(value))


def _answers_jsonl(file: TextIO, rows: Iterable[dict[str, Any]]) -> int:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return 0
