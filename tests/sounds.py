"""Recordings of three kinds that any network tells apart, and a small network of the user's own that hears."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from headstart.data.modalities.audio import AudioSpec

KINDS = ("chirp", "hiss", "hum")
RATE = 8_000


def recording(kind: str, rng: np.random.Generator, seconds: float | None = None) -> np.ndarray:
    """(T,) float32 at 8 kHz, 0.4 to 0.9 s unless told: a rising tone, noise, or a low tone, each with some noise."""
    t = np.arange(round(RATE * (rng.uniform(0.4, 0.9) if seconds is None else seconds))) / RATE
    if kind == "chirp":
        start = rng.uniform(900, 1300)
        sound = np.sin(2 * np.pi * (start * t + 600 * t**2))
    elif kind == "hum":
        sound = np.sin(2 * np.pi * rng.uniform(140, 260) * t + rng.uniform(0, 6))
    else:
        sound = 0.8 * rng.standard_normal(len(t))
    noisy = rng.uniform(0.1, 0.4) * sound + 0.02 * rng.standard_normal(len(t))
    return noisy.astype(np.float32).clip(-1, 1)


def folder(place: Path, each: int = 30, seed: int = 0, speakers: int = 5) -> Path:
    """``<kind>/<speaker>_<number>.wav`` (every third .flac) under ``place``."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        (place / kind).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            suffix = ".flac" if number % 3 == 0 else ".wav"
            file = place / kind / f"voice{number % speakers}_{number:03d}{suffix}"
            soundfile.write(file, recording(kind, rng), RATE)
    return place


class Ear(nn.Module):
    """A small network of the user's own: three convolutions over samples, frames as features."""

    spec = AudioSpec(RATE)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Conv1d(1, 12, 32, 8), nn.ReLU()),
            nn.Sequential(nn.Conv1d(12, 16, 8, 4), nn.ReLU()),
            nn.Sequential(nn.Conv1d(16, 24, 4, 2), nn.ReLU()),
        )

    def forward(self, wave: Tensor) -> Tensor:
        return self.layers(wave[:, None]).transpose(1, 2)


def ear() -> Ear:
    torch.manual_seed(0)
    return Ear()
