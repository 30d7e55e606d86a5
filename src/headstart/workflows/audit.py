"""``audit``: look for what is wrong with the data, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headstart.core.events import Event, Notice
from headstart.data.audit import Audit
from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import Splits
from headstart.workflows import materials

if TYPE_CHECKING:
    from headstart.experiment import Experiment


def audit(
    experiment: Experiment, *, data: Any = None, on_event: Callable[[Event], None] | None = None
) -> tuple[Splits, Audit]:
    """The splits as ``fit`` would make them, and every finding; nothing of the user's is changed.

    Raises:
        DataError: there is nothing to audit (no labels, one class, no such folder…).
    """
    emit = on_event or (lambda event: None)
    collection = materials.collect(experiment, data)
    channels = experiment.data.channels
    spec = ImageSpec(mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)
    splits, _, found = materials.inspect(collection, experiment, spec, emit)
    for note in splits.notes:
        emit(Notice("info", "data", note))
    return splits, found
