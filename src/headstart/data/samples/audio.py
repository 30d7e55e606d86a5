"""Invented voices that glide from one vowel to another: synthesised here, so that a set of sounds is always at hand.

A voice is a train of glottal pulses through four resonances (the source-filter model of Fant 1960); the first two move
from one vowel's to the other's (after Peterson and Barney 1952). Every recording has its own voice, tempo, melody,
room noise and loudness; ``ai`` and ``ia`` differ in their order alone.

Shapes: T samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.samples.base import PER_CLASS

TITLE = "gliding vowels"
ABOUT = "invented voices, synthesised on the spot, in noise"
BACKBONE = "builtin/audio"
RATE = 16_000
SETTINGS: dict[str, Any] = {}
TEST = 50  # of each glide
VOWELS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240), "e": (530, 1840, 2480)}  # Hz, a man's
GLIDES = ("ai", "au", "ei", "ia", "iu", "ua", "ue", "ui")
BANDWIDTHS = (70.0, 90.0, 130.0, 220.0)  # Hz
RATIO = (-10.0, 2.0)  # dB of the voice over the noise
STEP = 80  # samples for which a resonance stands still: 5 ms


def write(folder: Path) -> Path:
    """``<split>/<glide>/<number>.wav`` under ``folder``; files that are there are not written again."""
    import soundfile

    for split, count, first in (("train", PER_CLASS, 0), ("val", PER_CLASS, 1000), ("test", TEST, 2000)):
        for label, glide in enumerate(GLIDES):
            for number in range(count):
                file = folder / split / glide / f"{number:03d}.wav"
                if not file.is_file():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    soundfile.write(file, recording(glide, np.random.default_rng([label, first + number])), RATE)
    return folder


def recording(glide: str, rng: np.random.Generator) -> np.ndarray:
    """(T,) float32 in -1..1: one voice saying ``glide``, with silence and noise around it."""
    length = round(RATE * rng.uniform(0.35, 0.7) / STEP) * STEP
    course = np.linspace(0, 1, length // STEP)
    hold = rng.uniform(0.1, 0.35)
    course = np.clip((course - hold) / (1 - 2 * hold), 0, 1)  # stay, glide, stay
    size = rng.uniform(0.95, 1.35)  # a shorter throat sounds higher
    start, end = (np.array(VOWELS[name]) * size * rng.uniform(0.94, 1.06, 3) for name in glide)
    formants = start + course[:, None] * (end - start)
    formants = np.column_stack([formants, np.full(len(formants), 3500 * size)])
    voice = _resonated(_pulses(length, rng), formants)
    shape = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / (0.03 * RATE))
    voice = voice / np.abs(voice).max() * shape
    around = [np.zeros(round(RATE * rng.uniform(0.03, 0.25))) for _ in range(2)]
    sound = np.concatenate([around[0], voice, around[1]])
    noise = np.convolve(rng.standard_normal(len(sound)), rng.dirichlet(np.ones(4)), mode="same")
    sound = sound + noise * 10 ** (-rng.uniform(*RATIO) / 20) * sound.std() / noise.std()
    return (sound / np.abs(sound).max() * rng.uniform(0.1, 0.9)).astype(np.float32)


def _pulses(length: int, rng: np.random.Generator) -> np.ndarray:
    """Glottal pulses (T,) at a pitch that moves and trembles, with some breath."""
    melody = rng.uniform(90, 260) * rng.uniform(0.8, 1.25, 3)
    pitch = np.interp(np.arange(length), np.linspace(0, length, 3), melody)
    pitch = pitch * (1 + 0.01 * np.sin(2 * np.pi * rng.uniform(4, 7) * np.arange(length) / RATE))
    phase = np.cumsum(pitch / RATE)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    return pulses + 0.02 * rng.uniform(0.2, 2.0) * rng.standard_normal(length)


def _resonated(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """``source`` (T,) through resonators in a row (Klatt 1980), whose frequencies change every ``STEP`` samples."""
    sound = source
    for number, width in enumerate(BANDWIDTHS):
        radius = np.exp(-np.pi * width / RATE)
        out, before, earlier = np.empty_like(sound), 0.0, 0.0
        for step, frequency in enumerate(formants[:, number]):
            turn = 2 * radius * np.cos(2 * np.pi * min(frequency, 0.47 * RATE) / RATE)
            gain = 1 - turn + radius**2
            for at in range(step * STEP, (step + 1) * STEP):
                before, earlier = gain * sound[at] + turn * before - radius**2 * earlier, before
                out[at] = before
        sound = out
    return sound
