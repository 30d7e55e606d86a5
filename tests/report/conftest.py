"""A made-up run folder, complete and plausible, written as the engine writes it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headstart.core import manifest
from headstart.core.events import Decision, EpochDone, Event, Notice, Phase, StageDone, StageStarted
from headstart.core.run import Run
from headstart.measure.calibration import fit_temperature
from headstart.measure.evaluation import Evaluation

PETS = ("abyssinian", "beagle", "bengal", "boxer", "maine coon", "pug", "samoyed")
STAGES = ("probe", "thaw-quarter", "thaw-half", "thaw-all")
SKILL = {"majority": 0.0, "pixels": 0.6, "probe": 2.6, "thaw-quarter": 3.1, "thaw-half": 3.6, "thaw-all": 3.35}
SECONDS = {"probe": 6.4, "thaw-quarter": 41.0, "thaw-half": 77.5, "thaw-all": 128.2}


def evaluation(split: str, n: int, classes: Sequence[str], skill: float, seed: int) -> Evaluation:
    """Answers that get better with ``skill``; neighbouring classes are confused more often."""
    k, shared, own = len(classes), np.random.default_rng(n), np.random.default_rng(seed)
    labels = np.sort(np.arange(n) % k)
    noise = shared.normal(size=(n, k)) + 0.35 * own.normal(size=(n, k))
    near = np.eye(k)[labels] + 0.55 * np.eye(k)[(labels + 1) % k] * (labels % 2 == 0)[:, None]
    return Evaluation(split, np.arange(n), 3.6 * (noise + skill * near), labels, tuple(classes))


def picture(row: int, size: int = 160) -> Image.Image:
    """A small landscape, different for every row."""
    rng = np.random.default_rng(row)
    sky, ground, sun = (tuple(int(c) for c in rng.integers(*span, 3)) for span in ((90, 220), (30, 140), (180, 255)))
    image = Image.new("RGB", (size, size), sky)
    pen = ImageDraw.Draw(image)
    x, y, r = rng.uniform(0.2, 0.8) * size, rng.uniform(0.15, 0.5) * size, rng.uniform(0.08, 0.2) * size
    pen.ellipse((x - r, y - r, x + r, y + r), fill=sun)
    hills = [(0, size), *[(i * size / 8, size * (0.6 + 0.12 * rng.normal())) for i in range(9)], (size, size)]
    pen.polygon(hills, fill=ground)
    return image


def layers(stage: int) -> list[dict[str, Any]]:
    """Stem, eight blocks and a head; the last 2 * stage blocks train."""
    names = ["stem", *(f"layer{i // 2 + 1}.{i % 2}" for i in range(8)), "head"]
    found = []
    for depth, name in enumerate(names):
        head, trains = depth == 9, depth == 9 or depth > 8 - (0, 2, 4, 9)[stage]
        lr = None if not trains or stage == 0 else (3e-3 if head else 3e-4 / stage * 0.75 ** (8 - depth))
        params = 3591 if head else 9536 * 2 ** (depth // 2)
        trained = params if trains else 0
        found.append(
            {"name": name, "depth": depth, "params": params, "trainable": trained, "lr": lr, "frozen": not trains}
        )
    return found


def write_stage(
    run: Run, index: int, name: str, title: str, classes: Sequence[str], n_val: int, previous: Evaluation | None
) -> Evaluation:
    answers = evaluation("val", n_val, classes, SKILL[name], seed=index)
    difference = None if previous is None else answers.compare(previous)
    keep = difference is None or difference.value > 0
    reason = (
        "the first stage" if difference is None else ("clearly better" if keep else "not better") + f": {difference}"
    )
    verdict = {
        "decision": "keep" if keep else "revert",
        "reason": reason,
        "metric": "accuracy",
        "difference": None if difference is None else difference.as_json(),
        "incumbent": None if index == 0 else STAGES[index - 1],
    }
    solved = name == "probe"
    result: dict[str, Any] = {
        "index": index,
        "name": title,
        "method": "probe" if solved else "thaw",
        "settings": {"views": 1}
        if solved
        else {"blocks": 2 * index, "epochs": 6, "lr": 3e-4 / index, "augment": "standard"},
        "trainable": sum(layer["trainable"] for layer in layers(index)),
        "parameters": 11_180_103,
        "frozen_blocks": 8 - (0, 2, 4, 8)[index],
        "blocks": 8,
        "updates": 0 if solved else 168,
        "epochs": 0 if solved else 6,
        "seconds": SECONDS[name],
        "metrics": {"val": {key: measured.as_json() for key, measured in answers.metrics().items()}},
        "verdict": verdict,
        "cache": {"used": True, "reason": "blocks 0-5 are frozen; 84 MB fit the budget"} if 0 < index < 3 else None,
        "layers": layers(index),
    }
    if solved:
        strengths = np.geomspace(1e-4, 1e3, 20)
        scores = 0.45 + 0.09 * (np.log10(strengths) - 0.4) ** 2
        result["probe"] = {"strengths": strengths.tolist(), "scores": scores.tolist(), "chosen": int(scores.argmin())}
    folder = run.stage_folder(index, name)
    manifest.write_json(folder / "result.json", result)
    answers.save(folder / "predictions.npz")
    manifest.seal(folder)
    run.record(StageDone(index, title, SECONDS[name], verdict["decision"], reason, result["metrics"]["val"]))
    return answers if keep or previous is None else previous


def record_epochs(run: Run, index: int, name: str) -> None:
    rng = np.random.default_rng(index)
    for epoch in range(6):
        loss = 0.9 / index * 0.72**epoch + 0.12
        metric = min(0.97, SKILL[name] / 4 - 0.05 * 0.6**epoch + 0.004 * rng.normal())
        lr = 3e-3 / index * (1 - epoch / 6) + 1e-6
        val_loss = loss * 1.1 + 0.05 + 0.01 * epoch
        run.record(
            EpochDone(
                index,
                epoch + 1,
                6,
                28 * (epoch + 1),
                loss,
                val_loss,
                {"accuracy": metric},
                lr,
                SECONDS[name] / 6.5,
                True,
            )
        )


def make_run(
    folder: Path,
    *,
    classes: Sequence[str] = PETS,
    n_val: int = 420,
    n_test: int = 560,
    baseline: bool = True,
    finished: bool = True,
    stages: int = 4,
    names: Callable[[str, int], str] = lambda split, row: f"{split}/{row:04d}.jpg",
    findings: Sequence[dict[str, Any]] | None = None,
    note: str = "train/ and val/ were given; test/ was split off",
    titles: Sequence[str] = STAGES,
) -> Run:
    """Write a run of ``gradual``; ``n_test=0`` leaves the test split out, ``finished=False`` the result."""
    run, k = Run(folder), len(classes)
    folder.mkdir(parents=True)
    counts = {"train": 3 * n_val, "val": n_val, "test": n_test}
    plan = [{name.split("-")[0]: {}} for name in STAGES]
    experiment = {
        "data": {"source": "photos/"},
        "backbone": "torchvision/resnet18",
        "plan": plan,
        "seed": 42,
        "metric": "accuracy",
    }
    manifest.write_text(folder / "experiment.yaml", json.dumps(experiment, indent=2))
    packages = {"headstart": "0.1.0", "torch": "2.15.0", "torchvision": "0.30.0", "numpy": "2.3.1"}
    machine = {"python": "3.11.2", "platform": "Linux x86_64", "cpu": "8 x Example CPU", "threads": 2, "device": "cpu"}
    run.write("environment.json", {**machine, "packages": packages})
    run.write("rows.json", {split: [names(split, row) for row in range(n)] for split, n in counts.items() if n})
    run.write(
        "data.json",
        {
            "source": "photos/",
            "modality": "image",
            "classes": list(classes),
            "counts": {s: {c: n // k + (i < n % k) for i, c in enumerate(classes)} for s, n in counts.items() if n},
            "fingerprint": "5f1c" * 16,
            "notes": [note],
            "audit": {"checked": sum(counts.values()), "findings": list(findings or default_findings(names))},
        },
    )
    first: list[Event] = [
        Phase("audit", 2.1),
        Phase("decode", 5.8),
        Decision("backbone", "torchvision/resnet18", "it is on this machine", {"candidates": 3}),
        Decision("plan", "gradual", f"{counts['train']:,} training pictures, near to ImageNet", {"similarity": 0.83}),
        Notice("warning", "normalisation", "another normalisation scores 2 points better on the probe", "try mean=0.5"),
    ]
    for event in first:
        run.record(event)
    if baseline:
        results = []
        for name in ("majority", "pixels"):
            answers = evaluation("val", n_val, classes, SKILL[name], 9)
            answers.save(folder / "baseline" / f"{name}.npz")
            measured = answers.metrics()
            results.append({"name": name, "seconds": 0.8, "metrics": {m: v.as_json() for m, v in measured.items()}})
        run.write("baseline/result.json", results)
    best: Evaluation | None = None
    for index, name in enumerate(STAGES[:stages]):
        run.record(
            StageStarted(
                index, titles[index], "thaw" if index else "probe", "…", 6 if index else 0, 168 if index else 0
            )
        )
        if index:
            record_epochs(run, index, name)
        best = write_stage(run, index, name, titles[index], classes, n_val, best)
    if not finished:
        run.record(StageStarted(stages, STAGES[min(stages, 3)], "thaw", "…", 6, 168))
        return run
    assert best is not None
    write_result(run, best, classes, n_test, titles[2])
    return run


def default_findings(names: Callable[[str, int], str]) -> list[dict[str, Any]]:
    def finding(kind: str, severity: str, split: str, rows: list[int], message: str, remedy: str) -> dict[str, Any]:
        shown = [names(split, row) for row in rows]
        return {
            "kind": kind,
            "severity": severity,
            "split": split,
            "rows": rows,
            "names": shown,
            "message": message,
            "remedy": remedy,
        }

    return [
        finding(
            "near_duplicates",
            "warning",
            "train",
            [3, 18, 40],
            "3 pictures nearly equal others",
            "they were kept in one split",
        ),
        finding("unreadable", "warning", "train", [77], "1 file is cut off and was left out", "replace or delete it"),
        finding("orientation", "info", "val", [5, 6], "2 pictures carry a rotation mark; it is applied", ""),
    ]


def write_result(run: Run, best: Evaluation, classes: Sequence[str], n_test: int, title: str) -> None:
    test = evaluation("test", n_test, classes, SKILL["thaw-half"], 77) if n_test else None
    shown = test or best
    if test is not None:
        test.save(run.path / "predictions-test.npz")
    phases = [("audit", 2.1), ("decode", 5.8), ("baseline", 1.6), *SECONDS.items(), ("test", 1.9), ("report", 0.3)]
    run.write(
        "result.json",
        {
            "best": title,
            "metrics": {
                "val": {m: v.as_json() for m, v in best.metrics().items()},
                "test": {m: v.as_json() for m, v in test.metrics().items()} if test else None,
            },
            "temperature": fit_temperature(best.logits, best.labels),
            "seconds": 265.8,
            "phases": [{"name": name, "seconds": seconds} for name, seconds in phases],
            "test_reads": 1 if test else 0,
            "optimistic": test is None,
        },
    )
    (run.path / "previews").mkdir()
    for row in shown.worst(12):
        picture(int(row)).save(run.path / "previews" / f"{shown.split}-{row}.jpg", quality=80)
    for row in range(4):
        buffer = io.BytesIO()
        picture(1000 + row, 224).save(buffer, "PNG")
        (run.path / "previews" / f"network-{row}.png").write_bytes(buffer.getvalue())


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Run]:
    """``make(**options)`` writes a run folder, see ``make_run``."""
    made = iter(range(100))
    return lambda **options: make_run(tmp_path / str(next(made)) / "photos", **options)
