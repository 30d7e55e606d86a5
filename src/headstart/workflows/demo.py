"""``demo``: the whole job on what is already here: handwritten digits of scikit-learn and a built-in backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from headstart.core.errors import MissingExtra
from headstart.core.events import Event
from headstart.core.run import Run

ROWS = 600  # of the 1,797 digits: small enough for a demonstration
BACKBONE = "builtin/tiny"


def digits(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits (N, 8, 8) uint8 with their names: the UCI test set that scikit-learn carries.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "train", "the demonstration") from error
    data = load_digits()
    chosen = np.random.default_rng(0).permutation(len(data.images))[:rows]
    pictures = (data.images[chosen] * (255 / 16)).round().astype(np.uint8)
    return pictures, data.target[chosen].astype(str)


def demo(output_dir: Path, *, on_event: Callable[[Event], None] | None = None) -> Run:
    """Fit the demonstration and leave its run in ``output_dir``."""
    from headstart.experiment import load
    from headstart.workflows.fit import fit

    experiment = load(
        None,
        data={"split": {"val": 0.25, "test": 0.25}},
        backbone=BACKBONE,
        plan="gradual",
        name="demo",
        output_dir=str(output_dir),
        offline=True,
    )
    return fit(experiment, data=digits(), on_event=on_event)
