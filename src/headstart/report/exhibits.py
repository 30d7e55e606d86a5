"""One row of the user's shown in the page: a picture, a text, or a sound with its waveform and a player.

Everything lies inside the page as text, escaped; nothing is fetched. Shapes: T samples.
"""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape

from headstart.report.formats import clean

SUFFIXES = (".jpg", ".png", ".txt", ".wav")
COLUMNS, HEIGHT = 120, 48  # of a drawn waveform
_PICTURES = {".jpg": "jpeg", ".png": "png"}


def exhibit(path: Path, alternative: str = "") -> Markup:
    """The content of a preview file as HTML; ``alternative`` describes it to those who cannot see it.

    What cannot be read is shown as nothing.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".txt":
            return Markup('<span class="text">{}</span>').format(clean(content.decode("utf-8", errors="replace")))
        if path.suffix == ".wav":
            return _sound(content)
    except (OSError, EOFError, wave.Error, ValueError):
        return Markup("")
    source = f"data:image/{_PICTURES[path.suffix]};base64,{base64.b64encode(content).decode()}"
    return Markup('<img src="{}" alt="{}" loading="lazy">').format(source, escape(alternative))


def _sound(content: bytes) -> Markup:
    """The loudest and softest sample of every column as a drawing, above a player."""
    with wave.open(io.BytesIO(content)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float64)
        seconds = file.getnframes() / file.getframerate()
    parts = [part for part in np.array_split(samples, COLUMNS) if len(part)]
    peak = max(1.0, float(np.abs(samples).max())) if len(samples) else 1.0
    middle = HEIGHT / 2
    tops = [f"{x},{middle - middle * part.max() / peak:.1f}" for x, part in enumerate(parts)]
    bottoms = [f"{x},{middle - middle * part.min() / peak:.1f}" for x, part in enumerate(parts)]
    drawing = Markup(
        '<svg class="wave" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="waveform of {} seconds"><polygon points="{}"/></svg>'
    ).format(COLUMNS - 1, HEIGHT, f"{seconds:.1f}", " ".join([*tops, *reversed(bottoms)]))
    source = f"data:audio/wav;base64,{base64.b64encode(content).decode()}"
    return drawing + Markup('<audio controls preload="metadata" src="{}"></audio>').format(source)
