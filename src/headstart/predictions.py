"""Predictions and features as files: CSV that a spreadsheet may open safely, JSON lines, and .npz."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from headstart.core import manifest
from headstart.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from headstart.workflows.predict import Prediction

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write(path: Path, rows: Sequence[Prediction], top: int) -> None:
    """Write ``rows`` with at most ``top`` labels each, as the file's name ends; the file appears whole or not at all.

    Raises:
        ConfigError: the name ends in neither .csv nor .jsonl.
    """
    fill = _WRITERS[check_suffix(path)]

    def save(temporary: Path) -> None:
        # A file name need not be Unicode: what cannot be written is written as its code.
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            fill(file, rows, top)

    manifest.write_atomically(path, save)


def check_suffix(path: Path) -> str:
    """The kind of file, before any work is done for it."""
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ConfigError(
            f"cannot write '{path.suffix}' files", where="--output", remedy="end the name in .csv or .jsonl"
        )
    return suffix


def safe_cell(text: str) -> str:
    """Text that a spreadsheet takes for text: what would start a formula is quoted."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def write_features(path: Path, features: np.ndarray, names: Sequence[str]) -> None:
    """``features`` (N, D) float32 and ``names`` (N,) text, as arrays that load without pickle.

    Raises:
        ConfigError: the name does not end in .npz.
    """
    import numpy as np

    if path.suffix.lower() != ".npz":
        raise ConfigError(f"cannot write '{path.suffix}' files", where="--output", remedy="end the name in .npz")

    def save(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, features=features, names=np.array(names, dtype=np.str_))

    manifest.write_atomically(path, save)


def _csv(file: TextIO, rows: Sequence[Prediction], top: int) -> None:
    out = csv.writer(file, lineterminator="\n")
    pairs = [
        name
        for rank in range(1, top + 1)
        for name in (("label", "score") if rank == 1 else (f"label_{rank}", f"score_{rank}"))
    ]
    out.writerow(["file", *pairs, "problem"])
    for row in rows:
        cells: list[str] = []
        for rank in range(top):
            label, score = row.scores[rank] if rank < len(row.scores) else ("", None)
            cells += [safe_cell(label), "" if score is None else f"{score:.6f}"]
        out.writerow([safe_cell(row.name), *cells, safe_cell(row.problem)])


def _jsonl(file: TextIO, rows: Sequence[Prediction], top: int) -> None:
    for row in rows:
        value: dict[str, Any] = {"file": row.name, "predictions": row.as_pipeline()[:top]}
        if row.problem:
            value["problem"] = row.problem
        file.write(json.dumps(value, ensure_ascii=False) + "\n")


_WRITERS: dict[str, Callable[[TextIO, Sequence[Prediction], int], None]] = {".csv": _csv, ".jsonl": _jsonl}
