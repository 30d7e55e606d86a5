"""What a life can be told to plant before it begins: faults, full disks, nuisances. Each takes the life's folder."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import nursery

NAN = float("nan")


def at_step(step: int, act: Callable[[Any, Any], None]) -> None:
    """Call ``act(loop, update)`` before the ``step``-th update of this process."""
    from headstart.engine import loop

    count = [0]
    original = loop.Loop._update

    def update(self: Any, batch: Any) -> float:
        count[0] += 1
        if count[0] == step:
            act(self, batch)
        return original(self, batch)

    loop.Loop._update = update


# ---- numbers that are not finite -------------------------------------------------------------------------------------


def not_finite(folder: Path, *, what: str, step: int = 5, value: str = "nan") -> None:
    """Plant ``value`` (nan, inf) in the place called ``what``."""
    import torch

    number = float(value)

    def head(self: Any) -> Any:
        return self.job.learner.model.head.last.weight

    def poison(tensor: Any) -> None:
        with torch.no_grad():
            tensor.view(-1)[0] = number

    def norm(self: Any) -> Any:
        parts = [part for part in self.job.learner.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        return next(part for part in reversed(parts) if part.weight.requires_grad)

    def gradient(self: Any, batch: Any) -> None:
        def hook(grad: Any) -> Any:
            return torch.full_like(grad, number)

        head(self).register_hook(hook)

    def loss(self: Any, batch: Any) -> None:
        self.job.learner.loss = Poisoned(number)

    def rows(self: Any, batch: Any) -> None:
        batch.inputs = batch.inputs.float()
        batch.inputs[2] *= number

    acts: dict[str, Callable[[Any, Any], None]] = {
        "a weight": lambda self, batch: poison(head(self)),
        "a frozen weight": lambda self, batch: poison(next(self.job.learner.parameters())),
        "a gradient": gradient,
        "the loss": loss,
        "an input": rows,
        "BatchNorm's mean": lambda self, batch: poison(norm(self).running_mean),
        "BatchNorm's variance": lambda self, batch: poison(norm(self).running_var),
        "the average": lambda self, batch: poison(next(iter(self.ema.averages.values()))),
        "a moment": lambda self, batch: poison(next(iter(self.optimizer.state.values()))["exp_avg"]),
        "the rate": lambda self, batch: _rate(number),
        "a class weight": lambda self, batch: setattr(
            self.job.learner.loss, "class_weights", torch.tensor([1.0, number, 1.0])
        ),
    }
    if what in acts:
        at_step(step, acts[what])
    elif what == "the validation logits":
        _wrap("headstart.engine.features", "logits_from", lambda found: found * number)
    elif what == "the features of the probe":
        _wrap("headstart.engine.cache.FrontierCache", "features", lambda found: found * number)
    elif what == "the solved head":
        _wrap("headstart.stages.solver", "solve_path", lambda path: (poison(path.weight), path)[1])
    elif what == "the temperature":
        _wrap("headstart.measure.calibration", "fit_temperature", lambda found: number)
    elif what == "the metric":
        _wrap("headstart.measure.evaluation.Evaluation", "metric", lambda found: type(found)(number, 0.0, 1.0, found.n))
    else:
        raise KeyError(what)


def Poisoned(number: float) -> Any:  # noqa: N802
    import torch

    class Loss(torch.nn.Module):
        def forward(self, outputs: Any, targets: Any) -> Any:
            return outputs.sum() * number

    return Loss()


def _rate(number: float) -> None:
    from headstart.engine import schedules

    def apply(optimizer: Any, *others: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = number

    schedules.apply = apply


def _wrap(place: str, name: str, change: Callable[[Any], Any]) -> None:
    """Change what a function of a module or class gives, wherever it was imported to already."""
    import sys

    module, _, inner = place.rpartition(".")
    owner = getattr(sys.modules[module], inner)
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        return change(original(*arguments, **named))

    setattr(owner, name, wrapped)


# ---- memory ----------------------------------------------------------------------------------------------------------


def exhausted(folder: Path, *, where: str, limit: int, kind: str, call: int = 1) -> None:
    """From the ``call``-th forward pass on, more than ``limit`` rows at once do not fit: in this place."""
    import torch

    from headstart.engine import features
    from headstart.models.model import Model

    features.SIDE_BATCH["fp32"] = 2 * limit
    errors: dict[str, Callable[[], Exception]] = {
        "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory (planted)"),
        "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        "python": MemoryError,
    }
    count = [0]

    def guard(module: Any, inputs: Any) -> None:
        rows = len(inputs[0])
        step = "train" if module.training else "precision" if torch.is_grad_enabled() else "evaluation"
        if step != where:
            return
        count[0] += 1
        if count[0] >= call and rows > limit:
            raise errors[kind]()

    original = Model.__init__

    def build(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        self.head.register_forward_pre_hook(guard)

    Model.__init__ = build
    if where == "features":
        _guard_features(limit, errors[kind], call)


def _guard_features(limit: int, error: Callable[[], Exception], call: int) -> None:
    from headstart.engine import frontier

    count = [0]
    original = frontier.Frontiers._fill

    def fill(self: Any, into: Any, view: int, examples: Any, compute: Any, *others: Any, **more: Any) -> None:
        def narrow(pictures: Any) -> Any:
            count[0] += 1
            if count[0] >= call and len(pictures) > limit:
                raise error()
            return compute(pictures)

        original(self, into, view, examples, narrow, *others, **more)

    frontier.Frontiers._fill = fill


# ---- another machine -------------------------------------------------------------------------------------------------


def faster(folder: Path, *, precision: str) -> None:
    """Whoever times precisions here finds this one the faster."""
    from headstart.engine import precision as precisions

    original = precisions.choose
    precisions.choose = lambda step, *, wanted, **others: original(step, wanted=precision, **others)


def free_memory(folder: Path, *, free: int) -> None:
    from headstart.data import canvases

    canvases.free_bytes = lambda: free


# ---- the disk --------------------------------------------------------------------------------------------------------


def broken_disk(folder: Path, *, change: int, error: str) -> None:
    """From the ``change``-th change below the folder on, nothing can be created any more."""
    number = getattr(errno, error)
    count = [0]

    def notice(what: str, path: str) -> None:
        count[0] += 1
        if count[0] >= change and what in ("open", "os.mkdir", "os.rename"):
            raise OSError(number, os.strerror(number), str(folder / path))

    nursery.changes(folder, notice)


def short_files(folder: Path, *, size: int) -> None:
    """No file may grow beyond ``size`` bytes: writing stops in the middle, in libraries of other languages too."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def little_space(folder: Path, *, free: int) -> None:
    import shutil

    usage = shutil.disk_usage
    shutil.disk_usage = lambda path: usage(path)._replace(free=free)


