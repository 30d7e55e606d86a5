"""``demo``: the whole job on pictures drawn here and a backbone that ships, so that it needs no data and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from headstart.core.events import Event
from headstart.core.run import Run

SHAPES = ("circle", "cross", "ring", "square", "triangle")
PER_CLASS, SIZE = 80, 96


def demo(output_dir: Path, *, on_event: Callable[[Event], None] | None = None) -> Run:
    """Draw the pictures into ``output_dir/demo-pictures`` and fit on them.

    Raises:
        HeadstartError: as ``fit``.
    """
    from headstart.experiment import load
    from headstart.workflows.fit import fit

    folder = pictures(output_dir / "demo-pictures")
    experiment = load(
        data=str(folder), backbone="builtin/tiny", output_dir=str(output_dir), name="demo", offline=True, plan="gradual"
    )
    return fit(experiment, on_event=on_event)


def pictures(folder: Path) -> Path:
    """Class folders of shapes in random colours, sizes and places, so that neither colour nor place tells the class."""
    rng = np.random.default_rng(0)
    for name in SHAPES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(PER_CLASS):
            image = draw(name, rng)
            file = folder / name / f"{index:02d}.png"
            if not file.is_file():
                image.save(file)
    return folder


def draw(name: str, rng: np.random.Generator) -> Image.Image:
    """One shape on a noisy ground, (SIZE, SIZE) RGB."""
    ground = rng.integers(40, 216, 3) + rng.normal(0, 14, (SIZE, SIZE, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    colour: Any = tuple(int(value) for value in rng.integers(0, 256, 3))
    r = SIZE * rng.uniform(0.18, 0.36)
    x, y = rng.uniform(r + 1, SIZE - r - 1, 2)
    box = (x - r, y - r, x + r, y + r)
    match name:
        case "circle":
            pen.ellipse(box, fill=colour)
        case "ring":
            pen.ellipse(box, outline=colour, width=round(r / 3))
        case "square":
            pen.rectangle(box, fill=colour)
        case "triangle":
            pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
        case _:
            pen.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=colour)
            pen.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=colour)
    return image
