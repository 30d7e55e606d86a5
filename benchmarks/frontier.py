"""The frontier cache alone: one stage that thaws the last blocks, with the cache and without it, all else equal.

    python -m benchmarks.frontier                         # what benchmarks/results/frontier.json lacks
    python -m benchmarks.frontier --quick --output …      # a toy: a tiny network on drawn pictures

The engine's own loop trains both: hymenoptera at 224 pixels, no augmentation, batches of 16, the precision that the
machine is fastest in; validation and checkpoints are left out of both. Epochs with and without the cache take turns;
the quickest of each counts, as for the parts of a step: whatever disturbs only lengthens.

A step costs F below the frontier and 3uF above it where a backward pass costs two forward ones, so that the cache
gains (1 + 2u) / 3u at most. Often it costs more here (depthwise convolutions on a CPU: four), so the share w of a step
that lies above the frontier is timed as it is, on one batch: frozen blocks forward, the others forward and backward.
``u`` is what that means in the formula, u = w / (3 - 2w), and the warm bound is 1 / w. Cold counts the building: with
a share w above, E epochs gain E / (V (1 - w) + E w) at most with a cache of V views. ``u_forward`` is the share of a
forward pass alone, with the bound that the formula gives for it.

About 3 minutes a pair of a network on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import assets, record

NETWORKS = {"mobilenet_v2": assets.MOBILENET, "resnet18": "torchvision/resnet18"}
DEPTHS = {"mobilenet_v2": (0.25, 0.5), "resnet18": (0.25, 0.5)}  # shares of the blocks that are thawed
BATCH_SIZE, EPOCHS, ROUNDS = 16, 8, 6  # epochs of the cold comparison; rounds of timed epochs
BUILDS = 3


def share_of_work(below: float, above: float) -> float:
    """``u`` of the formula, from seconds of the frozen blocks (forward) and of the others (forward and backward)."""
    w = above / (below + above)
    return w / (3 - 2 * w)


def bounds(u: float, epochs: int, views: int = 1) -> tuple[float, float]:
    """What a cache can gain at most: warm, and with its building."""
    return (1 + 2 * u) / (3 * u), epochs * (1 + 2 * u) / ((1 - u) * views + 3 * epochs * u)


def compare(network: str, share: float, quick: bool) -> dict[str, Any]:
    """Time one network at one depth: u, the epochs with and without the cache, and its building."""
    import torch

    from headstart.engine import precision
    from headstart.engine.frontier import Frontiers
    from headstart.engine.recorded import Wanted
    from headstart.engine.runtime import Runtime
    from headstart.models import heads
    from headstart.models.model import Model
    from headstart.stages.methods import thaw

    backbone, train, val = _materials(network, quick)
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 2), ("ants", "bees"))
    runtime = Runtime("cpu")
    stage = thaw.Settings(blocks=share, epochs=EPOCHS, batch_size=BATCH_SIZE, augment="none", views=1)
    batch = next(iter(train.batches(range(BATCH_SIZE), batch_size=BATCH_SIZE)))
    inputs = torch.from_numpy(batch.inputs).contiguous(memory_format=torch.channels_last)
    backbone.verify(inputs[:2])
    candidates = [precision.Precision("fp32", True), precision.Precision("bf16", True)]
    model.bn = stage.bn

    def step(candidate: precision.Precision) -> float:
        model.thaw("all")
        runtime.precision = candidate.name
        return _step(model, runtime, inputs, 0)

    runtime.precision = precision.choose(step, candidates=candidates, rounds=2)[0].name
    model.thaw(share)
    frontiers = Frontiers(model, runtime, lambda event: None, 0, 10**11)
    seconds_of_building = []
    for number in range(2 if quick else 1 + BUILDS):
        wanted = Wanted(stage, model.frozen_prefix, str(number))  # other weights, as far as this tells: made anew
        started = time.perf_counter()
        frontier = frontiers.of_stage(wanted, train, val)
        seconds_of_building.append(time.perf_counter() - started)
    build = min(seconds_of_building[1:]) * len(train) / (len(train) + len(val))  # of the training rows, about
    assert frontier.train is not None, frontier.decision.reason
    epochs = {
        "live": _epochs(model, runtime, stage, train, None),
        "cached": _epochs(model, runtime, stage, train, frontier.train),
    }
    seconds: dict[str, list[float]] = {"live": [], "cached": []}
    parts: dict[str, list[float]] = {"forward": [], "above": [], "below": []}
    for _ in range(1 if quick else ROUNDS):
        for name, run in epochs.items():
            seconds[name].append(_timed(run))
        for name, took in _parts(model, runtime, inputs, frontier.train.frontier).items():
            parts[name].append(took)
    return _facts(runtime.precision, model, seconds, parts, build, len(train))


def _facts(
    chosen: str, model: Any, seconds: dict[str, list[float]], parts: dict[str, list[float]], build: float, rows: int
) -> dict[str, Any]:
    forward, above, below = (min(parts[name]) for name in ("forward", "above", "below"))
    live, cached = (min(seconds[name]) for name in ("live", "cached"))
    u, u_forward = share_of_work(below, above), max(0.01, 1 - below / forward)
    warm, cold = bounds(u, EPOCHS)
    gain, cold_gain = live / cached, EPOCHS * live / (build + EPOCHS * cached)
    return {
        "precision": chosen,
        "rows": rows,
        "frozen_blocks": model.frozen_prefix,
        "blocks": len(model.backbone.blocks),
        "u": u,
        "u_forward": u_forward,
        "step_seconds": {"forward": forward, "above": above, "below": below},
        "epoch_seconds": seconds,
        "build_seconds": build,
        "epochs": EPOCHS,
        "warm": {"gain": gain, "bound": warm, "bound_forward": bounds(u_forward, EPOCHS)[0]},
        "cold": {"gain": cold_gain, "bound": cold},
    }


def _materials(network: str, quick: bool) -> tuple[Any, Any, Any]:
    """The backbone, and the training and validation rows; toys for a quick look."""
    from headstart import experiment
    from headstart.models import backbone as backbones
    from headstart.workflows import materials

    settled = experiment.load(
        overrides=["data.split.test=0"], data=None if quick else str(assets.folder() / "hymenoptera")
    )
    if quick:
        found = backbones.load("builtin/tiny", image_size=32)
    elif network == "mobilenet_v2":
        found = backbones.load(NETWORKS[network], weights=assets.weights(), image_size=224)
    else:
        found = backbones.load(NETWORKS[network], pretrained=False, image_size=224)
    rows = materials.collect(settled, _drawn() if quick else None)
    decoded = materials.decode(rows, settled, found.spec, lambda event: None)
    return found, decoded.examples("train"), decoded.examples("val")


def _drawn() -> Any:
    import numpy as np

    pictures = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3)).astype(np.uint8)
    return pictures, np.array(["ants", "bees"])[np.arange(40) % 2]


def _step(model: Any, runtime: Any, inputs: Any, frontier: int) -> float:
    """One forward and backward pass from the frontier on; the loss."""
    from headstart.stages.learner import logits_from

    with runtime.autocast():
        loss = logits_from(model, inputs, BATCH_SIZE, frontier).float().logsumexp(1).mean()
    loss.backward()
    model.zero_grad(set_to_none=True)
    return float(loss.detach())


def _parts(model: Any, runtime: Any, inputs: Any, frontier: int) -> dict[str, float]:
    """Seconds of a whole forward pass, of a step above the frontier, and of the frozen blocks, on one batch."""
    import torch

    from headstart.models import resume

    def frozen() -> Any:
        with torch.no_grad(), runtime.autocast():
            return resume.record(model.backbone, frontier, inputs)

    def whole() -> Any:
        with torch.no_grad(), runtime.autocast():
            return model(inputs)

    model.train()
    value = frozen()
    above = _timed(lambda: _step(model, runtime, value, frontier), warm=True)
    return {"forward": _timed(whole, warm=True), "above": above, "below": _timed(frozen, warm=True)}


def _epochs(model: Any, runtime: Any, stage: Any, train: Any, cached: Any) -> Callable[[], Any]:
    """One epoch of the engine's loop, without validation and checkpoints."""
    from headstart.engine import groups, streams
    from headstart.engine.loop import Job, Loop
    from headstart.stages.learner import Learner
    from headstart.tasks.classify import Loss

    order = streams.Order(0, 0, train.rows, BATCH_SIZE)
    stream: Any = streams.LiveStream(runtime, order, train, None)
    if cached is not None:
        stream = streams.CachedStream(runtime, order, cached)
    backbone = model.backbone
    chosen = groups.groups(
        [(f"model.{name}", parameter) for name, parameter in model.named_parameters()],
        {f"model.{name}": depth for name, depth in model.depths().items() if depth <= len(backbone.blocks)},
        backbone.blocks,
        weight_decay=stage.weight_decay,
        **stage.by_depth,
    )
    learner = Learner(model, Loss(), runtime.autocast)
    job = Job(runtime, learner, stage, stream, chosen, validate=lambda: None, metric="accuracy", stage=0, seed=0)
    loop = Loop(job)

    def run() -> None:
        learner.train()
        for update in stream.epoch(0):
            loop._update(update)

    learner.train()
    loop._update(next(stream.epoch(0)))  # the first update of a shape is slower: oneDNN prepares for it
    return run


