"""The tree of errors: every one says what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: what is wrong, where it stands (file, row, setting), and what to do."""

    what: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"\n    {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{remedy}"


class HeadstartError(Exception):
    """Everything Headstart raises on purpose. ``problems`` holds all mistakes found, not only the first."""

    exit_code = 1

    def __init__(self, what: str = "", *, where: str = "", remedy: str = "", problems: Iterable[Problem] = ()) -> None:
        found = tuple(problems)
        self.problems: tuple[Problem, ...] = found or (Problem(what, where, remedy),)
        self.summary = what
        super().__init__(what)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        return f"{self.summary or f'{len(self.problems)} problems'}\n{lines}"


class ConfigError(HeadstartError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(HeadstartError):
    """The data cannot be read, or cannot be learned from."""


class BackboneError(HeadstartError):
    """A backbone cannot be found, loaded or verified."""


class TrainingError(HeadstartError):
    """Training cannot go on (a non-finite loss, memory exhausted at batch 1, a frozen weight that moved)."""


class ArtefactError(HeadstartError):
    """A file of a run is damaged, missing, or of a version this package does not know."""


class MissingExtra(HeadstartError):
    """An optional dependency is not installed; the remedy is the install line."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed",
            remedy=f"pip install 'headstart[{extra}]'",
        )


class Unreachable(HeadstartError):
    """The network, or the Hub, cannot be reached."""


class NothingAccepted(HeadstartError):
    """Nothing acceptable came out: no export passed."""

    exit_code = 2
