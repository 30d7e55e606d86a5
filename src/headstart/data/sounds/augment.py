"""Augmentation of sounds: named presets or single settings, every draw from the sample's own generator.

Masks are those of SpecAugment (Park et al. 2019), made in the samples themselves: so they reach networks that take
the waveform, and those that take a spectrogram of it, alike.

Shapes: T samples of a sound, W of a window.

| preset   | shift | gain | noise | time_mask | freq_mask |
|----------|-------|------|-------|-----------|-----------|
| none     |       |      |       |           |           |
| light    | 0.1   | 6    |       |           |           |
| standard | 0.1   | 6    | 0.5   | 0.1       |           |
| strong   | 0.2   | 12   | 0.8   | 0.25      | 0.2       |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from headstart.core.errors import ConfigError
from headstart.core.registry import suggest


@dataclass(frozen=True, slots=True)
class AudioPolicy:
    """Augmentation of sounds; every draw is uniform within its bounds."""

    crop: bool = True  # a random window of what is longer; otherwise the middle
    shift: float = 0.0  # share of the window by which the sound moves, silence filling up
    gain: float = 0.0  # decibels up or down
    noise: float = 0.0  # probability of white noise, 10 to 40 dB below the sound
    time_mask: float = 0.0  # share of the window that is silenced at most, in one piece (SpecAugment, Park et al. 2019)
    freq_mask: float = 0.0  # share of the pitches (mel) that are silenced at most, in one band, over the whole window

    @property
    def is_random(self) -> bool:
        return self != AudioPolicy(crop=False)


PRESETS = {
    "none": AudioPolicy(crop=False),
    "light": AudioPolicy(shift=0.1, gain=6.0),
    "standard": AudioPolicy(shift=0.1, gain=6.0, noise=0.5, time_mask=0.1),
    "strong": AudioPolicy(shift=0.2, gain=12.0, noise=0.8, time_mask=0.25, freq_mask=0.2),
}


def policy(value: Any, *, where: str = "augment") -> AudioPolicy | Callable[..., Any] | None:
    """A policy from a preset's name, a mapping of its fields (with ``preset`` to start from), a callable, or None.

    Raises:
        ConfigError: anything else, or a number out of range.
    """
    if value is None or callable(value) or isinstance(value, AudioPolicy):
        return value
    if isinstance(value, str):
        value = {"preset": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"cannot augment sounds by {value!r}", where=where, remedy=f"such as {', '.join(PRESETS)}")
    settings = dict(value)
    base = settings.pop("preset", "none")
    known = {field.name for field in fields(AudioPolicy)}
    if base not in PRESETS:
        what = f"no augmentation of sounds is called '{base}'{suggest(str(base), PRESETS)}"
        raise ConfigError(what, where=where, remedy=f"known: {', '.join(PRESETS)}")
    if unknown := sorted(set(settings) - known):
        what = f"augmentation of sounds has no {', '.join(unknown)}{suggest(unknown[0], known)}"
        raise ConfigError(what, where=where, remedy=f"known: {', '.join(sorted(known))}")
    limits = {"crop": 1, "shift": 1, "gain": 60, "noise": 1, "time_mask": 1, "freq_mask": 1}
    for key, number in settings.items():
        if not isinstance(number, int | float) or not 0 <= number <= limits[key]:
            what = f"{key} has to be 0 to {limits[key]} (got {number!r})"
            raise ConfigError(what, where=f"{where}.{key}")
    return replace(PRESETS[base], **settings)


def augmented(canvas: np.ndarray, window: int, rate: int, how: AudioPolicy, rng: np.random.Generator) -> np.ndarray:
    """One window of a sound int16 (T,) with chance, int16 (at most W,)."""
    spare = max(0, len(canvas) - window)
    start = int(rng.integers(0, spare + 1)) if how.crop else spare // 2
    sound = canvas[start : start + window].astype(np.float32)
    if how.shift:
        room = window - len(sound) + int(how.shift * window)
        move = int(rng.integers(-room if len(sound) == window else 0, room + 1))
        sound = _moved(sound, move, window)
    if how.gain:
        sound = sound * 10 ** (rng.uniform(-how.gain, how.gain) / 20)
    if how.noise and rng.random() < how.noise:
        level = float(np.sqrt((sound**2).mean())) * 10 ** (-rng.uniform(10, 40) / 20)
        sound = sound + level * rng.standard_normal(len(sound), dtype=np.float32)
    if how.freq_mask:
        sound = _without_band(sound, rate, how.freq_mask, rng)
    if how.time_mask:
        width = int(rng.uniform(0, how.time_mask) * len(sound))
        first = int(rng.integers(0, len(sound) - width + 1))
        sound[first : first + width] = 0
    return sound.round().clip(-32767, 32767).astype(np.int16)


def _without_band(sound: np.ndarray, rate: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """The sound (T,) without a band of at most ``share`` of the mel scale, wherever it falls."""
    spectrum = np.fft.rfft(sound)
    places = np.log1p(np.linspace(0, rate / 2, len(spectrum)) / 700)  # mel (O'Shaughnessy 1987), but for its unit
    width = rng.uniform(0, share) * places[-1]
    first = rng.uniform(0, places[-1] - width)
    spectrum[(places >= first) & (places < first + width)] = 0
    return np.fft.irfft(spectrum, len(sound)).astype(np.float32)


def _moved(sound: np.ndarray, by: int, window: int) -> np.ndarray:
    """The sound later (or earlier) by so many samples within the window, silence where nothing is left."""
    whole = np.zeros(window, np.float32)
    start, end = max(0, by), min(window, by + len(sound))
    if end > start:
        whole[start:end] = sound[start - by : end - by]
    return whole
