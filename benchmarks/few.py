"""Sets with few labelled rows: 20 a class, or 500 in all, drawn by a seed; what judges them is never learned from.

Where a set has test rows of its own they are used, otherwise some are put aside; at most 1,000 of them. The rows to
learn from and those to choose by (the head's strength, the best epoch, the best stage) are drawn from the rest: of
``few`` as many of each, of ``500`` four fifths and one fifth. Smaller sets give what they have.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import assets, sound, text

MODALITY = {
    **dict.fromkeys(("digits", "usps", "hymenoptera", "cartoon"), "image"),
    **dict.fromkeys(("smsa", "sst2"), "text"),
    **dict.fromkeys(("speakers", "esc10"), "audio"),
}
SETS = tuple(MODALITY)
SIZES = ("few", "500")
PER_CLASS, IN_ALL, CHOOSING = 20, 500, 0.2
TESTED = 1000
CARTOON_TEST = 20  # of each class
Pairs = list[tuple[Any, str]]  # an item and its class


def sizes(name: str) -> tuple[str, ...]:
    """The fold of ESC-10 that is learned from has eight recordings a class: all of them are few."""
    return SIZES[:1] if name == "esc10" else SIZES


def rows(name: str, size: str, seed: int) -> dict[str, Pairs]:
    """``train``, ``val`` and ``test`` of a set: what ``headstart.fit`` takes."""
    rng = np.random.default_rng([seed, SETS.index(name)])
    learn, choose, test = pools(name, seed, rng)
    classes = sorted({label for _, label in learn})
    few = {"train": PER_CLASS, "val": PER_CLASS}
    if name == "esc10":
        few = {"train": 6, "val": 2}
    if size == "500":
        total = min(IN_ALL, len(learn) + (len(choose) if choose is not learn else 0))
        few = {"train": round((1 - CHOOSING) * total / len(classes)), "val": round(CHOOSING * total / len(classes))}
    train = drawn(learn, few["train"], rng)
    rest = [row for row in range(len(choose)) if choose is not learn or row not in set(train)]
    val = [rest[at] for at in drawn([choose[row] for row in rest], few["val"], rng)]
    tested = rng.permutation(len(test))[:TESTED].tolist()
    return {
        "train": [learn[row] for row in train],
        "val": [choose[row] for row in val],
        "test": [test[row] for row in sorted(tested)],
    }


def drawn(pairs: Sequence[tuple[Any, str]], per_class: int, rng: np.random.Generator) -> list[int]:
    """Row numbers of ``per_class`` rows of each class, in order; of a smaller class all."""
    found: list[int] = []
    for label in sorted({label for _, label in pairs}):
        found += rng.permutation([row for row, pair in enumerate(pairs) if pair[1] == label])[:per_class].tolist()
    return sorted(found)


def pools(name: str, seed: int, rng: np.random.Generator) -> tuple[Pairs, Pairs, Pairs]:
    """What may be learned from, chosen by (often the same) and judged on."""
    if name == "digits":
        from sklearn.datasets import load_digits

        found = load_digits()
        pairs = _numbered((found.images * 15).clip(0, 255).astype(np.uint8), found.target)
        order = rng.permutation(len(pairs)).tolist()
        learn = [pairs[row] for row in order[TESTED:]]
        return learn, learn, [pairs[row] for row in order[:TESTED]]
    if name == "usps":
        with np.load(assets.folder() / "digits" / "usps.npz") as stored:
            learn = _numbered(stored["x_train"], stored["y_train"])
            return learn, learn, _numbered(stored["x_test"], stored["y_test"])
    if name == "hymenoptera":
        learn, test = (_files(assets.folder() / "hymenoptera" / split) for split in ("train", "val"))
        return learn, learn, test
    if name == "cartoon":
        pairs = _files(assets.folder() / "pacs" / "cartoon")
        judged = set(drawn(pairs, CARTOON_TEST, rng))
        learn = [pair for row, pair in enumerate(pairs) if row not in judged]
        return learn, learn, [pairs[row] for row in sorted(judged)]
    if name in text.SETS:
        learn, test = (_sentences(name, split) for split in ("train", "test"))
        return learn, learn, test
    found = sound.rows(name, seed)
    if name == "esc10":
        return found["train"], found["train"], found["test"]
    speakers = sorted({_speaker(path) for path, _ in found["train"]})
    chooses = speakers[seed % len(speakers)]
    learn = [pair for pair in found["train"] if _speaker(pair[0]) != chooses]
    return learn, [pair for pair in found["train"] if _speaker(pair[0]) == chooses], found["test"]


def _numbered(pictures: np.ndarray, labels: np.ndarray) -> Pairs:
    return [(picture, str(label)) for picture, label in zip(pictures, labels, strict=True)]


def _files(folder: Path) -> Pairs:
    return [(str(path), path.parent.name) for path in sorted(folder.glob("*/*.*"))]


def _sentences(name: str, split: str) -> Pairs:
    stem = split if name == "sst2" else f"{split}_preprocess"
    with (Path(text.source(name)) / f"{stem}.tsv").open(newline="", encoding="utf-8") as file:
        return [(row[0], row[1]) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row[0].strip()]


def _speaker(path: str) -> str:
    return Path(path).stem.split("_")[1]
