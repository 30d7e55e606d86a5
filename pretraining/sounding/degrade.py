"""What happens to a sound between its source and us: rooms, microphones, telephones, noise, other sounds.

All of it is drawn from torch's generator and computed for a batch at once, filters, rooms and noise in one transform.

Shapes: B rows, T samples of a window, S samples of the longest clip, R frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

RATE = 16_000
SIZE, MOST = 24_576, 16_880  # of the transforms, and the longest window that leaves room in them for its echo
ECHO = 7_000
COARSE = 513  # places at which gains are computed, straight lines between


@dataclass(frozen=True)
class Strength:
    """How much is done; shares are of the rows."""

    speed: float = 0.15  # natural logarithm, both ways: pitch and the resonances of the throat move with it
    echo: float = 0.4
    narrow: float = 0.5  # share that loses what is above 3.3 to 4 kHz, as at 8,000 samples a second
    mixed: float = 0.2
    quietest: float = 5.0  # signal-to-noise ratio in dB
    cleanest: float = 50.0
    silent: float = 0.6  # share whose clip stands in digital silence


def batch(clips: Sequence[np.ndarray], window: int, strength: Strength) -> tuple[Tensor, Tensor, Tensor]:
    """Waves (B, T) in -1..1 of clips in int16, and from which sample to which (B,) a row's clip lies."""
    wave, start, end = _placed(clips, window, strength)
    loud = wave.square().sum(dim=1, keepdim=True) / (end - start)[:, None].clamp_min(1)
    size = SIZE * -(-window // MOST)
    spectrum = torch.fft.rfft(wave / (loud.sqrt() + 1e-6), size)
    other = _chance(len(wave), strength.mixed) * 10 ** (-_uniform(len(wave), 0.2, 1.1))
    spectrum = spectrum + other[:, None] * spectrum.roll(1, 0)
    spectrum = spectrum * _room(len(wave), strength.echo, size) + _noise(len(wave), strength, size)
    wave = torch.fft.irfft(spectrum * _gain(len(wave), strength.narrow, size), size)[:, :window]
    start, end = _margins(start, end, window)
    place = torch.arange(window)
    inside = (place >= start[:, None]) & (place < end[:, None])
    open_ = _chance(len(wave), 1 - strength.silent).bool()[:, None]
    wave = torch.where(inside | open_, wave, 0.0)
    wave = _recorded(wave)
    whole = open_[:, 0] & (torch.rand(len(wave)) < 0.5)  # a window that sounds throughout is also heard as a whole
    return wave, torch.where(whole, 0, start), torch.where(whole, window, end)


def _placed(clips: Sequence[np.ndarray], window: int, strength: Strength) -> tuple[Tensor, Tensor, Tensor]:
    """Clips at another speed somewhere in the window (a part of what is longer), with where they begin and end."""
    length = torch.tensor([len(clip) for clip in clips])
    held = np.zeros((len(clips), int(length.max()) + 2), np.float32)
    for row, clip in enumerate(clips):
        held[row, : len(clip)] = clip
    speed = torch.exp(_uniform(len(clips), -strength.speed, strength.speed))
    taken = (length / speed).long().clamp_min(2)
    room = window - taken
    start = (torch.rand(len(clips)) * (room.abs() + 1)).long() * room.sign()  # negative: the clip began before
    place = (torch.arange(window)[None] - start[:, None]) * speed[:, None]
    inside = (place >= 0) & (place < (length - 1)[:, None])
    place = place.clamp_min(0).minimum((length - 1)[:, None].float())
    low = place.long()
    source = torch.from_numpy(held)
    share = place - low
    wave = source.gather(1, low) * (1 - share) + source.gather(1, low + 1) * share
    return torch.where(inside, wave / 32768, 0.0), start.clamp_min(0), (start + taken).clamp_max(window)


def _room(rows: int, share: float, size: int) -> Tensor:
    """Frequency response (B, R) of a room: the direct sound, then noise that decays, softer in the treble."""
    time = torch.arange(ECHO) / RATE
    decay = torch.exp(_uniform(rows, -4.2, -1.6))[:, None]  # seconds, 15 to 200 ms: RT60 0.1 to 1.4 s
    late = (2 * torch.rand(rows, ECHO) - 1) * torch.exp(-time / decay) * (time > 0.002)
    late = late + 0.7 * late.roll(1, 1)
    late = late / late.square().sum(dim=1, keepdim=True).sqrt()
    late = late * (_chance(rows, share) * torch.exp(_uniform(rows, -2.5, 0.3)))[:, None]
    late[:, 0] += 1.0
    return torch.fft.rfft(late, size)


def _gain(rows: int, narrow: float, size: int) -> Tensor:
    """Gain (B, R) of a microphone: gentle bumps over octaves, a tilt, and a band."""
    hertz = torch.linspace(0, RATE / 2, COARSE) + 1.0
    octave = (hertz / 50).log2().clamp_min(0)  # 0 to 7.3
    knots = 0.35 * torch.randn(rows, 10)
    low = octave.long().clamp_max(8)
    bumps = torch.lerp(knots[:, low], knots[:, low + 1], octave - low)
    tilt = _uniform(rows, -0.25, 0.25)[:, None] * (octave - 4)
    top = torch.where(_chance(rows, narrow).bool(), _uniform(rows, 3300, 3950), _uniform(rows, 5000, 9000))
    bottom = torch.exp(_uniform(rows, 3.0, 5.3))  # 20 to 200 Hz
    edge = torch.sigmoid((top[:, None] - hertz) / 60)
    return _fine(torch.exp(bumps + tilt) * edge / (1 + (bottom[:, None] / hertz) ** 4), size)


def _noise(rows: int, strength: Strength, size: int) -> Tensor:
    """Spectrum (B, R) of noise between white and brown, for a clip of loudness 1 where it sounds."""
    hertz = torch.linspace(0, RATE / 2, COARSE) + 30.0
    gain = (hertz / 500) ** -_uniform(rows, 0, 1.0)[:, None]
    gain = gain / gain.square().mean(dim=1, keepdim=True).sqrt()
    level = 10 ** (-_uniform(rows, strength.quietest, strength.cleanest) / 20)
    shift = int(torch.randint(size // 2, ()))  # drawing new noise every time would take longer than all else
    white = _white(size)
    drawn = white[torch.randint(len(white), (rows,))].roll(shift, 1)
    return drawn * _fine(gain * (level[:, None] * (size / 2) ** 0.5), size)


@lru_cache(maxsize=2)
def _white(size: int) -> Tensor:
    """Spectra (256, R) of white noise of loudness 1 before ``size / 2``; the same in every process."""
    drawn = torch.randn(256, size // 2 + 1, 2, generator=torch.Generator().manual_seed(0))
    return torch.view_as_complex(drawn)


def _fine(coarse: Tensor, size: int) -> Tensor:
    """(B, COARSE) to (B, R)."""
    return functional.interpolate(coarse[:, None], size // 2 + 1, mode="linear", align_corners=True)[:, 0]


def _margins(start: Tensor, end: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Up to 200 ms more at either end, sometimes a little less: where somebody cut the recording."""
    before, after = 3600 * torch.rand(len(start)) - 400, 3600 * torch.rand(len(start)) - 400
    tight = torch.rand(len(start)) < 0.4
    before, after = torch.where(tight, before.clamp_max(200), before), torch.where(tight, after.clamp_max(200), after)
    start = (start - before.long()).clamp(0, window - 800)
    return start, torch.maximum((end + after.long()).clamp_max(window), start + 800)


def _recorded(wave: Tensor) -> Tensor:
    """Any gain, some of it too high; 16 bits, sometimes 8."""
    rows = len(wave)
    peak = wave.abs().amax(dim=1, keepdim=True) + 1e-6
    gain = 10 ** _uniform(rows, -1.7, 0)[:, None]
    gain = torch.where(_chance(rows, 0.12).bool()[:, None], _uniform(rows, 1.0, 5.0)[:, None], gain)
    wave = (wave / peak * gain).clamp(-1, 1)
    steps = torch.where(_chance(rows, 0.08).bool(), 127.0, 32767.0)[:, None]
    return (wave * steps).round() / steps


def _uniform(rows: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(rows)


def _chance(rows: int, share: float) -> Tensor:
    return (torch.rand(rows) < share).float()
