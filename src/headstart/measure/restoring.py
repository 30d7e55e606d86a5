"""What restoring hidden words costs, text by text: how a stage is judged that knows no classes.

Shapes: N texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.errors import HeadstartError
from headstart.measure import intervals
from headstart.measure.intervals import Difference, Measured


def masked_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The metric's name and direction; its values come from ``Restoring``, not from classes."""
    raise HeadstartError("the loss of masked words is not one of classes", where="metric")


masked_loss.higher_is_better = False  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Restoring:
    """The mean cross-entropy of the hidden tokens of each text, in nats; the same tokens are hidden every time."""

    losses: np.ndarray  # (N,) float64

    def metric(self, metric: Any = masked_loss) -> Measured:
        """The mean over texts with its interval, whatever it is asked for."""
        low, high = intervals.mean(self.losses)
        return Measured(float(self.losses.mean()), max(0.0, low), high, len(self.losses))

    def compare(self, other: Restoring, metric: Any = masked_loss) -> Difference:
        """This loss minus the other's, paired on texts."""
        if len(self.losses) != len(other.losses):
            raise HeadstartError(f"{len(self.losses)} and {len(other.losses)} texts do not pair")
        return intervals.paired_losses(self.losses, other.losses)

    def as_json(self, own: Any = masked_loss) -> dict[str, Any]:
        """Plain values by name."""
        return {"masked_loss": self.metric().as_json()}
