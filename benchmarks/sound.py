"""Does transfer help on sounds, and how long does a probe take? Environmental sounds and spoken digits, 5 seeds.

    python -m benchmarks.sound                      # what benchmarks/results/sound.json lacks
    python -m benchmarks.sound --pairs 3            # the probe as a whole command, beside 25 ordinary epochs
    python -m benchmarks.sound --quick recordings/  # one seed on a folder of class folders: shows that it works

``esc10``: trained on fold 1 of ESC-10, judged on fold 2, with YAMNet. ``digits``: spoken digits, judged on the takes 0
to 4 of everybody, as is usual; ``speakers``: judged on a speaker who was not heard in training, another with every
seed; both with Google's speech embedding. Both networks come as the user's own torch modules (``encoders.py``).
Validation rows are drawn from the training rows by the seed (of ``speakers``: another speaker's). Every run is a
process of its own with an empty cache.

``--pairs``: ``headstart fit --plan probe`` with an empty cache, start and report included, and peers/sound_probe.py,
which decodes and embeds every recording in every epoch, in turns; accuracies are of the rows that both are judged on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import assets, record, transfer

ENCODERS = {"esc10": "benchmarks.encoders.yamnet", "digits": "benchmarks.encoders.speech"}
ENCODERS["speakers"] = ENCODERS["digits"]
SETS = tuple(ENCODERS)
STRATEGIES = ("baseline", "probe", "gradual", "full", "scratch")
SEEDS = (0, 1, 2, 3, 4)
SECONDS = {"esc10": 5.0, "digits": 1.0}  # of every recording, for the peer
VAL = 0.2  # of the training rows
SPEAKER = r"^\d_([a-z]+)_"
HEADSTART = str(Path(sys.executable).with_name("headstart"))
SIDES = ("headstart cold", "25 epochs")
SETTINGS = {"encoders": ENCODERS, "val": VAL, "seeds": "of esc10 and digits: validation rows; of speakers: the speaker"}
Pairs = list[tuple[str, str]]  # path and class


def rows(name: str, seed: int) -> dict[str, Pairs]:
    """The recordings to learn from and those to be judged on."""
    if name == "esc10":
        found = sorted((assets.folder() / "esc10").glob("*/*.ogg"))
        pairs = [(str(path), path.parent.name.partition(" - ")[2]) for path in found]
        judged = [Path(path).name.startswith("2") for path, _ in pairs]
    else:
        found = sorted((assets.folder() / "fsdd" / "recordings").glob("*.wav"))
        pairs = [(str(path), path.name.partition("_")[0]) for path in found]
        parts = [path.stem.split("_") for path in found]
        speakers = sorted({speaker for _, speaker, _ in parts})
        unheard = speakers[seed % len(speakers)]
        judged = [int(take) < 5 if name == "digits" else speaker == unheard for _, speaker, take in parts]
    chosen = list(zip(pairs, judged, strict=True))
    return {"train": [pair for pair, test in chosen if not test], "test": [pair for pair, test in chosen if test]}


def settings(name: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """The rows of a set, and the settings of ``headstart`` for it; a folder is a toy, in windows of a second."""
    if name not in SETS:
        own = {"backbone": "benchmarks.encoders.yamnet", "epochs": 1, "force": True, "name": "toy", "seed": seed}
        return None, own | {"data": name}
    split: dict[str, Any] = {"val": VAL} | ({"group_by": SPEAKER} if name == "speakers" else {})
    return rows(name, seed), {"backbone": ENCODERS[name], "name": name, "seed": seed, "data": {"split": split}}


def fit(name: str, seed: int, strategy: str, folder: Path) -> dict[str, Any]:
    """One strategy on one set: accuracies, macro-F1, the stages with their verdicts, where the time went."""
    from headstart import experiment
    from headstart.workflows.fit import fit as train

    given, own = settings(name, seed)
    plan = "probe" if strategy == "baseline" else strategy
    if plan == "probe":
        own.pop("epochs", None)  # it has none
    settled = experiment.load(plan=plan, output_dir=str(folder / "runs"), baseline=strategy == "baseline", **own)
    run = train(settled, data=given)
    result = run.read("result.json")
    stages = [json.loads(file.read_text()) for file in sorted(run.path.glob("stages/*/result.json"))]
    facts = {
        "rows": {split: sum(of_class.values()) for split, of_class in run.read("data.json")["counts"].items()},
        "fit_seconds": round(result["seconds"], 2),
        "phases": {phase["name"]: round(phase["seconds"], 2) for phase in result["phases"]},
    }
    if strategy == "baseline":
        return {**facts, **baseline(run, settled, given)}
    told = {split: each for split, each in result["metrics"].items() if each}
    return {
        **facts,
        "accuracy": {split: each["accuracy"]["value"] for split, each in told.items()},
        "macro_f1": {split: each["macro_f1"]["value"] for split, each in told.items()},
        "best": result["best"],
        "precision": run.read("choices.json")["precision"],
        "stages": [transfer.stage_facts(stage) for stage in stages],
    }


def baseline(run: Any, settled: Any, given: Any) -> dict[str, Any]:
    """Logistic regression on log-mel statistics, its strength chosen on validation rows, judged on test rows."""
    import numpy as np
    from sklearn.metrics import f1_score

    from headstart.engine.baselines import audio
    from headstart.models import backbone
    from headstart.stages.solver import solve_path
    from headstart.workflows import materials

    spec = backbone.load(settled.backbone).spec
    found = materials.decode(materials.collect(settled, given), settled, spec, lambda event: None)
    splits = found.splits.present()
    seen = {
        name: np.stack([audio.statistics(found.stores[name][row], spec.rate) for row in range(len(each))])
        for name, each in splits.items()
    }
    labels = {name: each.labels for name, each in splits.items()}
    path = solve_path(seen["train"], labels["train"], seen["val"], labels["val"], len(found.splits.classes))
    weight, bias = path.weight.numpy(), path.bias.numpy()
    logits = {name: seen[name] @ weight.T + bias for name in ("val", "test") if name in splits}
    return {
        "accuracy": {name: transfer.right(each, labels[name]) for name, each in logits.items()},
        "macro_f1": {
            name: float(f1_score(labels[name], each.argmax(1), average="macro")) for name, each in logits.items()
        },
    }


def measure(name: str, seed: int, strategy: str) -> dict[str, Any]:
    """Run one strategy as a process of its own, in an empty folder, with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="headstart-sound-") as work:
        folder = Path(work)
        given = json.dumps([name, seed, strategy])
        command = [sys.executable, "-m", "benchmarks.sound", "--one", given, "--folder", work]
        costs = record.measured(command, log=folder / "log", env=environment(folder))
        return {**costs, **json.loads((folder / "answer.json").read_text())}


