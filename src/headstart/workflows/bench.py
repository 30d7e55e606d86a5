"""``bench``: one model in torch and in every runtime, on this machine, side by side.

All candidates take turns, so that a busy machine slows them alike, beside the matrix products that tell what the
machine can do at that very moment.

Shapes: B rows of a batch.
"""

from __future__ import annotations

import functools
import logging
import time
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core import registry
from headstart.core.errors import ArtefactError
from headstart.core.events import Event, Notice
from headstart.core.machine import processor, usable_cores
from headstart.core.plural import plural
from headstart.core.run import Run
from headstart.deploy import contract, folder, mates, timing
from headstart.deploy.folder import Golden
from headstart.deploy.predictor import RUNTIMES, open_session, variants, ways
from headstart.deploy.timing import Timed
from headstart.deploy.verdict import BATCHES
from headstart.workflows.judging import runtimes
from headstart.workflows.predict import load

if TYPE_CHECKING:
    from headstart.models.model import Model

Emit = Callable[[Event], None]
Call = Callable[[np.ndarray], Any]
BENCH = "bench.json"
PEAK_SIDE = 1024  # of the square matrices whose product is the peak
EAGER = "torch eager fp32"
SECONDS = 12.0  # for each size of batch
BUSY = 1.3  # times as long as its best round, at which a matrix product tells of other work on the machine


@dataclass(frozen=True)
class Line:
    """One candidate: times of a call by batch, how many times eager torch, and its share of the peak."""

    name: str
    precision: str  # of most of its products: fp32, bf16 or int8
    times: dict[int, Timed]
    gain: dict[int, float]
    share_of_peak: dict[int, float]  # empty where torch has no instructions for this precision


def bench(
    path: str | Path | Run,
    *,
    threads: int | None = None,
    seconds: float = SECONDS,
    allow_module: Any = False,
    on_event: Emit | None = None,
) -> dict[str, Any]:
    """Time the run's model with batches of 1 and 16 rows, and write ``bench.json`` into the run; what it holds.

    Args:
        threads: for torch and the runtimes alike; by default the cores this process may use.
        seconds: for each size of batch.
        allow_module: as for ``headstart.load``: a model on the user's own code.

    Raises:
        ArtefactError: the run was not exported.
    """
    from headstart.engine.precision import hopeless
    from headstart.models import threads as computing

    emit = on_event or (lambda event: None)
    run = path if isinstance(path, Run) else Run.open(path)
    place = run.path / folder.EXPORT
    if not folder.is_export(place):
        remedy = f"headstart export {run.path} comes first"
        raise ArtefactError("this run was not exported", where=str(run.path), remedy=remedy)
    count = threads or max(1, round(usable_cores()))
    golden = Golden.read(place / folder.GOLDEN)
    with computing.set_to(count):
        model = load(run, allow_module=allow_module).model
        flops = _flops(model, golden.inputs[:1])
        spared = hopeless("cpu", ("bf16", "int8"))  # a product that torch computes without instructions is no peak
        for name, why in spared.items():
            emit(Notice("info", "bench", f"torch in {name} is left out, also as a peak: {why}"))
        calls = {**_torch(model, golden.inputs, emit, spared), **exported(place, count, emit)}
        peaks = {name: peak for name, peak in _peaks().items() if name.removeprefix("peak ") not in spared}
        measured: dict[int, dict[str, Timed]] = {}
        for size in BATCHES:
            inputs = golden.inputs[np.arange(size) % len(golden.inputs)]
            turns = {name: functools.partial(call, inputs) for name, call in calls.items()} | peaks
            told = f"{plural(len(calls), 'candidate')} with {plural(size, 'row')} at a time, about {seconds:.0f} s"
            emit(Notice("info", "bench", told))
            measured[size] = timing.interleaved(turns, rounds=7, seconds=seconds)
    if (slowed := max(_unrest(found["peak fp32"]) for found in measured.values())) > BUSY:
        what = f"this machine was busy with other work: the same matrix product took up to {slowed:.1f} times as long"
        emit(Notice("warning", "busy", what, "ratios are taken round by round; repeat it when times matter"))
    for name in _slow(measured, peaks):
        del peaks[name]
        measured = {size: {key: each for key, each in found.items() if key != name} for size, found in measured.items()}
    lines = [asdict(_line(name, measured, flops)) for name in calls]
    cpu, features = processor()
    versions = {name: registry.find(RUNTIMES, name).version() for name in runtimes()}
    result = {
        "time": time.time(),
        "host": {"processor": cpu, "features": features, "threads": count, "runtimes": versions},
        "gflop_a_row": flops / 1e9,
        "peaks": {name: {size: _giga(measured[size][name]) for size in BATCHES} for name in peaks},
        "lines": lines,
    }
    run.write(BENCH, result)
    return result


