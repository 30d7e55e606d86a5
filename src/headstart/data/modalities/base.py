"""What a modality is: how one kind of input is decoded, prepared, augmented, batched and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from headstart.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen while one item was decoded; the audit reads these instead of opening the file again."""

    format: str  # "JPEG", "PNG"…, "array" or "PIL" for what was never a file
    mode: str  # the pixel mode as stored: "RGB", "L", "CMYK", "I;16"…, or the dtype of an array
    width: int  # as shown, that is after the EXIF orientation
    height: int
    orientation: int  # EXIF 1-8; it has been applied
    frames: int  # 1; what moves counts 2 or more, and its first frame is taken
    bytes: int
    sha256: str  # of the file's bytes, or of shape, dtype and pixels


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


class Modality(Protocol):
    """The functions that a file in this folder offers at module level (numpy only, no torch at import).

    The path of one item: ``decode`` (the user's file to a value) → ``canvas`` (the deterministic, cacheable part) →
    ``finish`` (what the network sees, before normalisation) or ``augment`` (the same with chance) → ``collate``.
    ``sketch`` draws the small fixed-size picture of a canvas from which near duplicates are told.
    """

    name: str
    version: str  # part of the key of cached canvases

    def decode(self, item: Any, spec: Any) -> Any: ...
    def decode_with_facts(self, item: Any, spec: Any) -> tuple[Any, Facts]: ...
    def canvas(self, value: Any, spec: Any) -> np.ndarray: ...
    def finish(self, canvas: np.ndarray, spec: Any) -> np.ndarray: ...
    def prepare(self, item: Any, spec: Any) -> np.ndarray: ...
    def augment(self, canvas: np.ndarray, spec: Any, policy: Any, rng: np.random.Generator) -> np.ndarray: ...
    def collate(self, values: Sequence[np.ndarray]) -> np.ndarray: ...
    def largest_canvas(self, spec: Any) -> int: ...
    def sketch(self, canvas: np.ndarray) -> np.ndarray: ...
    def fingerprint(self, item: Any) -> str: ...
    def preview(self, item: Any, size: int) -> bytes: ...
