"""What needs no backbone, beside the stages on validation rows, and beside the model on test rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headstart.core.errors import HeadstartError
from headstart.core.events import Event, Notice
from headstart.core.run import Run
from headstart.measure import metrics
from headstart.measure.evaluation import Evaluation
from headstart.measure.metrics import OwnMetric
from headstart.workflows.materials import Decoded, phase

if TYPE_CHECKING:
    from headstart.engine.baseline import Baseline
    from headstart.engine.streams import Examples

RESULT = "baseline/result.json"
TEST = "baseline/test"  # the folder of the answers to test rows, a file a baseline


@dataclass
class Baselines:
    """Those of one run, which show whether transfer helps at all; learnt once, and again where a run goes on."""

    run: Run
    decoded: Decoded
    metric: str | OwnMetric
    threshold: float  # of labels, where a row may have several
    emit: Callable[[Event], None]
    _learnt: list[Baseline] = field(default_factory=list)

    def judge(self) -> None:
        """Write what they reach on validation rows, where that is not written yet."""
        if self.run.read(RESULT) is not None:
            return
        rows = []
        for each in self._found():
            each.evaluation.save(self.run.path / "baseline" / f"{each.name}.npz")
            rows.append({"name": each.name, "seconds": each.seconds, "metrics": each.evaluation.as_json(self.metric)})
        self.run.write(RESULT, rows)

    def beside(self, test: Evaluation, examples: Examples) -> list[dict[str, Any]]:
        """What they reach on the test rows, and how much more the model does (``test``), paired; the best on validation
        rows first."""
        told = []
        for each in sorted(self._found(), key=self._rank):
            with phase(self.emit, "baseline"):
                found = each.on(examples)
            found.save(self.run.path / TEST / f"{each.name}.npz")
            try:
                gain = test.compare(found, self.metric)
            except HeadstartError as error:  # a function of the user's own: the run has its model without it
                what = f"the baseline {each.name} was not judged on test rows: {error.summary}"
                self.emit(Notice("warning", "baseline", what))
                continue
            if math.isfinite(gain.value):  # rows of one class have no ROC
                told.append(
                    {"name": each.name, "metrics": found.as_json(self.metric, partly=True), "gain": gain.as_json()}
                )
        return told

    def _rank(self, each: Baseline) -> float:
        value = each.evaluation.metric(self.metric).value
        return -value if metrics.higher_is_better(self.metric) else value

    def _found(self) -> list[Baseline]:
        if not self._learnt:
            from headstart.engine import baseline

            with phase(self.emit, "baseline"):
                train, val = self.decoded.examples("train"), self.decoded.examples("val")
                self._learnt = baseline.baselines(train, val, self.decoded.splits.classes, self.threshold)
        return self._learnt


def unbeaten(run: Run, val: Evaluation, metric: str | OwnMetric) -> str | None:
    """The best of the baselines that ``val``, of the best stage, does not beat on validation rows, or None; who makes
    no mistake there is beaten by nobody."""
    gains: dict[str, float] = {}
    for row in run.read(RESULT, default=[]):
        other = Evaluation.load(run.path / "baseline" / f"{row['name']}.npz")
        gain = val.compare(other, metric).value
        gains[str(row["name"])] = gain if metrics.higher_is_better(metric) else -gain
    least = min(gains, key=gains.__getitem__, default=None)
    return None if least is None or gains[least] > 0 or val.correct.all() else least
