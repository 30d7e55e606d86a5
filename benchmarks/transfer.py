"""Does transfer help, and which plan? Baseline, probe, gradual, full and scratch on four sets, 5 seeds.

    python -m benchmarks.transfer                      # what benchmarks/results/transfer.json lacks; hours on two cores
    python -m benchmarks.transfer --quick photos/      # one seed on a small folder, toy sizes: shows that it works
    python -m benchmarks.transfer --peer .peer/bin/python    # fastai's fine_tune as well, on the same rows

Every run is a process of its own with an empty cache: its seconds hold the start, decoding, the report and the saved
model. Seeds come outermost, so that an interrupted table is a table of fewer seeds. A seed draws the rows (except of
hymenoptera, which comes divided), the head, the order and the views.

Accuracies are of rows that chose nothing: a test split of 30 % (PACS), 2,000 rows of MNIST's test set. Hymenoptera has
none: its 153 validation rows also choose the epoch and the stage, as they do in the tutorial it comes from.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import assets, record

SETS = ("hymenoptera", "photo", "cartoon", "mnist")
STRATEGIES = ("baseline", "probe", "gradual", "full", "scratch")
PEER = "fastai"
SIZES = {"hymenoptera": 128, "photo": 128, "cartoon": 128, "mnist": 64}
SPLIT = {"val": 0.2, "test": 0.3}  # of PACS
MNIST = {"rows": 1000, "val": 1000, "test": 2000}
NO_FLIP = {"preset": "standard", "flip": 0.0}  # a mirrored digit is another sign
NUMBERS = ("lr", "layer_decay", "head_multiple", "epochs", "batch_size", "label_smoothing", "views", "augment", "bn")
SEEDS = (0, 1, 2, 3, 4)
SETTINGS = {
    "backbone": assets.MOBILENET,
    "weights": assets.ASSETS["weights/mobilenet_v2_imagenet.safetensors"].sha256,
    "image_size": SIZES,
    "split": SPLIT,
    "mnist": MNIST,
}


def source(name: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """The rows of a set where they are arrays, and the settings of ``headstart`` for it; a folder is a toy."""
    if name not in SETS:
        toy = {"backbone": "builtin/tiny", "image_size": 32, "epochs": 2, "force": True}
        return None, toy | {"data": name, "name": "toy", "seed": seed}
    settings = {
        "backbone": assets.MOBILENET,
        "weights": str(assets.weights()),
        "image_size": SIZES[name],
        "name": name,
        "seed": seed,
    }
    if name == "mnist":
        return assets.mnist(**MNIST, seed=seed), settings | {"augment": NO_FLIP}
    if name == "hymenoptera":
        return None, settings | {"data": str(assets.folder() / "hymenoptera")}
    return None, settings | {"data": {"source": str(assets.folder() / "pacs" / name), "split": SPLIT}}


def fit(name: str, seed: int, strategy: str, folder: Path) -> dict[str, Any]:
    """One strategy on one set: accuracies, the stages with their verdicts, where the time went."""
    from headstart import experiment
    from headstart.workflows.fit import fit as train

    rows, settings = source(name, seed)
    if strategy == "probe":
        settings.pop("epochs", None)  # it has none
    settled = experiment.load(plan=strategy, output_dir=str(folder / "runs"), **settings)
    run = train(settled, data=rows)
    result = run.read("result.json")
    stages = [json.loads(file.read_text()) for file in sorted(run.path.glob("stages/*/result.json"))]
    counts = run.read("data.json")["counts"]
    return {
        "accuracy": {split: told["accuracy"]["value"] for split, told in result["metrics"].items() if told},
        "log_loss": {split: told["log_loss"]["value"] for split, told in result["metrics"].items() if told},
        "rows": {split: sum(of_class.values()) for split, of_class in counts.items()},
        "best": result["best"],
        "fit_seconds": round(result["seconds"], 2),
        "precision": run.read("choices.json")["precision"],
        "phases": {phase["name"]: round(phase["seconds"], 2) for phase in result["phases"]},
        "stages": [stage_facts(stage) for stage in stages],
    }


def stage_facts(stage: dict[str, Any]) -> dict[str, Any]:
    """What is worth keeping of a stage: the probe of ``gradual`` is the same as a probe alone."""
    return {
        "name": stage["name"],
        "val_accuracy": stage["metrics"]["val"]["accuracy"]["value"],
        "seconds": round(stage["seconds"], 2),
        "epochs": stage["epochs"],
        "best_epoch": stage.get("best_epoch"),
        "updates": stage["updates"],
        "settings": {key: stage["settings"][key] for key in NUMBERS if key in stage["settings"]},
        "decision": stage["verdict"]["decision"],
    }


def decoded(name: str, seed: int) -> Any:
    """The rows of a set as a run would divide them."""
    from headstart import experiment
    from headstart.models import backbone
    from headstart.workflows import materials

    rows, settings = source(name, seed)
    settled = experiment.load(**settings)
    spec = backbone.load(settled.backbone, weights=settled.weights, image_size=settled.image_size).spec
    return materials.decode(materials.collect(settled, rows), settled, spec, lambda event: None)


def baseline(name: str, seed: int) -> dict[str, Any]:
    """Logistic regression on small pixels and colours, its strength chosen on validation rows, judged on test rows."""
    import numpy as np

    from headstart.engine.baselines import image as baselines
    from headstart.stages.solver import solve_path

    rows = decoded(name, seed)
    splits = rows.splits.present()
    seen = {split: np.stack([baselines.look(canvas) for canvas in rows.stores[split]]) for split in splits}
    labels = {split: each.labels for split, each in splits.items()}
    path = solve_path(seen["train"], labels["train"], seen["val"], labels["val"], len(rows.splits.classes))
    weight, bias = path.weight.numpy(), path.bias.numpy()
    most = np.bincount(labels["train"]).argmax()
    judged = [split for split in ("val", "test") if split in splits]
    return {
        "accuracy": {split: right(seen[split] @ weight.T + bias, labels[split]) for split in judged},
        "majority": {split: float((labels[split] == most).mean()) for split in judged},
    }


def right(logits: Any, labels: Any) -> float:
    """Share of the rows whose largest logit is the label's."""
    return float((logits.argmax(1) == labels).mean())


