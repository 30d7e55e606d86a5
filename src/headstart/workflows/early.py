"""Decoding begins before the backbone is there: another process does it while this one loads its libraries.

What the backbone will want is what it wanted in an earlier run, or what most backbones of the modality want. Rows that
were decoded for other inputs are dropped: they came from a core that had nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from headstart.core import keyed, registry
from headstart.core.errors import ConfigError
from headstart.core.remembered import Remembered
from headstart.data import canvases, store
from headstart.data.ahead import Ahead, is_possible

if TYPE_CHECKING:
    from headstart.data.reading.collection import Collection
    from headstart.experiment import Experiment

ALIKE = ("image", "audio")  # modalities whose backbones want alike inputs; what a text becomes is up to the tokenizer


@contextmanager
def begun(experiment: Experiment, collection: Collection) -> Iterator[Ahead | None]:
    """The first rows, being decoded by a process that ends with this block; None where there can be none."""
    working = _working(experiment, collection) if _is_wanted(experiment, collection) else None
    try:
        yield working
    finally:
        if working is not None:
            working.stop()


def remember(experiment: Experiment, spec: Any) -> None:
    """What the backbone of this experiment wants, for the next run with it."""
    if spec.modality in ALIKE and (experiment.backbone is None or isinstance(experiment.backbone, str)):
        known = _remembered(experiment, spec.modality)
        if known is None or known.kept_by != spec.kept_by:
            _file().put(_key(experiment, spec.modality), spec.to_json())


def _is_wanted(experiment: Experiment, collection: Collection) -> bool:
    return (
        collection.modality in ALIKE
        and os.environ.get("WORLD_SIZE", "1") == "1"  # processes of one run have all cores busy
        and experiment.threads != 1
        and not experiment.limits  # they tell how long decoding takes by itself
        and is_possible(collection.rows)
    )


def _working(experiment: Experiment, collection: Collection) -> Ahead | None:
    kind = registry.find("headstart.data.modalities", collection.modality)
    limit = experiment.cache_budget
    most = canvases.usual_budget() if limit is None else int(limit * 1e9)
    spec = _remembered(experiment, collection.modality) or kind.plain(collection.rows, experiment.data.channels)
    if store.is_kept(collection.rows, spec, collection.modality):
        return None
    try:
        return Ahead(collection.rows, spec, collection.modality, most)
    except OSError:  # no more processes, or no memory that two of them see, for this user
        return None


def _remembered(experiment: Experiment, modality: str) -> Any:
    told = _file().get(_key(experiment, modality))
    if isinstance(told, dict):
        with suppress(ConfigError, TypeError, ValueError):  # of another version, or damaged
            return registry.find("headstart.data.modalities", modality).Spec.from_json(told)
    return None


def _file() -> Remembered:
    return Remembered(canvases.default_folder() / "specs.json")


def _key(experiment: Experiment, modality: str) -> str:
    told = (modality, experiment.backbone, experiment.weights, experiment.image_size, experiment.data.channels)
    return f"{keyed.digest(*map(str, told)):032x}"
