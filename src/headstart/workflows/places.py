"""Where a run lives: the folder of the same experiment is continued, otherwise the next free name is taken."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.core import interruption, manifest
from headstart.core.errors import ArtefactError
from headstart.core.events import Event
from headstart.core.run import Run
from headstart.data import store
from headstart.data.reading.division import fingerprint

if TYPE_CHECKING:
    from headstart.data.reading.collection import Collection
    from headstart.engine.runtime import Runtime
    from headstart.experiment import Experiment


def open_run(experiment: Experiment, collection: Collection, resume: bool, runtime: Runtime) -> tuple[Run, bool]:
    """The run folder for this experiment on this data, and whether it is continued; every rank gets the same.

    Raises:
        ArtefactError: ``resume`` was asked for and no run of this experiment on this data exists.
    """
    found = ("", False)
    if runtime.is_main:
        found = _choose(experiment, collection)
        if found[0] == "" and not resume:
            found = (_create(experiment, collection), False)
        for left in Path(experiment.output_dir).glob(f".{run_name(experiment, collection)}.tmp-*"):
            manifest.remove(left)  # of a run that was killed before it had a folder
        if found[1]:
            Run(found[0]).clear_leftovers()
    path, continued = runtime.tell(found[0]), runtime.agree(found[1])
    if not path:
        raise ArtefactError(
            "there is no run of this experiment on this data to resume",
            where=str(Path(experiment.output_dir) / run_name(experiment, collection)),
            remedy="give the same data and settings as the interrupted run (experiment.yaml in its folder holds them)",
        )
    return Run(path), continued


def run_name(experiment: Experiment, collection: Collection) -> str:
    """The run's name: the user's, or that of the data."""
    if experiment.name:
        return experiment.name
    stem = Path(collection.source).stem if isinstance(experiment.data.source, str) else "run"
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "run"


def recorder(run: Run, on_event: Callable[[Event], None] | None) -> Callable[[Event], None]:
    """Record what is worth it on the main process, and show everything there."""
    main = int(os.environ.get("RANK", "0")) == 0

    def emit(event: Event) -> None:
        if not interruption.is_deferred():
            interruption.check()
        if main:
            run.record(event)
            if on_event is not None:
                on_event(event)

    return emit


def remember_contents(run: Run, pairs: Iterable[tuple[str, str]]) -> None:
    """Write down the rows' names and digests: a run is continued only on equal contents, not on equal names alone."""
    run.write("identity.json", {**run.read("identity.json", default={}), "contents": _contents(pairs)})


def _contents(pairs: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over the names of the readable rows and the digests of what they hold."""
    told = sorted(pair for pair in pairs if pair[1])
    return hashlib.sha256(repr(told).encode("utf-8", "backslashreplace")).hexdigest()


def _same_inputs(run: Run, experiment: Experiment, collection: Collection) -> bool:
    """Whether a run was made on these rows and this module: by names and labels first, then by what the rows hold."""
    known = run.read("identity.json", default={})
    if known.get("data") != _names(collection) or known.get("backbone") != _own_backbone(experiment):
        return False
    if "contents" not in known:  # interrupted before anything was decoded
        return True
    rows = collection.rows
    return known["contents"] == _contents(zip(rows.names, store.identities(rows, collection.modality), strict=True))


def _own_backbone(experiment: Experiment) -> str | None:
    """SHA-256 over the weights of a module that was handed over as an object: its settings tell only its class."""
    if experiment.backbone is None or isinstance(experiment.backbone, str):
        return None
    digest = hashlib.sha256()
    for name, value in experiment.backbone.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _names(collection: Collection) -> str:
    return fingerprint({"all": collection.rows}, collection.classes)


def _choose(experiment: Experiment, collection: Collection) -> tuple[str, bool]:
    folder, name = Path(experiment.output_dir), run_name(experiment, collection)
    text = experiment.to_yaml()
    numbered = [path for path in folder.glob(f"{name}-*") if path.name.rpartition("-")[2].isdigit()]
    for path in [folder / name, *sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]))]:
        file = path / "experiment.yaml"
        if (
            file.is_file()
            and file.read_text(encoding="utf-8") == text
            and _same_inputs(Run(path), experiment, collection)
        ):
            return str(path), True
    return "", False


def _create(experiment: Experiment, collection: Collection) -> str:
    path = Path(experiment.output_dir) / run_name(experiment, collection)
    first, number = path, 2
    while path.exists():
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    draft = first.with_name(f".{first.name}.tmp-{os.getpid()}")  # the folder of a run is never there without its files
    Run(draft).write("identity.json", {"data": _names(collection), "backbone": _own_backbone(experiment)})
    manifest.write_text(draft / "experiment.yaml", experiment.to_yaml())
    os.rename(draft, path)
    return str(path)
