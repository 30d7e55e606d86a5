"""Decoding begins before the backbone is there: another process does it while this one loads its libraries.

What the backbone will want is what it wanted in an earlier run, or what most backbones of the modality want. Rows that
were decoded for other inputs are dropped, and nothing is lost: they came from a core that had nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headstart.core import keyed, registry
from headstart.core.remembered import Remembered
from headstart.data import canvases
from headstart.data.ahead import Ahead, is_possible

if TYPE_CHECKING:
    from headstart.data.reading.collection import Collection
    from headstart.experiment import Experiment

MODALITIES = ("image", "audio")  # whose usual inputs are alike; what a text becomes is up to the tokenizer


@contextmanager
def begun(experiment: Experiment, collection: Collection) -> Iterator[Ahead | None]:
    """The first rows, being decoded by a process that ends with this block; None where there can be none."""
    alone = int(os.environ.get("WORLD_SIZE") or 1) == 1  # processes of one run have all cores busy
    if not alone or collection.modality not in MODALITIES or not is_possible(collection.rows):
        yield None
        return
    limit = experiment.cache_budget
    most = canvases.usual_budget() if limit is None else int(limit * 1e9)
    working = Ahead(collection.rows, _expected(experiment, collection), collection.modality, most)
    try:
        yield working
    finally:
        working.stop()


def remember(experiment: Experiment, spec: Any) -> None:
    """What the backbone of this experiment wants, for the next run with it."""
    earlier, key = _earlier(experiment)
    if earlier.get(key) != spec.to_json():
        earlier.put(key, spec.to_json())


def _expected(experiment: Experiment, collection: Collection) -> Any:
    kind = registry.find("headstart.data.modalities", collection.modality)
    earlier, key = _earlier(experiment)
    try:
        return kind.Spec.from_json(earlier.get(key))
    except Exception:  # there is none, or it is damaged
        return kind.plain(collection.rows, experiment.data.channels)


def _earlier(experiment: Experiment) -> tuple[Remembered, str]:
    told = (experiment.backbone, experiment.weights, experiment.image_size, experiment.data.channels)
    return Remembered(canvases.default_folder() / "specs.json"), f"{keyed.digest(*map(str, told)):032x}"
