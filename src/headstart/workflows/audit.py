"""``audit``: look for what is wrong with the data, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headstart.core import registry
from headstart.core.events import Event, Notice
from headstart.data.audit import Audit
from headstart.data.splits import Splits
from headstart.workflows import materials

if TYPE_CHECKING:
    from headstart.experiment import Experiment


def audit(
    experiment: Experiment, *, data: Any = None, on_event: Callable[[Event], None] | None = None
) -> tuple[Splits, Audit]:
    """The splits as ``fit`` would make them, and every finding; nothing of the user's is changed.

    Rows are read as the backbone would, where one is named: its tokenizer decides what is cut off.

    Raises:
        DataError: there is nothing to audit (no labels, one class, no such folder…).
    """
    emit = on_event or (lambda event: None)
    collection = materials.collect(experiment, data)
    if experiment.backbone is None:
        kind = registry.find("headstart.data.modalities", collection.modality)
        spec = kind.plain(collection.rows, experiment.data.channels)
    else:
        spec = materials.backbone(experiment, emit, collection).spec
    splits, _, found = materials.inspect(collection, experiment, spec, emit)
    for note in splits.notes:
        emit(Notice("info", "data", note))
    return splits, found
