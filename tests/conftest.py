"""What every test stands on: one thread, no network, no display, its own cache, and toys that can be told apart."""

from __future__ import annotations

import os
import tempfile

# Before any import of numpy, torch, matplotlib or the Hub's client: they read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"
os.environ["HEADSTART_CACHE"] = tempfile.mkdtemp(prefix="headstart-cache-")
os.environ.pop("NO_COLOR", None)
os.environ.pop("FORCE_COLOR", None)

import gc
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar", "diamond", "dots")
COLOURS = (
    (214, 69, 65),
    (65, 131, 215),
    (38, 166, 91),
    (245, 171, 53),
    (142, 68, 173),
    (54, 215, 183),
    (108, 122, 137),
    (219, 10, 91),
)


def pytest_collection_finish() -> None:
    """What is imported by now stays: no search for garbage has to go through half a million objects of torch."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["HEADSTART_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """A test that changed torch's threads must not change the next one; torch is not imported for this."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and weights; the test is skipped where there is none."""
    folder = Path(os.environ.get("HEADSTART_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data here (HEADSTART_SHARED_DATA names its folder)")
    return folder


def draw(shape: str, colour: tuple[int, int, int], size: int, rng: np.random.Generator) -> Image.Image:
    """One picture (size, size) RGB: a shape at a random place and scale on a noisy grey ground."""
    ground = rng.integers(90, 150) + rng.normal(0, 12, (size, size, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    r = size * rng.uniform(0.2, 0.32)
    x, y = rng.uniform(r + 1, size - r - 1, 2)
    box = (x - r, y - r, x + r, y + r)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    elif shape == "cross":
        pen.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=colour)
        pen.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=max(2, int(r / 3)))
    elif shape == "bar":
        pen.rectangle((x - r, y - r / 4, x + r, y + r / 4), fill=colour)
    elif shape == "diamond":
        pen.polygon([(x, y - r), (x - r, y), (x, y + r), (x + r, y)], fill=colour)
    else:
        for dx, dy in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)):
            cx, cy, q = x + dx * r, y + dy * r, r / 3
            pen.ellipse((cx - q, cy - q, cx + q, cy + q), fill=colour)
    return image


@pytest.fixture
def toy_photos(tmp_path: Path) -> Callable[..., Path]:
    """Draws class folders of shapes: ``toy_photos(classes=3, per_class=20, size=64)`` gives the folder.

    ``splits={"train": 20, "val": 8}`` draws ``train/<class>/…`` and ``val/<class>/…`` instead of ``<class>/…``.
    ``coloured=True`` gives every class its colour, so that even a small network separates them at once; False draws
    each shape in random colours. The same arguments draw the same bytes.
    """

    def make(
        classes: int = 3,
        per_class: int = 20,
        size: int = 64,
        *,
        splits: Mapping[str, int] | None = None,
        coloured: bool = True,
        seed: int = 0,
        folder: str | Path | None = None,
        suffix: str = ".png",
    ) -> Path:
        root = Path(folder) if folder is not None else tmp_path / "photos"
        rng = np.random.default_rng(seed)
        for split, count in (splits or {"": per_class}).items():
            for label in range(classes):
                place = root / split / SHAPES[label]
                place.mkdir(parents=True, exist_ok=True)
                for index in range(count):
                    colour = COLOURS[label] if coloured else COLOURS[int(rng.integers(len(COLOURS)))]
                    draw(SHAPES[label], colour, size, rng).save(place / f"{index:03d}{suffix}")
        return root

    return make
