"""Sounds: 16-bit samples to the form a network was trained on, in windows; frames and windows averaged to features.

Shapes: B rows, T samples, N windows of W samples, F frames, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.data.modalities.audio import PAD, AudioSpec
from headstart.models.intakes import spectrograms
from headstart.models.intakes.output import mean_over, tensor_of


class Intake(nn.Module):
    """Recordings longer than the window are cut into windows whose features are averaged, weighted by their length.

    ``masked`` says whether the network takes an ``attention_mask`` over samples. What is shorter than the window begins
    with it where a mask or the form of the input was trained so; any other network hears it in the middle, since one
    that looks at stretches of sound would hear little of a word at the edge.
    """

    CALL = "module(samples), floats (B, T) of one window each"
    ragged = True

    def __init__(self, spec: AudioSpec, masked: bool = False) -> None:
        super().__init__()
        self.spec, self.masked = spec, masked
        self.frames = spectrograms.FORMS[spec.form](spec) if spec.form in spectrograms.FORMS else None

    def lengths(self, inputs: Tensor) -> Tensor:
        """Samples of every window of every row, (B, N)."""
        return (self._windows(inputs) != PAD).sum(dim=2)

    def stand_in(self, lengths: Tensor, places: int | None = None) -> Tensor:
        """Silence of these lengths, int16 (B, T), in as many whole windows: ``places`` are those of texts."""
        place = torch.arange(self.spec.window, device=lengths.device)
        made = torch.zeros(*lengths.shape, self.spec.window, dtype=torch.int16, device=lengths.device)
        return made.masked_fill(place >= lengths[..., None], PAD).flatten(1)

    def forward(
        self,
        module: nn.Module,
        inputs: Tensor,
        call: Mapping[str, Any],
        *,
        lengths: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> Tensor:
        """Features (B, D) of samples (B, T); ``lengths`` (B, N) where the inputs do not tell them."""
        windows = self._windows(inputs)
        real = windows != PAD
        lengths = real.sum(dim=2) if lengths is None else lengths
        weights = lengths / lengths.sum(dim=1, keepdim=True).clamp_min(1)
        if torch.compiler.is_exporting():
            # One graph for any number of windows: the empty ones are heard too, and weigh nothing.
            heard = self._heard(module, windows.flatten(0, 1), real.flatten(0, 1), lengths.flatten(), dtype, call)
            parts = heard.unflatten(0, lengths.shape) * weights[..., None]
            return torch.where(weights[..., None] > 0, parts, 0.0).sum(dim=1)
        if lengths.shape[1] == 1:
            return self._heard(module, windows[:, 0], real[:, 0], lengths[:, 0], dtype, call)
        some = lengths > 0  # a row of fewer windows than others has empty ones, which nobody need hear
        heard = self._heard(module, windows[some], real[some], lengths[some], dtype, call)
        row = some.nonzero()[:, 0]
        return heard.new_zeros(len(inputs), heard.shape[1]).index_add(0, row, heard * weights[some][:, None])

    def _heard(
        self,
        module: nn.Module,
        windows: Tensor,
        real: Tensor,
        lengths: Tensor,
        dtype: torch.dtype,
        call: Mapping[str, Any],
    ) -> Tensor:
        """Features (M, D) of windows (M, W) that hold so many samples (M,)."""
        given = {"attention_mask": real.long()} if self.masked else {}
        start = torch.zeros_like(lengths)
        if not self.masked and self.frames is None:
            start = (self.spec.window - lengths) // 2
            place = torch.arange(self.spec.window, device=lengths.device) - start[:, None]
            real = (place >= 0) & (place < lengths[:, None])
            windows = windows.gather(1, place.clamp(0, self.spec.window - 1))
        return self._pooled(module(self._formed(windows, real).to(dtype), **given, **call), start, start + lengths)

    def _windows(self, inputs: Tensor) -> Tensor:
        """(B, N, W); what is shorter than a window is filled up with PAD."""
        window = self.spec.window
        count = (inputs.shape[1] + window - 1) // window  # of positive numbers: ONNX rounds negative ones towards zero
        # As int32, because ONNX Runtime pads nothing narrower.
        filled = functional.pad(inputs.int(), (0, count * window - inputs.shape[1]), value=PAD)
        return filled.view(inputs.shape[0], count, window)  # len() would fix their number in an exported graph

    def _formed(self, samples: Tensor, real: Tensor) -> Tensor:
        """Samples (M, W) as the network wants them; silence where there is none."""
        wave = torch.where(real, samples, 0).float()
        if self.spec.form == "int16":
            return wave
        wave = wave / 32768
        if self.spec.form == "standardised":
            count = real.sum(dim=1, keepdim=True).clamp_min(1)
            mean = wave.sum(dim=1, keepdim=True) / count
            spread = (torch.where(real, wave - mean, 0.0).square().sum(dim=1, keepdim=True) / count + 1e-7).sqrt()
            return torch.where(real, (wave - mean) / spread, 0.0)
        return wave if self.frames is None else self.frames(wave, real)

    def _pooled(self, output: Any, start: Tensor, end: Tensor) -> Tensor:
        """(M, D): the frames (M, F, D) that hold sound are averaged; they lie where its samples do."""
        found = tensor_of(output)
        if found.dim() == 4:
            found = found.flatten(2).transpose(1, 2)
        if found.dim() == 2:
            return found.float()
        count, frame = found.shape[1], torch.arange(found.shape[1], device=found.device)
        first = (start * count // self.spec.window).clamp_max(count - 1)[:, None]
        last = (end * count // self.spec.window - 1)[:, None].clamp_min(first)
        return mean_over(found, (frame >= first) & (frame <= last))