def forgetful(folder: Path, *, of: str) -> None:
    """Start anew what there is a checkpoint of, or a complete stage."""
    from headstart.core.run import Run
    from headstart.engine.checkpoint import Checkpoints

    if of == "checkpoints":
        Checkpoints.latest = lambda self: None
    else:
        Run.is_done = lambda self, index, name: False


# ---- observers and nuisances -----------------------------------------------------------------------------------------


def trace_updates(folder: Path) -> None:
    """Append (stage, epoch, step, rows, loss) of every update to ``updates.jsonl``."""
    from headstart.engine import loop

    original = loop.Loop._update

    def update(self: Any, batch: Any) -> float:
        rows, epoch, step = [int(row) for row in batch.rows], self.state.epoch, self.state.step
        loss = original(self, batch)
        line = json.dumps({"at": [self.job.stage, epoch, step], "rows": rows, "loss": loss.hex()})
        with open(folder / "updates.jsonl", "a") as file:
            file.write(line + "\n")
        return loss

    loop.Loop._update = update


def slow_evaluation(folder: Path, *, seconds: float) -> None:
    """Every batch of an evaluation takes this long; ``evaluating`` appears when the first one begins."""
    from headstart.engine import features

    original = features.logits_from

    def slow(*arguments: Any) -> Any:
        (folder / "evaluating").touch()
        time.sleep(seconds)
        return original(*arguments)

    features.logits_from = slow


def nuisance(folder: Path, *, name: str) -> None:
    """Something that must not matter."""
    if name == "working folder":
        os.chdir("/")
    elif name == "time zone":
        os.environ["TZ"] = "Pacific/Chatham"
        time.tzset()
    elif name == "locale":
        import locale

        os.environ["LC_ALL"] = "C"
        locale.setlocale(locale.LC_ALL, "C")
    elif name == "umask":
        os.umask(0o077)
    elif name == "order of folders":
        _shuffled_folders()
    elif name == "global random state":
        import random

        import torch

        random.seed(99)
        np.random.seed(99)
        torch.manual_seed(99)
    else:
        raise KeyError(name)


