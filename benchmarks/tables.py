"""Write the tables of benchmarks/README.md and README.md from benchmarks/results: no number is typed by hand.

python -m benchmarks.tables            # fill what stands between <!-- table:NAME --> and <!-- /table -->
python -m benchmarks.tables --check    # say whether the pages and the results agree
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import assets, deployed, encoded, record, speed, start, transfer
from benchmarks.texts import busy, chosen, gain_text, judged, machines, markdown, mean_text, seconds_text, share

PAGES = (assets.ROOT / "README.md", assets.ROOT / "benchmarks" / "README.md")
MARKED = re.compile(r"(<!-- table:([\w-]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)
COLUMNS = {
    "baseline": "baseline",
    "probe": "probe",
    "gradual": "gradual",
    "full": "full",
    "scratch": "scratch",
    "fastai": "fastai `fine_tune`",
}
SETS = {
    "hymenoptera": "hymenoptera",
    "photo": "PACS photo",
    "cartoon": "PACS cartoon",
    "mnist": "MNIST, 1,000 rows",
}


def transfer_table(results: dict[str, Any]) -> str:
    """Accuracy (mean and interval over seeds) and seconds, a row for each set."""
    seeds = len({run["key"]["seed"] for run in results["runs"]})
    present = [name for name in COLUMNS if chosen(results, strategy=name)]
    rows = []
    for name, title in SETS.items():
        line = [title]
        for strategy in present:
            runs = chosen(results, set=name, strategy=strategy)
            cell = "–"
            if runs:
                few = f" ({len(runs)} seed{'s' * (len(runs) > 1)})" if len(runs) < seeds else ""
                seconds = seconds_text([run["seconds"] for run in runs])
                cell = f"{mean_text([judged(run) for run in runs])}{few}<br>{seconds}"
            line.append(cell)
        rows.append(line)
    text = markdown(["accuracy, time", *(COLUMNS[name] for name in present)], rows)
    sizes = ", ".join(f"{title} {transfer.SIZES[name]} px" for name, title in SETS.items())
    over = f"Mean and 95 % interval (Student's t) over {seeds} seed{'s' * (seeds != 1)}"
    spent = "median seconds of a whole process: start, decoding, training, report"
    return f"{text}\n{over}; {spent}. {sizes}. {busy(results['runs'])} {machines(results)}\n"


def gain_table(results: dict[str, Any]) -> str:
    """What a strategy gains over another, paired by seed."""
    pairs = (
        ("probe", "scratch"),
        ("gradual", "probe"),
        ("gradual", "scratch"),
        ("gradual", "fastai"),
        ("full", "fastai"),
    )
    rows = []
    for name, title in SETS.items():
        line = [title]
        for ours, theirs in pairs:
            left = {run["key"]["seed"]: judged(run) for run in chosen(results, set=name, strategy=ours)}
            right = {run["key"]["seed"]: judged(run) for run in chosen(results, set=name, strategy=theirs)}
            gains = [left[seed] - right[seed] for seed in left if seed in right]
            line.append(gain_text(gains))
        rows.append(line)
    return markdown(["difference", *(f"{ours} − {theirs}" for ours, theirs in pairs)], rows)


def plans_table(results: dict[str, Any]) -> str:
    """For each candidate the accuracy of its last stage, and its seconds, by set."""
    sets = [name for name in SETS if chosen(results, set=name)]
    rows = []
    for name in dict.fromkeys(run["key"]["candidate"] for run in results["runs"]):
        line = [f"`{name}`"]
        for where in sets:
            runs = chosen(results, set=where, candidate=name)
            if not runs:
                line.append("–")
                continue
            best = [max(stage["accuracy"] for stage in run["stages"]) for run in runs]
            each = ", ".join(share(statistics.fmean(told)) for told in zip(*map(accuracies, runs), strict=True))
            line.append(f"{share(statistics.fmean(best))} ({each}) {seconds_text([run['seconds'] for run in runs])}")
        rows.append(line)
    return markdown(["candidate", *(SETS[name] for name in sets)], rows) + f"\n{machines(results)}\n"


def accuracies(run: dict[str, Any]) -> list[float]:
    return [stage["accuracy"] for stage in run["stages"]]


def assets_table(_results: dict[str, Any]) -> str:
    """Origins and hashes."""
    rows = [[f"`{each.path}`", each.what, each.origin, f"`{each.sha256[:16]}…`"] for each in assets.ASSETS.values()]
    return markdown(["path", "what", "origin", "SHA-256"], rows)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "assets": ("", assets_table),
    "transfer": ("transfer.json", transfer_table),
    "gains": ("transfer.json", gain_table),
    "plans": ("plans.json", plans_table),
    "probe": ("probe.json", speed.probe_table),
    "probe-accuracy": ("probe.json", speed.accuracy_table),
    "gradual": ("gradual.json", speed.gradual_table),
    "probe-avx512": ("avx512/probe.json", speed.probe_table),
    "probe-accuracy-avx512": ("avx512/probe.json", speed.accuracy_table),
    "gradual-avx512": ("avx512/gradual.json", speed.gradual_table),
    "text-speed-avx512": ("avx512/text.json", encoded.text_speed_table),
    "sound-speed-avx512": ("avx512/sound.json", encoded.sound_speed_table),
    "probe-avx2": ("avx2/probe.json", speed.probe_table),
    "gradual-fp32": ("fp32/gradual.json", speed.gradual_table),
    "text-speed-fp32": ("fp32/text.json", encoded.text_speed_table),
    "frontier": ("frontier.json", speed.frontier_table),
    "scale": ("scale.json", speed.scale_table),
    "deploy": ("deploy.json", deployed.deploy_table),
    "deploy-losses": ("deploy.json", deployed.deploy_losses),
    "text": ("text.json", encoded.text_table),
    "text-gains": ("text.json", encoded.text_gains),
    "text-speed": ("text.json", encoded.text_speed_table),
    "sound": ("sound.json", encoded.sound_table),
    "sound-gains": ("sound.json", encoded.sound_gains),
    "sound-speed": ("sound.json", encoded.sound_speed_table),
    "builtin-few": ("builtin.json", start.few_table),
    "builtin-500": ("builtin.json", start.many_table),
    "builtin-gains": ("builtin.json", start.gains_table),
}


def table(name: str, folder: Path) -> str:
    """The text of one table, or a line that says that it was not measured yet."""
    file, make = TABLES[name]
    if not file:
        return make({})
    if not (folder / file).is_file():
        return "Not measured yet.\n"
    return make(json.loads((folder / file).read_text(encoding="utf-8")))


def filled(text: str, folder: Path = record.RESULTS) -> str:
    """A page with its tables written anew.

    Raises:
        KeyError: a marker names no table.
    """
    return MARKED.sub(lambda found: f"{found[1]}{table(found[2], folder)}{found[4]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is old")
    options = parser.parse_args()
    old = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        wanted = filled(text)
        if wanted != text and options.check:
            old.append(page.name)
        elif wanted != text:
            page.write_text(wanted, encoding="utf-8")
    if old:
        raise SystemExit(f"not what the results give: {', '.join(old)}; run python -m benchmarks.tables")


if __name__ == "__main__":
    main()
