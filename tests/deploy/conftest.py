"""One exported run that the tests of this folder look at."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.core.run import Run
from headstart.workflows import ship
from headstart.workflows.judging import Judge
from headstart.workflows.predict import load

from .. import words

QUICK = ship.Settings(threads=1, seconds=0.05)
CLASSES = ("dark", "red", "stripes")


def draw(folder: Path, per_class: int, seed: int = 0, size: int = 32) -> Path:
    """Noisy pictures of three kinds that any network tells apart, in a folder a class."""
    rng = np.random.default_rng(seed)
    for index, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            values = rng.integers(90, 160, (size, size, 3)).astype(np.float64)
            values[...] -= 70 * (index == 0)
            values[..., 0] += 90 * (index == 1)
            values[:, ::4] += 90 * (index == 2)
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:03d}.png")
    return folder


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a flush guards against, a power cut, no test can see."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe of builtin/tiny on drawn pictures."""
    folder = tmp_path_factory.mktemp("toy")
    return headstart.fit(
        str(draw(folder / "photos", 24)),
        plan="probe",
        backbone="builtin/tiny",
        image_size=32,
        output_dir=str(folder / "runs"),
        device="cpu",
        precision="fp32",
        baseline=False,
        normalisation_check=False,
        force=True,
        on_event=lambda event: None,
    )


@pytest.fixture(scope="session")
def exported(toy_run: Run) -> Path:
    """Its export."""
    return ship.export(toy_run, settings=QUICK)


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT in a folder."""
    return words.network(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="session")
def text_run(reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe of it on reviews, with its export."""
    place = tmp_path_factory.mktemp("texts")
    texts, labels = words.reviews(150, seed=2)
    lines = [f"{one}\t{label}" for one, label in zip(texts, labels, strict=True)]
    (place / "reviews.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    own = {"device": "cpu", "precision": "fp32", "force": True, "baseline": False, "on_event": lambda event: None}
    fitted = headstart.fit(
        str(place / "reviews.tsv"), backbone=str(reader), plan="probe", output_dir=str(place / "runs"), **own
    )
    ship.export(fitted, settings=QUICK)
    return fitted


@pytest.fixture
def judge(toy_run: Run, exported: Path, tmp_path: Path) -> Judge:
    """The judge of that export, in a copy of its folder that may be changed."""
    place = tmp_path / "export"
    shutil.copytree(exported, place)
    model = load(toy_run).model
    decoded = ship.rows_of(toy_run, model, None, lambda event: None)
    return ship._judge(toy_run, model, decoded, place, QUICK, lambda event: None)
