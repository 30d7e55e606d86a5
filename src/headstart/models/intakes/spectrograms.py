"""Log-mel frames as two families of networks were trained on, inside the network: equal on every path, ONNX too.

``fbank`` follows Kaldi's filter banks as the Audio Spectrogram Transformer uses them (Gong et al. 2021; transformers'
ASTFeatureExtractor), ``whisper`` OpenAI's (Radford et al. 2022; WhisperFeatureExtractor); tests hold them to both.

Shapes: M windows, W samples, F frames, R frequencies, G mel bins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from headstart.data.modalities.audio import AudioSpec


def mel_filters(bins: int, size: int, rate: int, low: float, high: float, scale: str, *, slaney: bool) -> Tensor:
    """Triangles (R, G) on the mel scale; ``scale`` "kaldi" draws them in mel, "slaney" in hertz (and of equal area)."""

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        hertz = np.asarray(hertz, dtype=np.float64)
        if scale == "kaldi":
            return 1127.0 * np.log(1.0 + hertz / 700.0)
        above = 15.0 + np.log(np.maximum(hertz, 1e-9) / 1000.0) * (27.0 / np.log(6.4))
        return np.where(hertz >= 1000.0, above, 3.0 * hertz / 200.0)

    def hertz(mels: np.ndarray) -> np.ndarray:
        above = 1000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0))
        return np.where(mels >= 15.0, above, 200.0 * mels / 3.0)

    edges = np.linspace(mel(low), mel(high), bins + 2)
    places = np.linspace(0, rate / 2, size // 2 + 1)
    if scale == "kaldi":
        places = mel(places)
    else:
        edges = hertz(edges)
    rising = (places[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if slaney:
        filters *= 2.0 / (edges[2:] - edges[:-2])
    return torch.tensor(filters, dtype=torch.float32)


class FilterBank(nn.Module):
    """AST's input (M, F, G): 25 ms frames every 10 ms, normalised by the mean and twice the spread of its training."""

    def __init__(self, spec: AudioSpec) -> None:
        super().__init__()
        self.count, self.mean, self.spread = spec.frames or 1024, spec.mean, spec.spread
        self.window: Tensor
        self.filters: Tensor
        self.length, self.hop, self.size = 400 * spec.rate // 16_000, 160 * spec.rate // 16_000, 512
        self.register_buffer("window", torch.hann_window(self.length, periodic=False), persistent=False)
        filters = mel_filters(spec.bins or 128, self.size, spec.rate, 20.0, spec.rate / 2, "kaldi", slaney=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave: Tensor, real: Tensor) -> Tensor:
        frames = wave.unfold(-1, self.length, self.hop)  # -1..1, as AST was trained; Kaldi itself takes 16-bit numbers
        frames = frames - frames.mean(dim=-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - 0.97 * before) * self.window
        power = torch.fft.rfft(frames, self.size).abs().square()
        energies = (power @ self.filters).clamp_min(1.1920929e-07).log()
        whole = (real.sum(dim=1) - self.length).div(self.hop, rounding_mode="floor") + 1
        kept = torch.arange(energies.shape[1], device=wave.device) < whole.clamp_min(1)[:, None]
        energies = torch.where(kept[..., None], energies, 0.0)[:, : self.count]
        energies = nn.functional.pad(energies, (0, 0, 0, self.count - energies.shape[1]))
        return (energies - self.mean) / (2 * self.spread)


class Whisper(nn.Module):
    """Whisper's input (M, G, F): log10 of mel power, the loudest 80 dB of each window, scaled to about -1..1."""

    def __init__(self, spec: AudioSpec) -> None:
        super().__init__()
        self.window: Tensor
        self.filters: Tensor
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        filters = mel_filters(spec.bins or 80, 400, spec.rate, 0.0, spec.rate / 2, "slaney", slaney=True)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave: Tensor, real: Tensor) -> Tensor:
        padded = nn.functional.pad(wave[:, None], (200, 200), mode="reflect")[:, 0]
        power = torch.fft.rfft(padded.unfold(-1, 400, 160) * self.window, 400).abs().square()[:, :-1]
        levels = (power @ self.filters).clamp_min(1e-10).log10().transpose(1, 2)
        loudest = levels.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(levels, loudest - 8.0) + 4.0) / 4.0


FORMS: dict[str, Callable[[AudioSpec], nn.Module]] = {"fbank": FilterBank, "whisper": Whisper}
