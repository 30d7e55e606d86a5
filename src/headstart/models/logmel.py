"""The network of ``builtin/audio``: log-mel frames, then residual convolutions over time and pitch.

The frames are computed inside, in float32 whatever the precision around them. They are levels below the loudest frame
of the window, so that neither gain nor silence added around a sound changes what the convolutions see of it; nothing is
normalised over a batch. Residual blocks as in He et al. 2016, on spectrograms as in Hershey et al. 2017.

Shapes: B rows, T samples, M log-mel frames, G mel bins, C channels, F frames that come out, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.data.modalities.audio import AudioSpec
from headstart.models.intakes.spectrograms import mel_filters

RATE = 16_000
LENGTH, HOP, SIZE = 400, 160, 512  # 25 ms every 10 ms
QUIETEST = 1e-9  # power added to every bin, well below the steps of 16-bit samples
RANGE = 6.0  # bels below the loudest frame that are looked at


class LogMel(nn.Module):
    """(B, T) samples in -1..1 to (B, 1, M, G): bels from ``RANGE`` below the loudest frame, scaled to about -1.5..2."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.filters: Tensor
        filters = mel_filters(bins, SIZE, RATE, 50.0, RATE / 2, "kaldi", slaney=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        # The window is made here and not kept: a copy of the network in bf16 would round it, and let tones leak.
        window = torch.hann_window(LENGTH, dtype=torch.float32, device=samples.device)
        wave = functional.pad(samples.float(), (0, max(0, LENGTH - samples.shape[1])))
        power = _power(wave.unfold(-1, LENGTH, HOP) * window)
        with torch.autocast(samples.device.type, enabled=False):
            levels = (power @ self.filters.float() + QUIETEST).log10()
            loudest = (power.sum(dim=-1) + QUIETEST).amax(dim=1).log10()
        return ((levels - loudest[:, None, None]).clamp_min(-RANGE) / 2 + 1.5)[:, None]


def _power(frames: Tensor) -> Tensor:
    """Power (B, M, SIZE // 2 + 1) of windowed frames (B, M, LENGTH)."""
    if not torch.compiler.is_exporting():
        return torch.view_as_real(torch.fft.rfft(frames, SIZE)).square().sum(dim=-1)
    # The same as products of matrices: OpenVINO cannot read such a Fourier transform from ONNX.
    turns = np.outer(np.arange(LENGTH), np.arange(SIZE // 2 + 1)) % SIZE * (2 * np.pi / SIZE)
    parts = [frames @ torch.from_numpy(wave(turns).astype(np.float32)) for wave in (np.cos, np.sin)]
    return parts[0].square() + parts[1].square()


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (B, C, M, G) to (B, C', M / stride, G / stride)."""

    def __init__(self, before: int, width: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.first = _convolved(before, width, 3, stride)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        # What is skipped is averaged, not dropped (ResNet-D, He et al. 2019).
        pool = (
            nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride != (1, 1) else nn.Identity()
        )
        plain = stride == (1, 1) and before == width
        self.shortcut = (
            nn.Identity()
            if plain
            else nn.Sequential(pool, nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width))
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(self.second(self.first(maps)) + self.shortcut(maps))


class LogMelNet(nn.Module):
    """``forward``: samples (B, T) at 16 kHz to frames (B, F, D), one every 80 ms with the usual strides.

    Args:
        widths: channels of the residual blocks.
        strides: (time, pitch) of each.
        stem: channels of the first convolution, which halves both.
        dim: D; the last block reads all that is left of the pitches at once.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 224),
        strides: Sequence[Sequence[int]] = ((1, 1), (2, 2), (2, 2), (1, 2)),
        stem: int = 32,
        dim: int = 384,
        bins: int = 64,
    ) -> None:
        super().__init__()
        self.spec = AudioSpec(rate=RATE)
        self.feature_dim = dim
        self.frontend = LogMel(bins)
        self.stem = _convolved(1, stem, 3, (2, 2))
        blocks: list[nn.Module] = []
        before, height = stem, (bins + 1) // 2
        for width, stride in zip(widths, strides, strict=True):
            blocks.append(Residual(before, width, (stride[0], stride[1])))
            before, height = width, -(-height // stride[1])
        whole = nn.Conv2d(before, dim, (1, height), bias=False)
        blocks.append(nn.Sequential(whole, nn.BatchNorm2d(dim), nn.ReLU(inplace=True)))
        self.blocks = nn.Sequential(*blocks)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, samples: Tensor) -> Tensor:
        maps = self.frontend(samples).to(self.stem[0].weight.dtype)
        return self.blocks(self.stem(maps)).squeeze(3).transpose(1, 2)


def _convolved(before: int, width: int, size: int, stride: tuple[int, int]) -> nn.Sequential:
    conv = nn.Conv2d(before, width, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
