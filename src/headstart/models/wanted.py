"""What the user asked of a backbone besides its name, and what every library's file does with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from headstart.data.modalities.image import ImageSpec
from headstart.models import surgery


@dataclass(frozen=True)
class Wanted:
    """Options of ``backbone.load``: a weights file, another size of inputs, another pooling, no pretrained weights."""

    weights: Path | None = None
    image_size: int | None = None
    max_length: int | None = None  # tokens of a text
    seconds: float | None = None  # of a sound's window
    pooling: str | None = None
    channels: int = 3
    pretrained: bool = True
    offline: bool = False
    seed: int = 0  # of random initialisation


@dataclass(frozen=True)
class Entry:
    """One line of ``headstart models``. ``parameters`` is None where counting would mean building."""

    name: str
    library: str
    weights: str  # pretrained tag, or "" where there are none
    parameters: int | None
    local: bool  # the weights are on this machine
    about: tuple[tuple[str, str], ...] = ()  # what is known of their making, by title


def resized(spec: ImageSpec, wanted: Wanted) -> ImageSpec:
    """``spec`` for the wanted size (the margin of the resize kept in proportion) and number of channels."""
    if wanted.image_size is not None:
        scale = wanted.image_size / min(spec.size)
        spec = replace(spec, size=(wanted.image_size,) * 2, resize=max(wanted.image_size, round(spec.resize * scale)))
    if wanted.channels != spec.channels:
        mean, std = (surgery.cycled(values, wanted.channels) for values in (spec.mean, spec.std))
        spec = replace(spec, channels=wanted.channels, mean=mean, std=std)
    return spec
