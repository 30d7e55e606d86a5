"""Lives of a small run in processes of their own, which can be killed, starved and signalled.

torch is imported once, by the fork server; every life is a fork of it that calls ``headstart.fit`` on the same toy: a
probe, a stage from the frontier cache with dropout, EMA and one-cycle, and a live stage with augmentation, with a
checkpoint after every update.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 120.0  # seconds after which a life counts as hung
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
PLANTS = "plants"  # the module with what a life can be told to plant

_STAGE = {"batch_size": 8, "epochs": 2, "lr": 2e-3, "schedule": "one_cycle", "gate": {"on_fail": "warn"}}
PLAN: list[Any] = [
    "probe",
    {"thaw": {**_STAGE, "name": "cached", "blocks": 2, "views": 1, "augment": "none", "ema": 0.9}},
    {"thaw": {**_STAGE, "name": "live", "blocks": "all", "augment": "standard", "epochs": 1}},
]
SETTINGS: dict[str, Any] = {
    "backbone": "builtin/tiny",
    "image_size": 32,
    "plan": PLAN,
    "head": {"dropout": 0.2},
    "device": "cpu",
    "precision": "fp32",
    "baseline": False,
    "normalisation_check": False,
    "force": True,
    "name": "toy",
}
Toy = dict[str, tuple[np.ndarray, np.ndarray]]


def pictures(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """X (N, 32, 32, 3) uint8 and labels (N,) of three kinds of noisy pictures."""
    rng = np.random.default_rng(seed)
    values = rng.integers(90, 160, (n, 32, 32, 3)).astype(np.float64)
    kinds = np.arange(n) % 3
    values[kinds == 0] -= 70
    values[kinds == 1, ..., :1] += 90
    values[kinds == 2, :, ::4] += 90
    return values.clip(0, 255).astype(np.uint8), np.array(["dark", "red", "stripes"])[kinds]


def toy() -> Toy:
    return {"train": pictures(24, 0), "val": pictures(9, 1), "test": pictures(9, 2)}


class Life:
    """One process that trains in ``folder``."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.started = time.monotonic()
        self._process = _context().Process(target=live, args=({"folder": str(folder), **spec},))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def signal(self, number: int) -> bool:
        """Send a signal; False where the life was over already."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.exitcode is None:
                os.kill(self.pid, number)
                return True
        return False

    def end(self) -> int:
        """Wait; the exit code, negative for a signal."""
        self._process.join(LONGEST)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"hung: {self.log()}")
        return self._process.exitcode

    def log(self) -> str:
        """What the last life in this folder said on its way."""
        return (self.folder / "life.log").read_text(encoding="utf-8")

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "toy"

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """What the run recorded; only notices of this kind where one is given."""
        lines = (self.run / "events.jsonl").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        return [event for event in found if not kind or event.get("kind") == kind]


def weights(folder: Path) -> str:
    """SHA-256 of the run's model."""
    return hashlib.sha256((folder / "runs" / "toy" / "model" / "model.safetensors").read_bytes()).hexdigest()


def strays(folder: Path) -> list[str]:
    """Files that a finished run should not have left: temporary ones, checkpoints, a second run."""
    found = [path for path in folder.rglob("*") if ".tmp-" in path.name]
    found += [*folder.rglob("step-*"), *(folder / "runs").glob("toy?*")]
    return [path.relative_to(folder).as_posix() for path in found]


def finished(folder: Path, whole: Path, said: object = "", **spec: Any) -> None:
    """Start again: it goes on from what was there, loses nothing, and ends like the life that was not interrupted."""
    stages = sorted((folder / "runs" / "toy" / "stages").glob("*"))
    kept = [stage for stage in stages if (stage / "manifest.json").is_file()]
    steps = [step for stage in stages if stage not in kept for step in sorted(stage.glob("state/step-*"))]
    facts = [json.loads((step / "facts.json").read_text(encoding="utf-8")) for step in steps[-1:]]
    over = (folder / "runs" / "toy" / "result.json").is_file()
    before = len(_lines(folder))
    life = Life(folder, **spec)
    assert life.end() == 0, f"{said}\n{life.log()}"
    assert weights(folder) == weights(whole), said
    assert (life.run / "report.html").is_file(), said
    assert strays(folder) == [], said
    new = [event for event in life.events()[before:] if "kind" in event]
    if not over:
        taken = [event for event in new if event["kind"] == "stage-kept"]
        assert len(taken) == len(kept), f"{said}: {len(kept)} stages were complete, {len(taken)} of them were kept"
    if facts:
        assert not [event for event in new if event["kind"] == "begun-again"], said
    resumed = [event["message"].rpartition(" ")[2] for event in new if event["kind"] == "resumed"]
    assert resumed == [str(found["state"]["updates"] + 1) for found in facts], f"{said}: work was done twice"