def _timed(work: Callable[[], Any], *, warm: bool = False) -> float:
    """Seconds of one call; with ``warm`` the best of three after one that does not count."""
    if warm:
        work()
    found = []
    for _ in range(3 if warm else 1):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def run(chosen: argparse.Namespace) -> None:
    """Run what the results lack, each comparison as a process of its own."""
    settings = {"batch_size": BATCH_SIZE, "epochs": EPOCHS, "quick": chosen.quick}
    results = record.Results(chosen.output, "frontier", settings)
    for pair in range(chosen.pairs):
        for network in chosen.networks:
            for share in DEPTHS[network]:
                key = {"network": network, "thawed": share, "pair": pair}
                if results.find(key):
                    continue
                with tempfile.TemporaryDirectory(prefix="headstart-frontier-") as work:
                    answer = Path(work) / "answer.json"
                    given = json.dumps([network, share, chosen.quick])
                    command = [sys.executable, "-m", "benchmarks.frontier", "--one", given, "--answer", str(answer)]
                    env = {"HEADSTART_CACHE": str(Path(work) / "cache"), "HF_HUB_OFFLINE": "1"}
                    env["PYTHONPATH"] = str(assets.ROOT)
                    facts = {
                        **record.measured(command, log=Path(work) / "log", env=env),
                        **json.loads(answer.read_text()),
                    }
                results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts})
                warm, cold = facts["warm"], facts["cold"]
                told = f"u {facts['u']:.3f}  warm {warm['gain']:.2f} of {warm['bound']:.2f}"
                print(
                    f"{pair} {network:12} {share}  {told}  cold {cold['gain']:.2f} of {cold['bound']:.2f}", flush=True
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=record.RESULTS / "frontier.json")
    parser.add_argument("--quick", action="store_true", help="a tiny network on drawn pictures")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        chosen.answer.write_text(json.dumps(compare(*json.loads(chosen.one))))
        return
    run(chosen)


if __name__ == "__main__":
    main()