def environment(folder: Path) -> dict[str, str]:
    found = os.pathsep.join(filter(None, (str(assets.ROOT), os.environ.get("PYTHONPATH"))))  # of the encoders
    return {"HEADSTART_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": found}


def tables(name: str, folder: Path) -> Path:
    """The rows of a set as train.csv and val.csv, whose rows both sides are judged on."""
    folder.mkdir()
    for split, pairs in zip(("train", "val"), rows(name, 0).values(), strict=True):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label"), *pairs])
    return folder


def time(name: str, side: str) -> dict[str, Any]:
    """One side as a whole process, from an empty cache."""
    with tempfile.TemporaryDirectory(prefix="headstart-sound-") as work:
        folder = Path(work)
        data, answer = tables(name, folder / "data"), folder / "answer.json"
        if side == SIDES[1]:
            command = [sys.executable, "-m", "benchmarks.peers.sound_probe", "--data", str(data)]
            command += ["--encoder", ENCODERS[name], "--answer", str(answer), "--seconds", str(SECONDS[name])]
            costs = record.measured(command, log=folder / "log", env=environment(folder))
            return {**costs, **json.loads(answer.read_text())}
        command = [HEADSTART, "fit", str(data), "--plan", "probe", "--backbone", ENCODERS[name]]
        command += ["--output-dir", str(folder / "runs"), "--name", "probe", "data.split.test=0"]
        costs = record.measured(command, log=folder / "log", env=environment(folder))
        result = json.loads((folder / "runs" / "probe" / "result.json").read_text())
        assert (folder / "runs" / "probe" / "report.html").is_file(), "the report belongs to the time"
        return {
            **costs,
            "accuracy": {"val": result["metrics"]["val"]["accuracy"]["value"]},
            "phases": {phase["name"]: round(phase["seconds"], 3) for phase in result["phases"]},
        }


def run(chosen: argparse.Namespace) -> int:
    """Run what the results lack, seed by seed or pair by pair; a run that fails is told and left out."""
    results = record.Results(chosen.output, "sound", {"quick": True} if chosen.quick else SETTINGS)
    if chosen.pairs:
        sets = [name for name in chosen.sets if name != "speakers"]
        wanted = [
            {"set": name, "pair": pair, "side": side} for pair in range(chosen.pairs) for name in sets for side in SIDES
        ]
    else:
        names = {name: "toy" if chosen.quick else name for name in chosen.sets}
        wanted = [
            {"set": told, "seed": seed, "strategy": strategy, **({"source": name} if told != name else {})}
            for seed in chosen.seeds
            for name, told in names.items()
            for strategy in chosen.strategies
        ]
    failed = 0
    for key in wanted:
        source = key.pop("source", key["set"])
        if results.find(key):
            continue
        try:
            facts = time(source, key["side"]) if chosen.pairs else measure(source, key["seed"], key["strategy"])
        except RuntimeError as error:
            failed += 1
            print(f"{key} failed: {error}", file=sys.stderr, flush=True)
            continue
        results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts})
        told = "  ".join(f"{split} {value:.3f}" for split, value in facts["accuracy"].items())
        print(f"{' '.join(map(str, key.values()))}  {told}  {facts['seconds']:.1f} s", flush=True)
    return min(failed, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--pairs", type=int, default=0, help="times of the probe instead: so many of each side")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "sound.json")
    parser.add_argument("--quick", metavar="FOLDER", help="one seed on this folder, one epoch")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        facts = fit(*json.loads(chosen.one), chosen.folder)
        (chosen.folder / "answer.json").write_text(json.dumps(facts))
        return
    if chosen.quick:
        chosen.sets, chosen.seeds = [chosen.quick], [0]
    raise SystemExit(run(chosen))


if __name__ == "__main__":
    main()