def _lines(folder: Path) -> list[str]:
    file = folder / "runs" / "toy" / "events.jsonl"
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm"])
    return context


# ---- inside a life ---------------------------------------------------------------------------------------------------


def live(spec: dict[str, Any]) -> None:
    """The child: fit on the toy, or what ``spec["job"]`` names in ``plants``; the exit code tells how it ended."""
    folder = Path(spec["folder"])
    log = os.open(folder / "life.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    os.environ["HEADSTART_CACHE"] = str(folder / "cache")
    os.environ.update(spec.get("environment", {}))
    import torch

    from headstart.core.errors import HeadstartError
    from headstart.core.interruption import Interrupted

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the fork server ignores the first, nohup the last
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    torch.set_num_threads(1)
    os.fsync = lambda handle: None  # type: ignore[assignment]  # a killed process loses nothing that it wrote
    try:
        with _prepared(spec, folder):
            run_fit(spec, folder)
        code = 0
    except Interrupted as error:
        code = error.exit_code
    except HeadstartError as error:
        print(f"{type(error).__name__}: {error}")
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_fit(spec: dict[str, Any], folder: Path) -> None:
    import headstart

    if "job" in spec:
        name, arguments = spec["job"]
        getattr(importlib.import_module(PLANTS), name)(folder, **arguments)
        return

    rows = toy()
    settings = {**SETTINGS, "output_dir": "runs", **spec.get("settings", {})}
    data: Any = spec.get("data", rows)
    headstart.fit(data, on_event=lambda event: None, **settings)


@contextlib.contextmanager
def _prepared(spec: dict[str, Any], folder: Path) -> Iterator[None]:
    from headstart.engine import loop

    loop.CHECKPOINT_SECONDS = spec.get("checkpoint_seconds", -1.0)
    if "die_at" in spec or "trace" in spec:
        _watch(folder, spec.get("die_at", 0))
    if "keep" in spec:
        _keep_states(folder, Path(spec["keep"]))
    if "die_before" in spec:
        _watch_for(folder, [tuple(point) for point in spec["die_before"]])
    for name, arguments in spec.get("plants", []):
        getattr(importlib.import_module(PLANTS), name)(folder, **arguments)
    yield


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def changes(folder: Path, notice: Callable[[str, str], None]) -> None:
    """Call ``notice(what, path)`` before this process changes anything below ``folder`` in the file system."""
    root = str(folder)
    inside = [False]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if inside[0]:
            return
        what = event
        if event == "open":
            path, mode, flags = arguments
            if not (isinstance(mode, str) and set(mode) & set("wax+")) and not (flags or 0) & (os.O_WRONLY | os.O_RDWR):
                return
        elif event in CHANGES:
            path = arguments[1] if event == "os.rename" else arguments[0]
        else:
            return
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if isinstance(path, (str, os.PathLike)) and os.path.isabs(name) and not name.startswith(root):
            return
        inside[0] = True
        try:
            notice(what, name.removeprefix(root + "/"))
        finally:
            inside[0] = False

    sys.addaudithook(hook)


def _watch(folder: Path, die_at: int) -> None:
    """Die before the ``die_at``-th change, or write all of them to ``changes.json``."""
    seen: list[tuple[str, str]] = []

    def notice(what: str, path: str) -> None:
        seen.append((what, path))
        if len(seen) == die_at:
            die()
        if not die_at:
            file = os.open(folder / "changes.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(file, json.dumps(seen).encode())
            os.close(file)

    changes(folder, notice)


def _keep_states(folder: Path, keep: Path) -> None:
    """Copy the folder before every change, where it is another than at the last copy: what a kill there would leave.

    The kernel has all that a process wrote, whether it goes on or is killed; what it holds itself is in neither.
    """
    last: list[list[tuple[str, int, int]]] = [[]]

    def notice(what: str, path: str) -> None:
        found = ((each, each.lstat()) for each in folder.rglob("*"))
        now = sorted((str(each), stat.st_ino, stat.st_mtime_ns) for each, stat in found)
        if now != last[0]:
            last[0] = now
            shutil.copytree(folder, keep / f"{len(list(keep.iterdir())):04d}", symlinks=True)

    changes(folder, notice)


def _watch_for(folder: Path, points: list[tuple[str, str, int]]) -> None:
    """Die before the change that matches (what, pattern of the path) for the n-th time."""
    import re

    counts = [0] * len(points)

    def notice(what: str, path: str) -> None:
        for index, (wanted, pattern, count) in enumerate(points):
            if what == wanted and re.search(pattern, path):
                counts[index] += 1
                if counts[index] == count:
                    die()

    changes(folder, notice)