def _line(name: str, measured: dict[int, dict[str, Timed]], flops: float) -> Line:
    precision = name.rpartition(" ")[2]
    kind = "fp32" if precision == "fp16" else precision.partition("+")[0]
    times = {size: found[name] for size, found in measured.items()}
    rate = {size: flops * size / (timed.p50_ms / 1e3) for size, timed in times.items()}
    peaks = {size: each[f"peak {kind}"] for size, each in measured.items() if f"peak {kind}" in each}
    share = {size: rate[size] / (1e9 * _giga(peak)) for size, peak in peaks.items()}
    gain = {size: found[EAGER].times_as_long(found[name]) for size, found in measured.items()}
    return Line(name, kind, times, gain, share)


def _slow(measured: dict[int, dict[str, Timed]], peaks: Iterable[str]) -> list[str]:
    """Peaks below that of fp32: torch has no instructions for such a product here, and a runtime may have others."""
    return [
        name for name in peaks if any(_giga(found[name]) < _giga(found["peak fp32"]) for found in measured.values())
    ]


def _giga(timed: Timed) -> float:
    """Billions of operations a second of a matrix product, in the best of its rounds: a peak is what was reached."""
    return 2 * PEAK_SIDE**3 / (min(timed.rounds_ms) / 1e3) / 1e9


def _unrest(timed: Timed) -> float:
    """How much longer the slowest round took than the quickest."""
    return max(timed.rounds_ms) / min(timed.rounds_ms)


def _torch(model: Model, inputs: np.ndarray, emit: Emit, spared: Collection[str]) -> dict[str, Call]:
    """Eager and compiled, in fp32 and in bf16 with channels last, but for precisions in ``spared``; what fails here is
    left out, said aloud."""
    import copy

    import torch

    def caller(network: Any, bf16: bool) -> Call:
        def call(batch: np.ndarray) -> Any:
            given = torch.from_numpy(batch)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return network(given)

        return call

    swift = copy.deepcopy(model)
    if inputs.ndim == 4:
        swift = swift.to(memory_format=torch.channels_last)
    candidates = {
        EAGER: caller(model, False),
        "torch eager bf16": caller(swift, True),
        "torch compiled fp32": caller(torch.compile(model), False),
        "torch compiled bf16": caller(torch.compile(swift), True),
    }
    found = {}
    emit(Notice("info", "bench", "torch compiles the network, which takes a while"))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it looks for CUDA on every machine
    for name, call in candidates.items():
        if name.rpartition(" ")[2] in spared:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for size in BATCHES:
                    call(inputs[np.arange(size) % len(inputs)])
            found[name] = call
        except Exception as error:  # a compiler that is missing raises what it likes
            text = (str(error).splitlines() or [type(error).__name__])[0]
            emit(Notice("warning", "bench", f"{name} is left out: {text[:200]}"))
    return found


def exported(place: Path, threads: int, emit: Emit) -> dict[str, Call]:
    """Every file of the export in every runtime and precision, answering as a predictor would: a variant that the
    verdict does not know, because its runtime came later, as the worst of its file."""
    known = variants(folder.read_verdict(place), place)
    inputs = Golden.read(place / folder.GOLDEN).inputs[:1]
    pad = mates.padding(contract.read(place / folder.FLOAT).modality)
    files = [file for file in (folder.FLOAT, folder.INT8, folder.HALF) if (place / file).is_file()]
    found: dict[str, Call] = {}
    every = [way for runtime in runtimes() for file in files for way in ways(file, runtime)]
    for way in every:
        alike = [known[way.name]] if way.name in known else [each for each in known.values() if each.file == way.file]
        try:
            session = open_session(place, way, threads)
            session(inputs)
        except ArtefactError as error:
            if way.name in known:
                raise
            emit(Notice("warning", "bench", f"{way.name} is left out: {error.summary[:200]}"))
            continue
        found[way.name] = session if all(each.batches for each in alike) else mates.row_by_row(session, pad)
    return found


def _peaks() -> dict[str, Callable[[], Any]]:
    """Square matrix products: what the machine can do in each precision, measured in turns with the candidates."""
    import torch

    left, right = torch.rand(2, PEAK_SIDE, PEAK_SIDE)
    whole = [(values * 100).to(torch.int8) for values in (left, right)]
    return {
        "peak fp32": functools.partial(torch.mm, left, right),
        "peak bf16": functools.partial(torch.mm, left.bfloat16(), right.bfloat16()),
        "peak int8": functools.partial(torch._int_mm, *whole),
    }


def _flops(model: Model, inputs: np.ndarray) -> float:
    """Of one row: two for a multiplication with its addition."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.inference_mode(False), torch.no_grad(), counter:
        model(torch.from_numpy(inputs))
    return float(counter.get_total_flops())
