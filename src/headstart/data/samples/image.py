"""Handwritten digits of 8x8 pixels, as scikit-learn brings them (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data.samples.base import divided

TITLE = "handwritten digits"
ABOUT = "scikit-learn's 8x8 pixels, written by 43 people"
BACKBONE = "builtin/image"
SETTINGS = {"image_size": 64, "augment": {"preset": "light", "flip": 0.0}}  # a mirrored digit is another sign
TEST = 100  # of each digit


def write(folder: Path) -> Path:
    """``<split>/<digit>/<number>.png`` under ``folder``; files that are there are not written again."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = (found.images * 15).round().clip(0, 255).astype(np.uint8)  # (N, 8, 8), 0 … 16 as they come
    for split, rows in divided(found.target.tolist(), TEST).items():
        for row in rows:
            file = folder / split / str(found.target[row]) / f"{row:04d}.png"
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pictures[row]).save(file)
    return folder
