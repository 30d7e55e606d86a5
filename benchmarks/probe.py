"""How long ``headstart fit DATA --plan probe`` takes as a whole command at 224 pixels: cold, and warm.

    python -m benchmarks.probe                     # 3 runs each of hymenoptera
    python -m benchmarks.probe --sets hymenoptera pacs --peer --pairs 3 --epochs-timed 3
    python -m benchmarks.probe --sets hymenoptera pacs --accuracy-seeds 5

Cold is a fresh cache folder: every picture is decoded and passes the network. Warm is the same command again, in
another output folder: features come from the cache. Start-up, report and saved model are counted in both. ``--peer``
sets the tutorial's loop (peers/tutorial_probe.py, 25 epochs) and its strongest form beside it, in turns.

``--epochs-timed E``: the tutorial runs in full in the first pair (``--whole 0``: in none); in the pairs after it E
epochs are timed, and the others are added at their mean (its epochs do equal work); the results mark such runs as
extrapolated.
``--accuracy-seeds S``: what both sides reach, over S seeds, each with other validation rows of pacs; Headstart tells
there how near it came to its limit, cold and warm.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import assets, record

HEADSTART = str(Path(sys.executable).with_name("headstart"))
SETS = ("hymenoptera", "pacs")
SIDES = ("headstart cold", "headstart warm")
PEERS: dict[str, list[str]] = {"tutorial": [], "tutorial, strong": ["--strong"]}
PEER_EPOCHS = 25
SEED = 0
SETTINGS = {"backbone": assets.MOBILENET, "image_size": 224, "seeds": "of pacs: the division into rows too"}
JUDGED = ("headstart", "tutorial, strong")  # the plain loop computes the same, but for batches, rates and rounding


def pictures(name: str, work: Path, seed: int = SEED) -> Path:
    """The folder of a set; ``pacs``: photo and cartoon together, 1,190 pictures of 7 classes, divided 7 : 3 by name, by
    every seed otherwise."""
    if name == "hymenoptera":
        return assets.folder() / name
    folder = work / f"pacs-{seed}"
    for style in ("photo", "cartoon"):
        for index, file in enumerate(sorted((assets.folder() / "pacs" / style).glob("*/*"))):
            split = "val" if (index + seed) % 10 in (3, 6, 9) else "train"
            target = folder / split / file.parent.name / f"{style}-{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder


def rows(folder: Path, path: Path) -> Path:
    """The list of rows that the peer reads."""
    classes = sorted(each.name for each in (folder / "train").iterdir() if each.is_dir())
    files = {split: sorted((folder / split).glob("*/[!.]*")) for split in ("train", "val")}
    splits = {split: [[str(file), file.parent.name] for file in found] for split, found in files.items()}
    path.write_text(json.dumps({"classes": classes, "splits": splits}))
    return path


def fit(folder: Path, cache: Path, work: Path, seed: int = SEED, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """One run of the command: its costs, its accuracy, and where the time went."""
    output = Path(tempfile.mkdtemp(dir=work))
    command = [HEADSTART, "fit", str(folder), "--plan", "probe", "--backbone", assets.MOBILENET]
    command += ["--weights", str(assets.weights()), "--output-dir", str(output), "--name", "probe", "--seed", str(seed)]
    command += ["data.split.test=0", *extra]  # the peer's rows: all that are not for validation train
    env = {"HEADSTART_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    costs = record.measured(command, log=work / "log", env=env)
    result = json.loads((output / "probe" / "result.json").read_text())
    stage = json.loads((output / "probe" / "stages" / "00-probe" / "result.json").read_text())
    assert (output / "probe" / "report.html").is_file(), "the report belongs to the time"
    return {
        **costs,
        "accuracy": {split: told["accuracy"]["value"] for split, told in result["metrics"].items() if told},
        "fit_seconds": round(result["seconds"], 3),
        "phases": {phase["name"]: round(phase["seconds"], 3) for phase in result["phases"]},
        **({"limit": stage["limit"]} if "limit" in stage else {}),
    }


def peer(folder: Path, work: Path, extra: list[str], seed: int = SEED, epochs: int = PEER_EPOCHS) -> dict[str, Any]:
    """One run of the tutorial's loop; of fewer epochs than its own, the time of all is extrapolated."""
    answer = work / "answer.json"
    listed = rows(folder, work / "rows.json")
    command = [sys.executable, "-m", "benchmarks.peers.tutorial_probe", "--rows", str(listed), "--answer", str(answer)]
    command += ["--weights", str(assets.weights()), "--seed", str(seed), "--epochs", str(epochs), *extra]
    costs = record.measured(command, log=work / "log", env={"PYTHONPATH": str(assets.ROOT)})
    facts = {**costs, **json.loads(answer.read_text())}
    return facts if epochs == PEER_EPOCHS else extrapolated(facts, PEER_EPOCHS)


