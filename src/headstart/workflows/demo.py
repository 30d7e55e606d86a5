"""``demo``: the whole job on pictures drawn here and a backbone that ships, so that it needs no data and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.core import storage
from headstart.core.events import Event
from headstart.core.run import Run

PATTERNS = ("checks", "dots", "rings", "stripes", "waves")
PER_CLASS, SIZE = 80, 96
# The backbone that ships has random weights, so its blocks need higher rates than the plans for pretrained ones.
PLAN = [
    {"probe": {}},
    {"thaw": {"name": "thaw-half", "blocks": 2, "epochs": 12, "lr": 3e-3, "views": 4}},
    {
        "thaw": {
            "name": "thaw-all",
            "blocks": "all",
            "epochs": 15,
            "lr": 3e-3,
            "layer_decay": 1.0,
            "augment": "flip",
        }
    },
]


def demo(output_dir: Path, *, on_event: Callable[[Event], None] | None = None) -> Run:
    """Draw the pictures into ``output_dir/demo-pictures`` and fit on them.

    Raises:
        HeadstartError: as ``fit``.
    """
    from headstart.experiment import load
    from headstart.workflows.fit import fit

    storage.insist_writable(output_dir, "--output-dir")
    folder = pictures(output_dir / "demo-pictures")
    experiment = load(
        data=str(folder), backbone="builtin/tiny", output_dir=str(output_dir), name="demo", offline=True, plan=PLAN
    )
    return fit(experiment, on_event=on_event)


def pictures(folder: Path) -> Path:
    """Class folders of patterns in random colours, scales and places, so that no single pixel tells the class."""
    rng = np.random.default_rng(0)
    for name in PATTERNS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(PER_CLASS):
            image = Image.fromarray(draw(name, rng))
            file = folder / name / f"{index:02d}.png"
            if not file.is_file():
                image.save(file)
    return folder


def draw(name: str, rng: np.random.Generator) -> np.ndarray:
    """One pattern in two colours with noise, (SIZE, SIZE, 3) uint8."""
    turn = rng.uniform(-0.3, 0.3)
    down, across = np.mgrid[:SIZE, :SIZE] - rng.uniform(0, SIZE, (2, 1, 1))
    y = 2 * np.pi / rng.uniform(12, 24) * (down * np.cos(turn) - across * np.sin(turn))
    x = 2 * np.pi / rng.uniform(12, 24) * (down * np.sin(turn) + across * np.cos(turn))
    wave = {
        "checks": np.sign(np.sin(x) * np.sin(y)),
        "dots": np.sign(np.cos(x) + np.cos(y) - 0.8),
        "rings": np.sin(np.hypot(x, y)),
        "stripes": np.sign(np.sin(x)),
        "waves": np.sin(y + 1.5 * np.sin(x)),
    }[name]
    dark, light = rng.integers(0, 120, 3), rng.integers(136, 256, 3)
    share = ((wave + 1) / 2)[..., None]
    pixels = dark * (1 - share) + light * share + rng.normal(0, 20, (SIZE, SIZE, 3))
    return pixels.clip(0, 255).astype(np.uint8)
