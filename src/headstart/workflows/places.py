"""Where a run lives: the folder of the same experiment is continued, otherwise the next free name is taken."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from headstart.core import interruption, manifest, settings, storage
from headstart.core.errors import ArtefactError, ConfigError, Problem
from headstart.core.events import Event, StageDone, StageStarted
from headstart.core.run import Run
from headstart.data import store
from headstart.data.reading import folders
from headstart.data.reading.division import fingerprint
from headstart.data.splits import Rows

if TYPE_CHECKING:
    from headstart.data.reading.collection import Collection
    from headstart.engine.runtime import Runtime
    from headstart.experiment import Experiment
    from headstart.models.backbone import Backbone

SHOWN = 16  # answers to noise that identity.json holds
ROUNDING = 1e-3  # of the largest answer
Beside = dict[str, dict[str, str]]  # see ``_beside``


@contextlib.contextmanager
def open_run(
    experiment: Experiment, collection: Collection, backbone: Backbone, resume: bool, runtime: Runtime
) -> Iterator[tuple[Run, bool]]:
    """The run folder for this experiment on this data and network, and whether it is continued; equal on every rank.

    Inside, no other process works in it.

    Raises:
        ArtefactError: ``resume`` was asked for and no run of this experiment on this data and network exists; another
            process works in its folder.
    """
    found, others = ("", False), list[Problem]()
    if runtime.is_main:
        network, beside = _network(backbone), _beside(experiment)
        found = _choose(experiment, collection, network, beside)
        if found[0] == "" and not resume:
            found = (_create(experiment, collection, network, beside), False)
        elif found[0] == "":
            others = [_unlike(run, experiment, collection, network, beside) for run in _named(experiment, collection)]
        for left in Path(experiment.output_dir).glob(f".{run_name(experiment, collection)}.tmp-*"):
            manifest.remove(left)  # of a run that was killed before it had a folder
    with storage.claimed(Path(found[0])) if found[0] else contextlib.nullcontext():
        if found[1]:
            Run(found[0]).clear_leftovers()
        yield _told(found, others, experiment, collection, runtime)


def _told(
    found: tuple[str, bool],
    others: Sequence[Problem],
    experiment: Experiment,
    collection: Collection,
    runtime: Runtime,
) -> tuple[Run, bool]:
    """What the first rank has found, on every rank."""
    path, continued = runtime.tell(found[0]), runtime.agree(found[1])
    if not path:
        raise ArtefactError(
            "there is no run of this experiment on this data and these weights to resume",
            where=str(Path(experiment.output_dir) / run_name(experiment, collection)),
            remedy="give the data, the weights and the settings (experiment.yaml in its folder) of the interrupted "
            "run; without --resume a run that is there goes on too, and else one begins",
            problems=others,
        )
    return Run(path), continued


def run_name(experiment: Experiment, collection: Collection) -> str:
    """The run's name: the user's, or that of the data."""
    name = experiment.name
    if name:
        if re.search(r"[/\\]|^\.|^\s*$", name) or not name.isprintable() or len(name.encode("utf-8", "replace")) > 200:
            remedy = "where runs go is output_dir; a name has no slash, begins with no dot, and has at most 200 bytes"
            raise ConfigError(f"{name[:50]!r} is not a name for a folder", where="name", remedy=remedy)
        return name
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


def seconds_before(run: Run) -> float:
    """Seconds that earlier sessions of this run took, as far as its events tell; the pauses between do not count.

    A session begins with the first event, and with every notice ``continued``; it ends with its last event.
    """
    spans: list[list[float]] = []
    for event in run.events():
        if not spans or event.get("kind") == "continued":
            spans.append([event["time"], event["time"]])
        spans[-1][1] = event["time"]
    return sum(max(0.0, end - begin) for begin, end in spans)


def begun_in_vain(run: Run) -> str:
    """The stage that an earlier session ended in, where it had updates to make and nothing of them was kept, or ""."""
    steps = [event for event in run.events() if event["event"] in (StageStarted.__name__, StageDone.__name__)]
    if not steps or steps[-1]["event"] == StageDone.__name__ or not steps[-1]["updates"]:
        return ""
    index, name = steps[-1]["stage"], str(steps[-1]["name"])
    kept = run.is_done(index, name) or any(run.stage_folder(index, name).glob("state/step-*"))
    return "" if kept else name


def remember_contents(run: Run, rows: Rows, modality: str, decoded: Iterable[tuple[str, str]]) -> None:
    """Write down the rows' names and digests: a run is continued only on equal contents, not on equal names alone.

    Those of ``decoded`` rows are known; rows that could not be decoded are read again, so that a repaired one is seen.
    """
    known = {name: digest for name, digest in decoded if digest}
    others = [row for row, name in enumerate(rows.names) if name not in known]
    told = zip((rows.names[row] for row in others), store.identities(rows.take(others), modality), strict=True)
    contents = _contents([*known.items(), *told])
    run.write("identity.json", {**run.read("identity.json", default={}), "contents": contents})


def _contents(pairs: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over the names of the rows and the digests of what they hold, less those that cannot be read at all."""
    told = sorted(pair for pair in pairs if pair[1])
    return hashlib.sha256(repr(told).encode("utf-8", "backslashreplace")).hexdigest()


def _same_inputs(run: Run, collection: Collection, network: dict[str, Any]) -> bool:
    """Whether a run was made on these rows and this network: by names and labels first, then by what the rows hold."""
    known = run.read("identity.json", default={})
    if known.get("data") != _names(collection) or not _same_network(known.get("backbone"), network):
        return False
    if "contents" not in known:  # interrupted before anything was decoded
        return True
    rows = collection.rows
    return known["contents"] == _contents(zip(rows.names, store.identities(rows, collection.modality), strict=True))


