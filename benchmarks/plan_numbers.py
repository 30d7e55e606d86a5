"""How the numbers of the plans were chosen: each candidate is a plan, run on real sets, every stage measured.

    python -m benchmarks.plan_numbers                          # all candidates that benchmarks/results/plans.json lacks
    python -m benchmarks.plan_numbers --only 'half*' --sets cartoon mnist --seeds 0 1

Gates only warn here, so that every stage is seen, also one that a run would revert. Accuracies are of validation rows
that chose the best epoch of a stage: good for comparing candidates, no claim about new rows (benchmarks/transfer.py).
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import assets, record

SETS = ("cartoon", "mnist", "hymenoptera", "photo")
SIZES = {"mnist": 64}
SIZE = 128
WARN = {"on_fail": "warn"}


def thaw(blocks: Any, **settings: Any) -> dict[str, Any]:
    return {"thaw": {"blocks": blocks, "gate": WARN, **settings}}


def candidates() -> dict[str, list[Any]]:
    """Plans by name: one stage after the probe, with everything thawed unless the name says otherwise.

    A rate of 1e-4 at a decay of 1 (no decay), BatchNorm on its running statistics, batches of 16 and so on.
    """
    short = {"epochs": 6, "head_multiple": 1.0, "augment": "light"}
    flat = {**short, "layer_decay": 1.0}
    small = {**flat, "epochs": 8, "batch_size": 16, "bn": "eval"}
    smooth = {**small, "label_smoothing": 0.1}
    views = {**smooth, "views": 4, "layer_decay": 0.9}
    stages = {
        "rates": {
            "decay .75, BN train, 1e-3": thaw("all", **short, lr=1e-3, bn="frozen_eval"),
            "no decay, BN train, 1e-3": thaw("all", **flat, lr=1e-3, bn="frozen_eval"),
            "no decay, BN train, 3e-4": thaw("all", **flat, lr=3e-4, bn="frozen_eval"),
            "no decay, BN eval, 1e-3": thaw("all", **flat, lr=1e-3, bn="eval"),
            "no decay, BN eval, 3e-4": thaw("all", **flat, lr=3e-4, bn="eval"),
        },
        "batch 16": {
            "5e-4": thaw("all", **small, lr=5e-4),
            "3e-4": thaw("all", **small, lr=3e-4),
            "3e-4, smoothing .1": thaw("all", **smooth, lr=3e-4),
            "1e-4, smoothing .1": thaw("all", **smooth, lr=1e-4),
            "2e-4, smoothing .1, decay .9": thaw("all", **{**smooth, "layer_decay": 0.9}, lr=2e-4),
        },
        "quarter": {"3e-4": thaw(0.25, **views, lr=3e-4), "1e-3": thaw(0.25, **views, lr=1e-3)},
        "half": {"2e-4": thaw(0.5, **views, lr=2e-4), "5e-4": thaw(0.5, **views, lr=5e-4)},
    }
    return {f"{kind}: {name}": ["probe", stage] for kind, found in stages.items() for name, stage in found.items()}


def unflipped(stage: Any) -> Any:
    """The stage without flips in its augmentation: a mirrored digit is another sign."""
    if isinstance(stage, str):
        return stage
    ((method, settings),) = stage.items()
    return {method: {**settings, "augment": {"preset": settings.get("augment", "standard"), "flip": 0.0}}}


def data(name: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """The rows of a set where they are arrays, and the settings that name it; as many validation rows as one can."""
    if name == "mnist":
        return assets.mnist(1000, 1000, 0, seed), {"name": "mnist"}
    if name == "hymenoptera":
        return None, {"data": str(assets.folder() / "hymenoptera")}
    return None, {"data": {"source": str(assets.folder() / "pacs" / name), "split": {"val": 0.4, "test": 0.0}}}


def stages(folder: Path) -> Iterator[dict[str, Any]]:
    """What each stage of a run gave."""
    import json

    for file in sorted(folder.glob("stages/*/result.json")):
        stage = json.loads(file.read_text())
        told = stage["metrics"]["val"]
        yield {
            "stage": stage["name"],
            "accuracy": told["accuracy"]["value"],
            "log_loss": told["log_loss"]["value"],
            "rows": told["accuracy"]["n"],
            "seconds": round(stage["seconds"], 2),
            "epochs": stage["epochs"],
            "best_epoch": stage.get("best_epoch"),
            "by_epoch": [
                [round(epoch["val_loss"], 4), round(epoch["val_metrics"]["accuracy"], 4)]
                for epoch in stage.get("history", [])
            ],
        }


def measure(plan: list[Any], name: str, seed: int) -> dict[str, Any]:
    """Run one plan in this process; features are shared between runs, runs are not kept."""
    from headstart import experiment
    from headstart.workflows.fit import fit

    rows, settings = data(name, seed)
    if name == "mnist":
        plan = [unflipped(stage) for stage in plan]
    with tempfile.TemporaryDirectory() as folder:
        started, cpu = time.perf_counter(), time.process_time()
        settled = experiment.load(
            plan=plan,
            backbone=assets.MOBILENET,
            weights=str(assets.weights()),
            image_size=SIZES.get(name, SIZE),
            seed=seed,
            precision="bf16",
            threads=1,
            baseline=False,
            normalisation_check=False,
            output_dir=folder,
            **settings,
        )
        run = fit(settled, data=rows)
        seconds = round(time.perf_counter() - started, 2), round(time.process_time() - cpu, 2)
        return {"seconds": seconds[0], "cpu_seconds": seconds[1], "stages": list(stages(run.path))}


def summary(stage: dict[str, Any]) -> str:
    """Accuracy/log-loss@best epoch, and seconds, of a stage."""
    told = f"{stage['accuracy']:.3f}/{stage['log_loss']:.3f}@{stage['best_epoch']}"
    return f"{stage['stage']} {told} {stage['seconds']:.0f}s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="a pattern of names of candidates")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", type=Path, default=record.RESULTS / "plans.json")
    chosen = parser.parse_args()
    os.environ.setdefault("HEADSTART_CACHE", tempfile.mkdtemp(prefix="headstart-plans-"))
    results = record.Results(
        chosen.output, "plan_numbers", {"backbone": assets.MOBILENET, "image_size": {**SIZES, "others": SIZE}}
    )
    for seed in chosen.seeds:
        for name, plan in candidates().items():
            for where in chosen.sets:
                key = {"candidate": name, "set": where, "seed": seed}
                if not fnmatch.fnmatch(name, chosen.only) or results.find(key):
                    continue
                facts = measure(plan, where, seed)
                results.add(key, {"plan": plan, "commit": record.commit(), **facts})
                shown = "  ".join(map(summary, facts["stages"]))
                print(f"{where:12} {name:40} {shown}", flush=True)


if __name__ == "__main__":
    main()
