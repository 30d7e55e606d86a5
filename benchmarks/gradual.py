"""The plan ``gradual`` beside the same schedule in plain PyTorch, and beside fastai's ``fine_tune``: whole commands.

    python -m benchmarks.gradual                              # what benchmarks/results/gradual.json lacks
    python -m benchmarks.gradual --jobs fine_tune --peer .peer/bin/python
    python -m benchmarks.gradual --epochs 8 --views 4 --output …     # the plan as it is named
    python -m benchmarks.gradual --quick photos/ --output …          # a toy: 32 pixels, one epoch

Gates and early stopping are off, so that every side takes the same updates at every depth, in batches of the same size;
the head, which Headstart solves, trains as many epochs as every other depth. The peer augments anew in every epoch,
Headstart's cached depths see ``--views`` views. The pair's number is the seed of all its sides. Everything is counted:
start, decoding, caches, the report and the saved model, from an empty cache.

On two cores a pair of ``mobilenet_v2`` takes about 8 minutes, of ``resnet18`` (random weights: time only) 8, of
``fine_tune`` 5.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import assets, probe, record, transfer

JOBS = {
    "mobilenet_v2": ("headstart", "plain", "strong"),
    "resnet18": ("headstart", "plain", "strong"),
    "fine_tune": ("headstart", "fastai"),
}
EPOCHS, VIEWS, BATCH_SIZE = 4, 2, 16
FINE_TUNE = {"epochs": 4, "batch_size": 32}  # and one epoch of the head: what fastai's fine_tune(4) takes
HEAD_LR = 1e-3  # of the peer's first depth: its head is new


def plan(job: str, epochs: int, views: int) -> list[dict[str, Any]]:
    """The stages of ``gradual`` (of ``fine_tune``: the head, then all) with gates and early stopping off."""
    from headstart.stages import plans
    from headstart.stages.base import Training, as_mapping

    stages: list[dict[str, Any]] = []
    for stage in plans.PLANS["gradual"]:
        if not isinstance(stage, Training):
            stages.append({stage.method: {}})
            continue
        usual = as_mapping(type(stage)())
        own = {key: value for key, value in as_mapping(stage).items() if value != usual[key]}
        own |= {"epochs": epochs, "patience": None, "gate": {"on_fail": "warn"}}
        own |= {"views": views} if stage.views != "live" else {}
        stages.append({stage.method: own})
    if job == "fine_tune":
        stages = [stages[0], {"thaw": {**stages[-1]["thaw"], **FINE_TUNE}}]
    return stages


def schedule(ours: dict[str, Any], epochs: int) -> dict[str, Any]:
    """What the peer does: the depths that Headstart trained, with their rates; the head alone before them."""
    from headstart.stages.plans import PLANS

    stages = [{"blocks": 0, "epochs": epochs, "lr": HEAD_LR, "layer_decay": 1.0, "head_multiple": 1.0}]
    for stage, trained in zip(PLANS["gradual"][1:], ours["stages"][1:], strict=True):
        told = dataclasses.asdict(stage)
        stages.append(
            {
                "blocks": trained["thawed"],
                "epochs": epochs,
                "lr": told["lr"],
                "layer_decay": told["layer_decay"],
                "head_multiple": 1.0,
            }
        )
    return {"blocks": ours["blocks"], "stages": stages}


def fit(job: str, folder: Path, work: Path, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """One run of the command: its costs, its stages and what it reached."""
    config, output = work / "plan.yaml", Path(tempfile.mkdtemp(dir=work))
    config.write_text(json.dumps({"plan": plan(job, chosen.epochs, chosen.views), "data": {"split": {"test": 0}}}))
    command = [probe.HEADSTART, "fit", str(folder), "--config", str(config), "--seed", str(seed)]
    command += ["--backbone", chosen.backbones[job], "--output-dir", str(output), "--name", "gradual"]
    command += [*weights(job, chosen), f"image_size={chosen.size}", *chosen.settings]
    env = {"HEADSTART_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
    costs = record.measured(command, log=work / "log", env=env, accepted=(0, 2))
    assert (output / "gradual" / "report.html").is_file(), "the report belongs to the time"
    result = json.loads((output / "gradual" / "result.json").read_text())
    stages = [json.loads(file.read_text()) for file in sorted((output / "gradual").glob("stages/*/result.json"))]
    precision = json.loads((output / "gradual" / "choices.json").read_text())["precision"]
    blocks = [layer["name"] for layer in stages[0]["layers"] if 0 < layer["depth"] <= stages[0]["blocks"]]
    shutil.rmtree(work / "cache")
    return {
        **costs,
        "accuracy": {split: told["accuracy"]["value"] for split, told in result["metrics"].items() if told},
        "fit_seconds": round(result["seconds"], 3),
        "precision": precision,
        "phases": {phase["name"]: round(phase["seconds"], 3) for phase in result["phases"]},
        "blocks": [name for name in blocks if name != "after the blocks"],
        "stages": [stage_facts(stage) for stage in stages],
    }


def stage_facts(stage: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": stage["name"],
        "thawed": stage["blocks"] - stage["frozen_blocks"],
        "epochs": stage["epochs"],
        "updates": stage["updates"],
        "seconds": round(stage["seconds"], 3),
        "cached": bool(stage["cache"] and stage["cache"]["used"]),
        "val_accuracy": stage["metrics"]["val"]["accuracy"]["value"],
    }


def weights(job: str, chosen: argparse.Namespace) -> list[str]:
    """The real weights of MobileNetV2; of other networks random ones."""
    if chosen.backbones[job] == assets.MOBILENET and not chosen.quick:
        return ["--weights", str(assets.weights())]
    return ["pretrained=false"]


def peer(
    job: str, side: str, folder: Path, work: Path, seed: int, ours: dict[str, Any], chosen: argparse.Namespace
) -> dict[str, Any]:
    """One run of the schedule in plain PyTorch, or of fastai's ``fine_tune``."""
    answer = work / "answer.json"
    common = ["--rows", str(probe.rows(folder, work / "rows.json")), "--answer", str(answer)]
    common += ["--seed", str(seed), "--size", str(chosen.size)]
    if side == "fastai":
        script = str(Path(__file__).parent / "peers" / "fastai_fine_tune.py")
        own = ["--epochs", str(FINE_TUNE["epochs"]), "--batch-size", str(FINE_TUNE["batch_size"])]
        command = [chosen.peer, script, *common, *own, "--weights", str(assets.weights())]
    else:
        (work / "schedule.json").write_text(json.dumps(schedule(ours, chosen.epochs)))
        network = chosen.backbones[job].rpartition("/")[2]
        command = [sys.executable, "-m", "benchmarks.peers.gradual", *common, "--network", network]
        command += ["--schedule", str(work / "schedule.json"), "--batch-size", str(BATCH_SIZE)]
        command += [word for word in weights(job, chosen) if word != "pretrained=false"]
        command += ["--strong"] if side == "strong" else []
    costs = record.measured(command, log=work / "log", env={"PYTHONPATH": str(assets.ROOT)})
    return {**costs, **json.loads(answer.read_text())}


