"""Gates: a stage replaces the model kept so far only when the validation rows say so, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from headstart.measure import metrics
from headstart.measure.intervals import Difference
from headstart.measure.metrics import OwnMetric
from headstart.stages.base import Gate

SMALL = 100  # validation rows below which a verdict is called weak


class Judged(Protocol):
    """What was measured on rows, and can be compared with the same of another model, pair by pair."""

    def compare(self, other: Any, metric: Any, /) -> Difference: ...


@dataclass(frozen=True)
class Verdict:
    """What a gate decided: ``keep`` the candidate, ``revert`` to the incumbent, or revert and ``stop`` the plan."""

    decision: Literal["keep", "revert", "stop"]
    reason: str
    metric: str
    difference: Difference | None = None
    incumbent: str | None = None

    def as_json(self) -> dict[str, Any]:
        difference = None if self.difference is None else self.difference.as_json()
        return {**self.__dict__, "difference": difference}


def check(
    gate: Gate,
    candidate: Judged,
    incumbent: Judged | None,
    *,
    metric: str | OwnMetric = "accuracy",
    name: str = "",
) -> Verdict:
    """Compare a candidate with the incumbent, called ``name``, on the same rows.

    The candidate is kept when it gains more than ``gate.min_gain``; one that is worse, or only ties, gives way to the
    cheaper model before it. Losses (log_loss, brier, ece) count as better when they are lower.
    """
    metric = metric if gate.metric == "auto" else gate.metric
    title = metrics.name_of(metric)
    if incumbent is None:
        return Verdict("keep", "the first stage", title)
    difference = candidate.compare(incumbent, metric)
    gain = difference.value if metrics.higher_is_better(metric) else -difference.value
    shown = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] {title} on {difference.n} rows"
    weak = f"; {difference.n} rows are few, so read it with care" if difference.n < SMALL else ""
    if gain > gate.min_gain:
        how = "clearly better" if difference.significant else "better, within the noise,"
        return Verdict("keep", f"{how} than {name}: {shown}{weak}", title, difference, name)
    if gain == 0:
        why = f"a tie with {name} keeps the cheaper model: {shown}"
    elif gain > 0:
        why = f"gains less than min_gain = {gate.min_gain} over {name}: {shown}"
    else:
        why = f"{'clearly worse' if difference.significant else 'not better'} than {name}: {shown}"
    if gate.on_fail == "warn":
        return Verdict("keep", f"kept although {why}{weak}", title, difference, name)
    decision: Literal["revert", "stop"] = "stop" if gate.on_fail == "stop" else "revert"
    return Verdict(decision, f"{why}{weak}", title, difference, name)
