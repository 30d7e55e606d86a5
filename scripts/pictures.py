"""Make the README's pictures anew from a run: `python scripts/pictures.py runs/photos` (needs Chromium).

The terminal is recorded by rich and the report photographed as it is, down to where rows would be shown. The run of
those there is `headstart fit pacs/cartoon --backbone torchvision/mobilenet_v2 --name photos image_size=128`, with
ImageNet weights.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops
from rich.console import Console
from rich.terminal_theme import MONOKAI

from headstart import results
from headstart.core.run import Run
from headstart.terminal import THEME

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
REPORT = (1280, 1900)  # the first page or so of the report, in pixels


def main(folder: str) -> None:
    """Of the run in ``folder``, which is named as it was written."""
    run = Run.open(folder)
    shown = Console(record=True, width=100, theme=THEME, highlight=False, emoji=False, force_terminal=True)
    results.show(run, shown)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as drawings:
        drawing = Path(drawings) / "terminal.svg"
        shown.save_svg(str(drawing), title="headstart fit", theme=MONOKAI)
        photograph(drawing, PICTURES / "terminal.png", (1240, 560))
    photograph(run.path.resolve() / "report.html", PICTURES / "report.png", REPORT)


def photograph(page: Path, picture: Path, size: tuple[int, int]) -> None:
    """A screenshot of a page, its empty border cut off, with few enough colours to stay small."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    window = f"--window-size={size[0]},{size[1]}"
    subprocess.run([*command, window, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
    image = Image.open(picture).convert("RGB")
    image = image.crop(ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox())
    image = image.quantize(128, dither=Image.Dither.NONE)
    image.save(picture, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