def extrapolated(facts: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The same run as if it had taken ``epochs`` epochs: those that were left out at the mean of those that were timed.

    The first epoch is left out of the mean: the start is in it. What such a run reaches is not that of the whole, so it
    tells no accuracy.
    """
    timed = facts["epochs"]
    each = (timed[-1]["seconds"] - timed[0]["seconds"]) / (len(timed) - 1)
    told = {"epochs_timed": len(timed), "measured_seconds": facts["seconds"], "epoch_seconds": round(each, 3)}
    whole = round(facts["seconds"] + (epochs - len(timed)) * each, 3)
    left = {key: value for key, value in facts.items() if key not in ("accuracy", "last_accuracy", "cpu_seconds")}
    return {**left, "seconds": whole, "extrapolated": told}


def one_round(results: record.Results, name: str, pair: int, sides: list[str], timed: int, whole: int) -> None:
    """Every side once, after the other; warm follows cold, whose cache it needs."""
    with tempfile.TemporaryDirectory(prefix="headstart-probe-") as folder:
        work = Path(folder)
        data = pictures(name, work)
        for side in sides:
            key = {"set": name, "pair": pair, "side": side}
            done = [results.find({**key, "side": each}) is not None for each in (SIDES if side in SIDES else [side])]
            if all(done):
                continue
            if side in PEERS:
                epochs = timed if pair >= whole else PEER_EPOCHS
                facts = peer(data, work, PEERS[side], epochs=epochs)
            else:
                facts = fit(data, work / "cache", work)
            keep(results, key, facts)


def judge(results: record.Results, name: str, seeds: int) -> None:
    """What both sides reach, seed after seed; Headstart runs twice, cold and warm, for its share of the limit."""
    for seed in range(seeds):
        with tempfile.TemporaryDirectory(prefix="headstart-probe-") as folder:
            work = Path(folder)
            data = pictures(name, work, seed)
            for side in JUDGED:
                key = {"set": name, "seed": seed, "side": side}
                if results.find(key):
                    continue
                if side == "headstart":
                    cold, warm = (fit(data, work / "cache", work, seed, ("limits=true",)) for _ in range(2))
                    keep(results, key, {**cold, "warm_limit": warm["limit"]})
                else:
                    keep(results, key, peer(data, work, PEERS[side], seed))


def keep(results: record.Results, key: dict[str, Any], facts: dict[str, Any]) -> None:
    results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts})
    number = key.get("pair", key.get("seed"))
    print(
        f"{number} {key['set']:12} {key['side']:17} {facts['seconds']:.2f} s  {facts.get('accuracy', '')}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["hymenoptera"], choices=SETS)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="the tutorial's loop too: minutes a run")
    parser.add_argument("--epochs-timed", type=int, default=PEER_EPOCHS, help="of the tutorial after its whole runs")
    parser.add_argument("--whole", type=int, default=1, help="pairs in which the tutorial runs in full")
    parser.add_argument("--accuracy-seeds", type=int, default=0, help="accuracies over so many seeds, instead of times")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "probe.json")
    chosen = parser.parse_args()
    if not 2 <= chosen.epochs_timed <= PEER_EPOCHS:
        parser.error(f"--epochs-timed is 2 to {PEER_EPOCHS}")
    results = record.Results(chosen.output, "probe", SETTINGS)
    if chosen.accuracy_seeds:
        for name in chosen.sets:
            judge(results, name, chosen.accuracy_seeds)
        return
    for pair in range(chosen.pairs):
        for name in chosen.sets:
            one_round(results, name, pair, [*SIDES, *(PEERS if chosen.peer else [])], chosen.epochs_timed, chosen.whole)


if __name__ == "__main__":
    main()