def write_rows(name: str, seed: int, path: Path) -> None:
    """The same training and judging rows for a peer, as PNG files and their class names."""
    from PIL import Image

    found = decoded(name, seed).splits
    listed: dict[str, list[list[str]]] = {}
    for split, rows in found.present().items():
        listed[split] = []
        for index, (item, label) in enumerate(zip(rows.items, rows.labels, strict=True)):
            file = item
            if not isinstance(item, str | os.PathLike):
                file = path.parent / split / f"{index}.png"
                file.parent.mkdir(exist_ok=True)
                Image.fromarray(item).save(file)
            listed[split].append([str(file), found.classes[label]])
    path.write_text(json.dumps({"classes": list(found.classes), "splits": listed}))


def measure(name: str, seed: int, strategy: str, peer: str | None) -> dict[str, Any]:
    """Run one strategy as a process of its own, in an empty folder, with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="headstart-transfer-") as work:
        folder = Path(work)
        answer = folder / "answer.json"
        env = {"HEADSTART_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        if strategy == PEER:
            assert peer is not None
            write_rows(name, seed, folder / "rows.json")
            command = [
                peer,
                str(Path(__file__).parent / "peers" / "fastai_fine_tune.py"),
                "--rows",
                str(folder / "rows.json"),
            ]
            command += ["--weights", str(assets.weights()), "--size", str(SIZES[name]), "--seed", str(seed)]
            command += ["--answer", str(answer), *(["--no-flip"] if name == "mnist" else [])]
        else:
            given = json.dumps([name, seed, strategy])
            command = [sys.executable, "-m", "benchmarks.transfer", "--one", given, "--folder", work]
        costs = record.measured(command, log=folder / "log", env=env)
        return {**costs, **json.loads(answer.read_text())}


def one(given: str, folder: Path) -> None:
    """The child process of ``measure``."""
    name, seed, strategy = json.loads(given)
    facts = baseline(name, seed) if strategy == "baseline" else fit(name, seed, strategy, folder)
    (folder / "answer.json").write_text(json.dumps(facts))


def run(chosen: argparse.Namespace) -> int:
    """Run what the results lack, seed by seed; a run that fails is told and left out."""
    results = record.Results(chosen.output, "transfer", {"quick": True} if chosen.quick else SETTINGS)
    peer = {"packages": peer_versions(chosen.peer)} if chosen.peer else {}
    failed = 0
    for seed in chosen.seeds:
        for name in chosen.sets:
            for strategy in [*chosen.strategies, *([PEER] if chosen.peer else [])]:
                key = {"set": "toy" if chosen.quick else name, "seed": seed, "strategy": strategy}
                if results.find(key):
                    continue
                try:
                    facts = measure(name, seed, strategy, chosen.peer)
                except RuntimeError as error:
                    failed += 1
                    print(f"{key} failed: {error}", file=sys.stderr, flush=True)
                    continue
                where = record.machine(**(peer if strategy == PEER else {}))
                results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts}, where=where)
                told = "  ".join(f"{split} {value:.3f}" for split, value in facts["accuracy"].items())
                print(f"{seed} {key['set']:12} {strategy:9} {told}  {facts['seconds']:.0f} s", flush=True)
    return min(failed, 1)


def peer_versions(python: str) -> dict[str, str]:
    """Versions of the packages in the peer's environment."""
    code = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    installed = {name.lower(): told for name, told in json.loads(done.stdout).items()}
    return {name: installed[name] for name in record.PACKAGES if name in installed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--peer", help="the Python of an environment with fastai (benchmarks/peers/requirements.txt)")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "transfer.json")
    parser.add_argument(
        "--quick", metavar="FOLDER", help="one seed on this folder: random weights, 32 pixels, 2 epochs"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        one(chosen.one, chosen.folder)
        return
    if chosen.quick:
        chosen.sets, chosen.seeds = [chosen.quick], [0]
    raise SystemExit(run(chosen))


if __name__ == "__main__":
    main()
