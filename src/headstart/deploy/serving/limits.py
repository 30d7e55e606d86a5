"""How much a client may ask for, and how long it may take; beyond it the answer is a refusal that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Sizes, numbers and seconds.

    ``requests`` that are being received together hold at most ``requests * body_bytes`` of memory; what is decoded at
    a time is bounded by the threads that decode.
    """

    body_bytes: int = 10_000_000
    requests: int = 32  # bodies that are received at a time beyond their first 64 kB
    items: int = 32  # of a request
    pixels: int = 50_000_000  # of a picture
    seconds: int = 600  # of a recording
    characters: int = 100_000  # of a text
    queue: int = 64  # items that were accepted and are not answered yet
    receive_seconds: float = 10.0  # for the head of a request, for its body, and for taking the reply
    request_seconds: float = 30.0  # from the whole request to its answer
    idle_seconds: float = 5.0  # between two requests of a connection
    connections: int = 512

    def extent(self, unit: str) -> float:
        """What one item may hold of the unit that its modality counts (``EXTENT``)."""
        return float(getattr(self, unit))

    def as_json(self, unit: str) -> dict[str, Any]:
        """For clients: those that concern them."""
        told = asdict(self)
        return {name: told[name] for name in ("body_bytes", "items", unit, "queue", "request_seconds")}


class Refusal(Exception):
    """An answer that is no prediction. ``status`` is HTTP's; ``code`` stays the same for programs to read."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = {**(headers or {}), **({"connection": "close"} if close else {})}
