"""What the built-in backbones reach with few labels, beside no pretraining, and beside weights from the Hub.

    python -m benchmarks.builtin                      # what benchmarks/results/builtin.json lacks
    python -m benchmarks.builtin --sets digits sst2 --seeds 0
    python -m benchmarks.builtin --quick --seeds 0    # one seed, one epoch, few rows: shows that it works

Eight sets that no pretraining saw (``few.py``), with 20 labelled rows a class and with 500 in all, 5 seeds. ``random``
and ``probe`` are solved heads on frozen features of the same network, with random and with pretrained weights;
``scratch`` trains all of it from random weights; ``fine-tuned`` is the probe, then the whole network, whatever a gate
would say; ``baseline`` needs no network: pixels and colours, TF-IDF, log-mel statistics. ``real`` are weights from
large real data sets: MobileNetV2 (ImageNet), MiniLM-L6, YAMNet (AudioSet), Google's speech embedding.

A child process does the strategies of one set and seed, each with an empty cache, and loads
the libraries first. Seconds are of a whole ``fit``: decoding, training, report.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import assets, few, record, sound, text, transfer
from headstart.workflows.demo import TUNING

STRATEGIES = ("random", "probe", "scratch", "fine-tuned", "baseline", "real probe", "real fine-tuned")
SEEDS = (0, 1, 2, 3, 4)
REAL_SIZE = {"digits": 64, "usps": 64, "hymenoptera": 128, "cartoon": 128}  # pixels, as in the transfer table
# After the probe the whole network, as in the demo; from scratch more epochs, at the rate that suits random weights.
REAL_TUNING = {
    "image": {"lr": 3e-4, "bn": "eval"},
    "text": {"lr": 5e-5},
    "audio": {"lr": 1e-4},
}
SCRATCH: dict[str, dict[str, Any]] = {
    "image": {"epochs": 30, "lr": 1e-3, "batch_size": 16, "augment": "light"},
    "text": {"epochs": 40, "lr": 5e-4, "batch_size": 16},
    "audio": {"epochs": 30, "lr": 1e-3, "batch_size": 16, "augment": "light"},
}
LONGER = {"hymenoptera": 60}  # epochs from scratch: two classes are few rows, and 30 would be too few updates to learn
UNGATED = {"on_fail": "warn"}  # or a tie on few validation rows would give the probe the name of fine-tuning
REAL_TUNED = ("few",)  # sizes at which the real weights are fine-tuned: they are larger, and a head says most of it
UNMIRRORED = {"digits", "usps"}
QUICK = 6  # rows a class


def settings() -> dict[str, Any]:
    """What decides the numbers, beside the weights, which are part of every run's key."""
    return {
        "tuning": TUNING,
        "gate": UNGATED,
        "scratch": SCRATCH | {"longer": LONGER},
        "real": {"sizes": REAL_SIZE, "tuning": REAL_TUNING},
        "rows": {"per class": few.PER_CLASS, "in all": few.IN_ALL, "choosing": few.CHOOSING, "test": few.TESTED},
    }


def weights(name: str) -> str:
    """Which weights of ours a set is judged with: the first digits of their hash."""
    from headstart.models import shipped

    return str(shipped.card(few.MODALITY[name]).sha256)[:12]


def network(name: str, strategy: str) -> dict[str, Any]:
    """The backbone of a strategy on a set, as settings of ``headstart``."""
    modality = few.MODALITY[name]
    if not strategy.startswith("real"):
        return {"backbone": f"builtin/{modality}", "pretrained": strategy in ("probe", "fine-tuned")}
    if modality == "image":
        return {"backbone": assets.MOBILENET, "weights": str(assets.weights()), "image_size": REAL_SIZE[name]}
    return {"backbone": str(text.encoder()) if modality == "text" else sound.ENCODERS[name]}


def plan(name: str, strategy: str, quick: bool) -> list[Any]:
    """The stages of a strategy on a set."""
    modality = few.MODALITY[name]
    if strategy == "scratch":
        epochs = {"epochs": LONGER[name]} if name in LONGER else {}
        stages: list[Any] = [{"scratch": {**SCRATCH[modality], **epochs}}]
    elif strategy.endswith("fine-tuned"):
        own = REAL_TUNING[modality] if strategy.startswith("real") else {}
        stages = [{"probe": {}}, {"thaw": {"blocks": "all", **TUNING[modality], **own, "gate": UNGATED}}]
    else:
        return [{"probe": {}}]
    told = next(iter(stages[-1].values()))
    if name in UNMIRRORED:
        told["augment"] = {"preset": told["augment"], "flip": 0.0}
    if quick:
        told["epochs"] = 1
    return stages


def fit(name: str, size: str, seed: int, strategy: str, folder: Path, quick: bool = False) -> dict[str, Any]:
    """One strategy on one set: accuracy on test rows, and the seconds of the whole ``fit``."""
    from headstart import experiment
    from headstart.workflows.fit import fit as train

    given = few.rows(name, size, seed)
    if quick:
        given = {split: _thinned(pairs) for split, pairs in given.items()}
    own = {"data": {"modality": few.MODALITY[name]}, "name": "run", "seed": seed, "output_dir": str(folder / "runs")}
    own |= {"offline": True, "baseline": False, "normalisation_check": False, "force": quick}
    settled = experiment.load(**own, **network(name, strategy), plan=plan(name, strategy, quick))
    if strategy == "baseline":
        return baseline(name, settled, given)
    started = time.perf_counter()
    run = train(settled, data=given)
    seconds = time.perf_counter() - started
    result = run.read("result.json")
    stages = [json.loads(file.read_text()) for file in sorted(run.path.glob("stages/*/result.json"))]
    return {
        "seconds": round(seconds, 2),
        "accuracy": {split: told["accuracy"]["value"] for split, told in result["metrics"].items()},
        "macro_f1": {split: told["macro_f1"]["value"] for split, told in result["metrics"].items()},
        "rows": {split: len(pairs) for split, pairs in given.items()},
        "best": result["best"],
        "precision": run.read("choices.json")["precision"],
        "stages": [transfer.stage_facts(stage) for stage in stages],
    }


