"""One finding of an audit, and one split as the audit sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headstart.data.splits import Rows
from headstart.data.store import Store

Severity = Literal["error", "warning", "info"]
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Finding:
    """Something about the data that one should know, with its rows and what to do about it."""

    kind: str  # a stable word, such as "unreadable"
    severity: Severity  # an error means that training should not start
    split: str  # "train"; "train+test" for what concerns two, where rows and names are those of the second
    rows: tuple[int, ...] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)  # of the rows, or of the classes when it is about classes
    message: str
    remedy: str = ""

    def to_json(self, limit: int) -> dict[str, Any]:
        """Plain values; the first ``limit`` rows and names, ``count`` is whole."""
        told = {key: getattr(self, key) for key in ("kind", "severity", "split", "message", "remedy")}
        return {**told, "count": len(self.rows), "rows": list(self.rows[:limit]), "names": list(self.names[:limit])}


@dataclass(frozen=True)
class View:
    """A split and its store."""

    split: str
    rows: Rows
    store: Store

    def seen(self) -> Iterable[tuple[int, Any]]:
        """(row, facts) of every row that could be decoded; the facts are those of the modality."""
        return ((row, facts) for row, facts in enumerate(self.store.facts) if facts is not None)

    def finding(self, kind: str, severity: Severity, rows: Sequence[int], message: str, remedy: str = "") -> Finding:
        """A finding about rows of this split; ``{names}`` in the message becomes the first names."""
        names = tuple(self.rows.names[row] for row in rows)
        return Finding(kind, severity, self.split, tuple(rows), names, message.format(names=listed(names)), remedy)


def listed(names: Sequence[str], shown: int = SHOWN, where: str = "a run's data.json names them") -> str:
    """The first few names, how many more there are, and where to find them."""
    more = f" and {len(names) - shown} more ({where})" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