def _network(backbone: Backbone) -> dict[str, Any]:
    """What a network is, whatever its name: the digest of its weights, and some of what it answers to fixed noise."""
    from headstart.models import identity

    answers = identity.answers(backbone).flatten().nan_to_num().numpy()
    shown = answers[np.linspace(0, len(answers) - 1, SHOWN).astype(np.int64)]
    return {"weights": backbone.weights_hash(), "answers": [float(value) for value in shown]}


def _same_network(known: Any, own: dict[str, Any]) -> bool:
    """Equal weights, and answers equal but for rounding: another number of threads moves the last bits."""
    if not isinstance(known, dict) or known.get("weights") != own["weights"]:
        return False
    before, now = np.asarray(known.get("answers"), dtype=np.float64), np.asarray(own["answers"])
    return before.shape == now.shape and bool(np.abs(before - now).max() <= ROUNDING * np.abs(now).max())


def _names(collection: Collection) -> str:
    """Names and labels of the rows, the splits that they come with, and their groups."""
    rows = fingerprint({"all": collection.rows}, collection.classes)
    found = hashlib.sha256(f"{rows}|{collection.given.tobytes().hex()}|".encode())
    found.update(repr(collection.rows.groups).encode("utf-8", "backslashreplace"))
    return found.hexdigest()


def _named(experiment: Experiment, collection: Collection) -> list[Run]:
    """The runs of this name that are there, in the order of their numbers."""
    folder, name = Path(experiment.output_dir), run_name(experiment, collection)
    numbered = [path for path in folder.glob(f"{name}-*") if path.name.rpartition("-")[2].isdigit()]
    paths = [folder / name, *sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]))]
    return [Run(path) for path in paths if (path / "experiment.yaml").is_file()]


def _choose(
    experiment: Experiment, collection: Collection, network: dict[str, Any], beside: Beside
) -> tuple[str, bool]:
    here = _settings(experiment.to_yaml())
    for run in _named(experiment, collection):
        same = _written(run) == here and all(_noted(run, kind) == found for kind, found in beside.items())
        if same and _same_inputs(run, collection, network):
            return str(run.path), True
    return "", False


def _beside(experiment: Experiment) -> Beside:
    """What settings name without holding it, by its place: digests of functions' code, and of texts to pretrain on."""
    stages = () if experiment.plan == "auto" else experiment.stages("text")
    named = {f"plan[{index}]": getattr(stage, "texts", None) for index, stage in enumerate(stages)}
    texts = {place: _held(os.path.expanduser(path)) for place, path in named.items() if path is not None}
    return {"functions": experiment.functions(), "texts": texts}


def _held(path: str) -> str:
    """SHA-256 of a file, or of the names and contents of the texts in a folder; that of nothing where nothing is."""
    found, folder = hashlib.sha256(), os.path.isdir(path)
    for name in folders.walk(path, "text").files if folder else [""]:
        found.update(os.fsencode(name) + b"\0")
        with contextlib.suppress(OSError), open(os.path.join(path, name) if folder else path, "rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())  # what cannot be read is told where it is
    return found.hexdigest()


def _noted(run: Run, kind: str) -> dict[str, str]:
    """What a run has noted of a kind of ``_beside``."""
    found = run.read("identity.json", default={}).get(kind)
    return found if isinstance(found, dict) else {}


def _settings(text: str) -> dict[str, str]:
    """Every setting of an experiment.yaml as JSON, which tells 1 from 1.0 and knows no order of keys."""
    found = yaml.safe_load(text)
    named = settings.flat("", found if isinstance(found, dict) else {})
    return {key[1:]: json.dumps(value, sort_keys=True, default=str) for key, value in named}


def _written(run: Run) -> dict[str, str]:
    """The settings of a run; none where they cannot be read."""
    with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
        return _settings((run.path / "experiment.yaml").read_text(encoding="utf-8"))
    return {}


def _unlike(
    run: Run, experiment: Experiment, collection: Collection, network: dict[str, Any], beside: Beside
) -> Problem:
    """What keeps a run from being gone on with as this experiment."""
    there, here = _written(run), _settings(experiment.to_yaml())
    if not there:
        return Problem("cannot be resumed: its experiment.yaml cannot be read", str(run.path), "start another run")
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    differs = [f"{key} ({there.get(key, 'not set')} there, {here.get(key, 'not set')} here)" for key in keys]
    for kind, ours in beside.items():
        theirs, told = _noted(run, kind), {"functions": "the code of", "texts": "the texts of"}[kind]
        differs += [f"{told} {key}" for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    known = run.read("identity.json", default={})
    if not _same_network(known.get("backbone"), network):
        differs.append("the weights")
    elif known.get("data") != _names(collection) or (not differs and not _same_inputs(run, collection, network)):
        differs.append("the rows, their splits or groups")
    return Problem(
        f"cannot be resumed, for it differs in {', '.join(differs)}", str(run.path), "give what it was given"
    )


def _create(experiment: Experiment, collection: Collection, network: dict[str, Any], beside: Beside) -> str:
    first = Path(experiment.output_dir) / run_name(experiment, collection)
    path = storage.unused(first)
    draft = first.with_name(f".{first.name}.tmp-{os.getpid()}")  # the folder of a run is never there without its files
    Run(draft).write("identity.json", {"data": _names(collection), "backbone": network, **beside})
    manifest.write_text(draft / "experiment.yaml", experiment.to_yaml())
    os.rename(draft, path)
    return str(path)