def baseline(name: str, settled: Any, given: dict[str, few.Pairs]) -> dict[str, Any]:
    """What needs no network: its strength is chosen on validation rows, and test rows judge it."""
    import numpy as np
    from sklearn.metrics import f1_score

    from headstart.engine.baselines import audio, image
    from headstart.engine.baselines import text as words
    from headstart.models import backbone
    from headstart.stages.solver import solve_path
    from headstart.workflows import materials

    started = time.perf_counter()
    spec = backbone.load(settled.backbone, pretrained=False).spec
    found = materials.decode(materials.collect(settled, given), settled, spec, lambda event: None)
    splits = found.splits.present()
    labels = {split: each.labels for split, each in splits.items()}
    if few.MODALITY[name] == "text":
        texts = {split: [str(item) for item in each.items] for split, each in splits.items()}
        model = words.fitted(texts["train"], labels["train"], texts["val"], labels["val"])
        answers = {split: model.predict(texts[split]) for split in ("val", "test")}
    else:
        look = image.look if few.MODALITY[name] == "image" else lambda samples: audio.statistics(samples, spec.rate)
        seen = {split: np.stack([look(each) for each in found.stores[split]]) for split in splits}
        path = solve_path(seen["train"], labels["train"], seen["val"], labels["val"], len(found.splits.classes))
        weight, bias = path.weight.numpy(), path.bias.numpy()
        answers = {split: (seen[split] @ weight.T + bias).argmax(1) for split in ("val", "test")}
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "accuracy": {split: float((told == labels[split]).mean()) for split, told in answers.items()},
        "macro_f1": {split: float(f1_score(labels[split], told, average="macro")) for split, told in answers.items()},
        "rows": {split: len(pairs) for split, pairs in given.items()},
    }


def _thinned(pairs: few.Pairs) -> few.Pairs:
    import numpy as np

    return [pairs[row] for row in few.drawn(pairs, QUICK, np.random.default_rng(0))]


def one(name: str, seed: int, wanted: list[list[str]], quick: bool, folder: Path) -> None:
    """The child process: strategies of one set and seed; each result is written as soon as it is there."""
    from headstart.models import backbone

    backbone.load(f"builtin/{few.MODALITY[name]}")  # with the libraries: nobody's seconds hold their loading
    for number, (size, strategy) in enumerate(wanted):
        place = folder / str(number)
        os.environ["HEADSTART_CACHE"] = str(place / "cache")
        before = record.reference()
        facts = fit(name, size, seed, strategy, place, quick)
        facts |= record.around(before, record.reference())
        with (folder / "answers.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps([size, strategy, facts]) + "\n")


def run(chosen: argparse.Namespace) -> int:
    """Run what the results lack, seed by seed; what fails is told and left out."""
    results = record.Results(chosen.output, "builtin", {"quick": True} if chosen.quick else settings())
    known = {name: weights(name) for name in few.SETS}
    results.value["runs"] = [run for run in results.runs if run["key"]["weights"] == known[run["key"]["set"]]]
    failed = 0
    for seed in chosen.seeds:
        for name in chosen.sets:
            keys = [
                {"set": name, "size": size, "seed": seed, "strategy": strategy, "weights": known[name]}
                for size in (few.SIZES[:1] if chosen.quick else few.sizes(name))
                for strategy in chosen.strategies
                if strategy != "real fine-tuned" or size in REAL_TUNED
            ]
            wanted = [[key["size"], key["strategy"]] for key in keys if not results.find(key)]
            if not wanted:
                continue
            with tempfile.TemporaryDirectory(prefix="headstart-builtin-") as work:
                given = json.dumps([name, seed, wanted, chosen.quick])
                command = [sys.executable, "-m", "benchmarks.builtin", "--one", given, "--folder", work]
                try:
                    record.measured(command, log=Path(work) / "log", env={"HF_HUB_OFFLINE": "1"})
                except RuntimeError as error:
                    failed += 1
                    print(f"{name}, seed {seed}: {error}", file=sys.stderr, flush=True)
                _keep(results, name, seed, Path(work) / "answers.jsonl")
    return min(failed, 1)


def _keep(results: record.Results, name: str, seed: int, file: Path) -> None:
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        size, strategy, facts = json.loads(line)
        key = {"set": name, "size": size, "seed": seed, "strategy": strategy, "weights": weights(name)}
        results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts})
        print(f"{name:12} {size:4} {seed} {strategy:16} {facts['accuracy']['test']:.3f}  {facts['seconds']:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(few.SETS), choices=few.SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--output", type=Path, default=record.RESULTS / "builtin.json")
    parser.add_argument("--quick", action="store_true", help="one epoch on few rows, with 20 a class at most")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        one(*json.loads(chosen.one), folder=chosen.folder)
        return
    raise SystemExit(run(chosen))


if __name__ == "__main__":
    main()