def _shuffled_folders() -> None:
    scandir, listdir = os.scandir, os.listdir

    class Shuffled:
        def __init__(self, path: Any) -> None:
            self.entries = list(scandir(path))[::-1]

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *others: Any) -> None:
            pass

        def __iter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def close(self) -> None:
            pass

    os.scandir = lambda path=".": Shuffled(path)
    os.listdir = lambda path=".": listdir(path)[::-1]


def other_machine(folder: Path, *, threads: int = 1, version: str = "") -> None:
    import torch

    from headstart.engine.runtime import Runtime

    torch.set_num_threads(threads)
    original = Runtime.choices
    if version:
        Runtime.choices = lambda self: {**original(self), "torch": version}


# ---- jobs: what a life can do instead of training -------------------------------------------------------------------


def load_watched(folder: Path, *, run: str) -> None:
    """Load everything a run holds, and write down what audit events came that loading must not raise."""
    import sys

    import headstart
    from headstart.core.run import Run
    from headstart.engine.checkpoint import Checkpoints
    from headstart.measure.evaluation import Evaluation

    seen: list[str] = []
    written: list[str] = []
    watched = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork")
    watched += ("socket.connect", "socket.bind", "socket.getaddrinfo", "exec_outside")
    listening = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if listening[0] and event in watched:
            seen.append(event)

    sys.addaudithook(hook)
    nursery.changes(folder.parent, lambda what, path: written.append(path) if listening[0] else None)
    place = Run.open(run)
    place.stages(), place.events(), place.read("result.json")
    Evaluation.load(place.path / "predictions-test.npz")
    state = next(place.path.glob("stages/*/state/step-*"), None)
    assert state is not None, "the run should have been interrupted with a checkpoint in place"
    assert Checkpoints(state.parent).latest() is not None
    headstart.load(place.path / "model").predict(nursery.pictures(3, 3)[0])
    listening[0] = False
    (folder / "seen.json").write_text(json.dumps({"seen": seen, "written": written}))


def swallow_data(folder: Path, *, cases: dict[str, str]) -> None:
    """Give each file to ``fit``."""
    _swallow(folder, cases, lambda path: nursery.run_fit({"data": path}, folder))


def swallow_artefacts(folder: Path, *, cases: dict[str, str]) -> None:
    """Load each path as a model, or as predictions."""
    import headstart
    from headstart.measure.evaluation import Evaluation

    _swallow(folder, cases, lambda path: Evaluation.load(path) if path.endswith(".npz") else headstart.load(path))


def swallow_sounds(folder: Path, *, cases: dict[str, str]) -> None:
    """Decode each file as a recording."""
    from headstart.data.modalities import audio

    _swallow(folder, cases, lambda path: audio.decode(path, audio.AudioSpec()))


def swallow_memory(folder: Path, *, cases: dict[str, str]) -> None:
    """Take 400 MB, and then more than the process may have: the measure itself is looked at."""
    sizes = iter([400 * 2**20, 2**40])
    _swallow(folder, cases, lambda path: np.ones(next(sizes), np.uint8))


def _swallow(folder: Path, cases: dict[str, str], act: Callable[[str], Any]) -> None:
    """Write down what came of every case: peak of memory beyond what there was, seconds of the processor, the error."""
    from headstart.core.errors import HeadstartError

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 3 * 2**30, resource.RLIM_INFINITY))
    found: dict[str, dict[str, Any]] = {}
    for name, path in cases.items():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, started = _memory("VmRSS"), time.process_time()
        kind, said = "nothing", ""
        try:
            act(path)
        except HeadstartError as error:
            kind, said = "ours", str(error)
        except Exception as error:
            kind, said = type(error).__name__, str(error)
        found[name] = {"kind": kind, "said": said[:2000], "seconds": time.process_time() - started}
        found[name]["memory"] = _memory("VmHWM") - before
        print(name, found[name])  # where one of them kills the process, the log names it by those before
    (folder / "swallowed.json").write_text(json.dumps(found))


def _memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))
