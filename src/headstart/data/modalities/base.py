"""What a modality is: how one kind of input is decoded, prepared, augmented, batched and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from headstart.core.errors import ConfigError, DataError, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen while one item was decoded; the audit reads these instead of opening the file again.

    A modality adds its own, in a subclass that its file calls ``Facts``.
    """

    format: str  # "JPEG", "WAV", "str"…, "array" or "PIL" for what was never a file
    bytes: int
    sha256: str  # of the file's bytes, or of shape, type and values


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why one item cannot be used: a stable reason code, and a sentence for people."""

    code: str
    message: str


class DecodeError(DataError):
    """One item cannot be decoded. ``reason`` says why."""

    def __init__(self, code: str, message: str, *, where: str = "") -> None:
        super().__init__(f"{message} [{code}]", where=where)
        self.reason = Unreadable(code, message)


def insist_types(spec: Any, kinds: Mapping[str, type | tuple[type, ...]]) -> None:
    """The fields of a spec are of their kinds; it is written by people too.

    Raises:
        ConfigError: with every field that is not.
    """
    name, problems = type(spec).__name__, []
    for field, kind in kinds.items():
        value = getattr(spec, field)
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            problems.append(Problem(f"{field} is {str(value)[:60]!r} ({type(value).__name__}), not {wanted}", name))
    if problems:
        raise ConfigError(f"the {name} cannot be used", problems=problems)


class Modality(Protocol):
    """The functions that a file in this folder offers at module level (numpy only, no torch at import).

    The path of one item: ``decode`` (the user's file to a value) → ``canvas`` (the deterministic, cacheable part) →
    ``finish`` (what the network sees, before normalisation) or ``augment`` (the same with chance) → ``collate``.
    ``collate`` with a spec makes batches of few lengths, for which torch keeps kernels (``core.lengths``).
    ``sketch`` is a small summary of a canvas, of fixed size, from which near duplicates are told.
    ``decode_with_facts`` may be called by several threads at once.
    """

    name: str
    version: str  # part of the key of cached canvases
    NOUN: tuple[str, str]  # what people call one row, and several
    EXTENT: str  # what ``extent`` counts
    DTYPE: str  # of a canvas
    RANK: int  # its axes, at most 3
    PRESETS: Mapping[str, Any]  # augmentations by name, which ``policy`` takes
    SKETCH: tuple[int, ...]  # shape of a sketch, uint8
    # Facts: a subclass of Facts, above
    Spec: type  # what a backbone wants to be given; to_json, from_json, blank(rows), kept_by

    def decode(self, item: Any, spec: Any) -> Any: ...
    def decode_with_facts(self, item: Any, spec: Any) -> tuple[Any, Facts]: ...
    def canvas(self, value: Any, spec: Any) -> np.ndarray: ...
    def finish(self, canvas: np.ndarray, spec: Any) -> np.ndarray: ...
    def prepare(self, item: Any, spec: Any) -> np.ndarray: ...
    def policy(self, value: Any, *, where: str = "augment") -> Any: ...
    def augment(self, canvas: np.ndarray, spec: Any, policy: Any, rng: np.random.Generator) -> np.ndarray: ...
    def collate(self, values: Sequence[np.ndarray], spec: Any = None) -> np.ndarray: ...
    def plain(self, rows: Any, channels: int) -> Any: ...
    def suited(self, spec: Any, rows: Any) -> Any: ...
    def fitted(self, spec: Any, lengths: np.ndarray) -> tuple[Any, str]: ...
    def largest_canvas(self, spec: Any) -> int: ...
    def sketch(self, canvas: np.ndarray) -> np.ndarray: ...
    def extent(self, item: Any) -> float: ...  # of bytes or text, before anything is decoded; 0 where unknown
    def fingerprint(self, item: Any) -> str: ...
    def texts(self, item: Any) -> tuple[str, ...]: ...
    def preview(self, item: Any) -> tuple[str, bytes]: ...
    def shown(self, seen: np.ndarray, spec: Any) -> tuple[str, bytes]: ...
