"""Memory and time of ``headstart fit --plan probe`` on many pictures: 1,000, 10,000 and 100,000.

    python -m benchmarks.scale                            # what benchmarks/results/scale.json lacks
    python -m benchmarks.scale --pictures 1000 10000      # without the largest
    python -m benchmarks.scale --quick --output …         # 100 and 200 pictures

The pictures are drawn here, 10 classes of JPEGs of 64 pixels in a folder for a while, no two alike; the network is
``builtin/tiny`` at 64 pixels, so that what is measured is everything around the network: reading, the audit with its
search for duplicates, caches, the head, the report. Memory beyond the model is the peak of the process less that of the
same command on 40 pictures, which holds Python, torch and the model too.

About 6 minutes on two cores, one of them for drawing.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import probe, record

SIDE, CLASSES = 64, 10
PICTURES = (1_000, 10_000, 100_000)
LEAST = 40  # pictures of the run that tells what the process takes without data
BACKBONE = "builtin/tiny"


def draw(folder: Path, count: int) -> None:
    """``count`` JPEGs, ``<class>/<number>.jpg``: a coarse random pattern each, with the colour of its class."""
    for label in range(CLASSES):
        (folder / f"class-{label}").mkdir(parents=True)

    def one(number: int) -> None:
        from PIL import Image

        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 200, (4, 4, 3)).astype(np.uint8)
        label = number % CLASSES
        coarse[..., label % 3] = np.minimum(255, coarse[..., label % 3] + np.uint8(5 * label + 5))
        out = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
        (folder / f"class-{label}" / f"{number}.jpg").write_bytes(out.getvalue())

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(count), chunksize=256))


def fit(folder: Path, work: Path) -> dict[str, Any]:
    """One run of the command from an empty cache: its costs, and where the time went."""
    output = work / "runs"
    command = [probe.HEADSTART, "fit", str(folder), "--plan", "probe", "--backbone", BACKBONE, "--seed", "0"]
    command += ["--output-dir", str(output), "--name", "scale", f"image_size={SIDE}"]
    env = {"HEADSTART_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
    costs = record.measured(command, log=work / "log", env=env, accepted=(0, 2))
    result = json.loads((output / "scale" / "result.json").read_text())
    assert (output / "scale" / "report.html").is_file(), "the report belongs to the time"
    files = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    return {
        **costs,
        "fit_seconds": round(result["seconds"], 3),
        "phases": {phase["name"]: round(phase["seconds"], 3) for phase in result["phases"]},
        "run_mb": round(files / 1e6, 2),
    }


def slope(few: tuple[float, float], many: tuple[float, float]) -> float:
    """Of the line through two (pictures, seconds) on logarithmic axes: 1 is linear, 2 quadratic."""
    return math.log(many[1] / few[1]) / math.log(many[0] / few[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="+", type=int, default=list(PICTURES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=record.RESULTS / "scale.json")
    parser.add_argument("--quick", action="store_true", help="100 and 200 pictures")
    chosen = parser.parse_args()
    counts = [LEAST, *((100, 200) if chosen.quick else chosen.pictures)]
    results = record.Results(chosen.output, "scale", {"backbone": BACKBONE, "image_size": SIDE, "classes": CLASSES})
    for round in range(chosen.rounds):
        for count in counts:
            key = {"pictures": count, "round": round}
            if results.find(key):
                continue
            with tempfile.TemporaryDirectory(prefix="headstart-scale-") as work:
                draw(Path(work) / "pictures", count)
                facts = fit(Path(work) / "pictures", Path(work))
            results.add(key, {"commit": record.commit(), "threads": record.threads(), **facts})
            print(f"{round} {count:7} {facts['seconds']:.1f} s  {facts['peak_rss_mb']:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