def run(chosen: argparse.Namespace) -> None:
    """Run what the results lack, side after side of a pair, pair after pair."""
    settings = {"epochs": chosen.epochs, "views": chosen.views, "batch_size": BATCH_SIZE, "image_size": chosen.size}
    results = record.Results(chosen.output, "gradual", settings | {"quick": bool(chosen.quick), "fine_tune": FINE_TUNE})
    folder = Path(chosen.quick) if chosen.quick else assets.folder() / "hymenoptera"
    for pair in range(chosen.pairs):
        for job in chosen.jobs:
            for side in JOBS[job]:
                key = {"job": job, "pair": pair, "side": side}
                if results.find(key) or (side == "fastai" and not chosen.peer):
                    continue
                with tempfile.TemporaryDirectory(prefix="headstart-gradual-") as work:
                    if side == "headstart":
                        facts = fit(job, folder, Path(work), pair, chosen)
                    else:
                        ours = results.find({**key, "side": "headstart"})
                        assert ours is not None
                        facts = peer(job, side, folder, Path(work), pair, ours, chosen)
                where = record.machine(transfer.peer_versions(chosen.peer) if side == "fastai" else None)
                results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts}, where=where)
                print(f"{pair} {job:12} {side:10} {facts['seconds']:.1f} s  {facts['accuracy']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of every depth")
    parser.add_argument("--views", type=int, default=VIEWS, help="that the cached depths see")
    parser.add_argument("--peer", help="the Python of an environment with fastai (benchmarks/peers/requirements.txt)")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "gradual.json")
    parser.add_argument("--quick", metavar="FOLDER", help="this folder (train/, val/) at 32 pixels, random weights")
    chosen = parser.parse_args()
    chosen.backbones = {"mobilenet_v2": assets.MOBILENET, "resnet18": "torchvision/resnet18"}
    chosen.backbones["fine_tune"] = assets.MOBILENET
    chosen.size, chosen.settings = (32, ["force=true"]) if chosen.quick else (224, [])
    run(chosen)


if __name__ == "__main__":
    main()
