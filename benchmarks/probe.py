"""How long ``headstart fit DATA --plan probe`` takes as a whole command at 224 pixels: cold, and warm.

    python -m benchmarks.probe                     # 3 runs each of hymenoptera
    python -m benchmarks.probe --sets hymenoptera pacs --peer --pairs 3

Cold is a fresh cache folder: every picture is decoded and passes the network. Warm is the same command again, in
another output folder: features come from the cache. Start-up, report and saved model are counted in both. ``--peer``
sets the tutorial's loop (peers/tutorial_probe.py, 25 epochs) and its strongest form beside it, in turns.
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
SEED = 0


def pictures(name: str, work: Path) -> Path:
    """The folder of a set; ``pacs``: photo and cartoon together, 1,190 pictures of 7 classes, divided 7 : 3 by name."""
    if name == "hymenoptera":
        return assets.folder() / name
    for style in ("photo", "cartoon"):
        for index, file in enumerate(sorted((assets.folder() / "pacs" / style).glob("*/*"))):
            split = "val" if index % 10 in (3, 6, 9) else "train"
            target = work / "pacs" / split / file.parent.name / f"{style}-{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return work / "pacs"


def rows(folder: Path, path: Path) -> Path:
    """The list of rows that the peer reads."""
    classes = sorted(each.name for each in (folder / "train").iterdir() if each.is_dir())
    files = {split: sorted((folder / split).glob("*/[!.]*")) for split in ("train", "val")}
    splits = {split: [[str(file), file.parent.name] for file in found] for split, found in files.items()}
    path.write_text(json.dumps({"classes": classes, "splits": splits}))
    return path


def fit(folder: Path, cache: Path, work: Path) -> dict[str, Any]:
    """One run of the command: its costs, its accuracy, and where the time went."""
    output = Path(tempfile.mkdtemp(dir=work))
    command = [HEADSTART, "fit", str(folder), "--plan", "probe", "--backbone", assets.MOBILENET]
    command += ["--weights", str(assets.weights()), "--output-dir", str(output), "--name", "probe", "--seed", str(SEED)]
    command.append("data.split.test=0")  # the peer's rows: all that are not for validation train
    env = {"HEADSTART_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    costs = record.measured(command, log=work / "log", env=env)
    result = json.loads((output / "probe" / "result.json").read_text())
    assert (output / "probe" / "report.html").is_file(), "the report belongs to the time"
    return {
        **costs,
        "accuracy": {split: told["accuracy"]["value"] for split, told in result["metrics"].items() if told},
        "fit_seconds": round(result["seconds"], 3),
        "phases": {phase["name"]: round(phase["seconds"], 3) for phase in result["phases"]},
    }


def peer(folder: Path, work: Path, extra: list[str]) -> dict[str, Any]:
    """One run of the tutorial's loop."""
    answer = work / "answer.json"
    listed = rows(folder, work / "rows.json")
    command = [sys.executable, "-m", "benchmarks.peers.tutorial_probe", "--rows", str(listed), "--answer", str(answer)]
    command += ["--weights", str(assets.weights()), "--seed", str(SEED), *extra]
    costs = record.measured(command, log=work / "log", env={"PYTHONPATH": str(assets.ROOT)})
    return {**costs, **json.loads(answer.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["hymenoptera"], choices=SETS)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="the tutorial's loop too: minutes a run")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "probe.json")
    chosen = parser.parse_args()
    results = record.Results(chosen.output, "probe", {"backbone": assets.MOBILENET, "image_size": 224})
    for pair in range(chosen.pairs):
        for name in chosen.sets:
            one_round(results, name, pair, [*SIDES, *(PEERS if chosen.peer else [])])


def one_round(results: record.Results, name: str, pair: int, sides: list[str]) -> None:
    """Every side once, after the other; warm follows cold, whose cache it needs."""
    with tempfile.TemporaryDirectory(prefix="headstart-probe-") as folder:
        work = Path(folder)
        data = pictures(name, work)
        for side in sides:
            key = {"set": name, "pair": pair, "side": side}
            done = [results.find({**key, "side": each}) is not None for each in (SIDES if side in SIDES else [side])]
            if all(done):
                continue
            facts = peer(data, work, PEERS[side]) if side in PEERS else fit(data, work / "cache", work)
            results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts})
            print(f"{pair} {name:12} {side:17} {facts['seconds']:.2f} s  {facts['accuracy']}", flush=True)


if __name__ == "__main__":
    main()
