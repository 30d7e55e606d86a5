"""What networks of sound are given, beside transformers' feature extractors; windows and frames averaged by length.

Shapes: B rows, T samples, N windows of W samples, F frames, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.data.modalities import audio
from headstart.data.modalities.audio import PAD, AudioSpec
from headstart.models.intakes.audio import Intake

SECOND = 16_000


class Seen(nn.Module):
    """Keeps what it is given; answers one number a frame of 100 samples: the mean of its samples."""

    def forward(self, wave: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        self.wave, self.mask = wave, attention_mask
        return wave.unfold(-1, 100, 100).mean(-1)[..., None].repeat(1, 1, 2)


def sounds(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = [rng.normal(300 * row, 3000, count).clip(-32767, 32767) for row, count in enumerate(lengths)]
    return [each.astype(np.int16) for each in made]


def given(spec: AudioSpec, rows: list[np.ndarray], masked: bool = False) -> Seen:
    """What a module saw of these rows."""
    seen = Seen()
    prepared = audio.collate([audio.finish(row, spec) for row in rows])
    if spec.form in ("fbank", "whisper"):
        intake = Intake(spec, masked)
        windows = torch.from_numpy(prepared)
        windows = nn.functional.pad(windows, (0, spec.window - windows.shape[1]), value=PAD)
        seen.wave = intake._formed(windows, windows != PAD)
    else:
        Intake(spec, masked)(seen, torch.from_numpy(prepared), {})
    return seen


def test_standardised_is_what_wav2vec2_is_given() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    rows = sounds(SECOND, SECOND // 2, 700)
    theirs = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)(
        [row.astype(np.float32) / 32768 for row in rows],
        sampling_rate=SECOND,
        padding="max_length",
        max_length=SECOND,
        return_tensors="pt",
    )
    ours = given(AudioSpec(SECOND, 1.0, "standardised"), rows, masked=True)
    assert torch.equal(ours.mask, theirs["attention_mask"].long())
    assert torch.allclose(ours.wave, theirs["input_values"], atol=1e-4)
    plain = given(AudioSpec(SECOND, 1.0, "waveform"), rows)
    assert plain.mask is None
    assert not torch.allclose(plain.wave, theirs["input_values"], atol=1e-2)  # planted: not standardised


def test_int16_and_waveform_are_one_sound_in_two_scales() -> None:
    rows = sounds(SECOND, 300)
    ints, floats = (given(AudioSpec(SECOND, 1.0, form), rows).wave for form in ("int16", "waveform"))
    assert torch.equal(ints, floats * 32768)
    assert torch.equal(ints[0], torch.from_numpy(rows[0]).float())
    assert torch.equal(ints[1, 7850:8150], torch.from_numpy(rows[1]).float())  # in the middle of its window
    assert not ints[1, :7850].any()  # silence, not the mark of padding
    assert not ints[1, 8150:].any()


@pytest.mark.parametrize("bins", [32, 128])
@pytest.mark.filterwarnings("ignore:At least one mel filter")  # of 128, in their own extractor too
def test_fbank_is_what_ast_is_given(bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.audio_spectrogram_transformer import (
        feature_extraction_audio_spectrogram_transformer as ast,
    )

    monkeypatch.setattr(ast, "is_speech_available", lambda: False)  # torchaudio's path, where it is installed
    theirs = ast.ASTFeatureExtractor(num_mel_bins=bins, max_length=128, mean=-4.2, std=4.5)
    rows = sounds(int(1.5 * SECOND), SECOND, 700)
    spec = AudioSpec(SECOND, 1.5, "fbank", bins=bins, frames=128, mean=-4.2, spread=4.5)
    ours = given(spec, rows).wave
    for row, got in zip(rows, ours, strict=True):
        told = theirs(row.astype(np.float32) / 32768, sampling_rate=SECOND, return_tensors="np")["input_values"][0]
        assert got.shape == told.shape
        assert np.abs(got.numpy() - told).max() < 1e-3
    assert np.abs(ours[0].numpy() - ours[1].numpy()).max() > 0.1  # planted: another sound


@pytest.mark.parametrize("bins", [80, 128])
def test_whisper_is_what_whisper_is_given(bins: int) -> None:
    from transformers import WhisperFeatureExtractor

    rows = sounds(2 * SECOND, SECOND, 700)
    theirs = WhisperFeatureExtractor(feature_size=bins, chunk_length=2)(
        [row.astype(np.float32) / 32768 for row in rows], sampling_rate=SECOND, return_tensors="np"
    )["input_features"]
    ours = given(AudioSpec(SECOND, 2.0, "whisper", bins=bins), rows).wave.numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-3


def test_what_follows_the_end_of_a_sound_changes_nothing() -> None:
    """Rows in one batch with longer ones, or alone: the same features."""
    for form in ("waveform", "int16", "standardised"):
        spec = AudioSpec(4_000, 1.0, form)
        intake, rows = Intake(spec), sounds(4_000, 1_300, 100)
        together = intake(Seen(), torch.from_numpy(audio.collate(rows)), {})
        for row, features in zip(rows, together, strict=True):
            alone = intake(Seen(), torch.from_numpy(audio.collate([row])), {})
            assert torch.allclose(alone[0], features, atol=1e-5 * max(1.0, float(features.abs().max())))


def test_only_frames_that_hold_sound_are_averaged() -> None:
    spec = AudioSpec(4_000, 1.0, "int16")
    row = sounds(0, 1_200)[1]
    for masked in (True, False):  # at the beginning of its window, or in the middle
        got = Intake(spec, masked)(Seen(), torch.from_numpy(audio.collate([row])), {})
        assert got[0, 0].item() == pytest.approx(row.mean(), rel=1e-5)
    assert abs(row.mean() * 12 / 40 - row.mean()) > 10  # planted: the mean over all 40 frames


def test_a_long_recording_is_the_weighted_mean_of_its_windows() -> None:
    spec = AudioSpec(4_000, 1.0, "int16")
    intake = Intake(spec)
    (canvas,) = sounds(9_500)
    seen = audio.finish(canvas, spec)
    whole = intake(Seen(), torch.from_numpy(seen[None]), {})
    windows = [intake(Seen(), torch.from_numpy(part[None]), {}) for part in seen.reshape(-1, 4_000)]
    assert len(windows) == 3
    assert torch.allclose(whole, torch.stack(windows).mean(dim=0), rtol=1e-5)
    # What is handed over in windows of differing length is weighted by it.
    uneven = torch.from_numpy(canvas[None])
    parts = [intake(Seen(), uneven[:, start : start + 4_000], {}) for start in (0, 4_000, 8_000)]
    weighted = (4_000 * parts[0] + 4_000 * parts[1] + 1_500 * parts[2]) / 9_500
    assert torch.allclose(intake(Seen(), uneven, {}), weighted, rtol=1e-4)
    assert not torch.allclose(intake(Seen(), uneven, {}), torch.stack(parts).mean(dim=0), rtol=1e-3)  # planted


def test_rows_of_many_and_of_one_window_share_a_batch() -> None:
    spec = AudioSpec(4_000, 1.0, "int16")
    intake, rows = Intake(spec), sounds(9_500, 4_000, 30)
    batch = torch.from_numpy(audio.collate([audio.finish(row, spec) for row in rows]))
    assert intake.lengths(batch).tolist() == [[4_000] * 3, [4_000, 0, 0], [30, 0, 0]]
    together = intake(Seen(), batch, {})
    for row, features in zip(rows, together, strict=True):
        alone = intake(Seen(), torch.from_numpy(audio.finish(row, spec)[None]), {})
        assert torch.allclose(alone[0], features, rtol=1e-4, atol=1e-3)


def test_stand_ins_have_the_lengths_of_the_rows() -> None:
    intake = Intake(AudioSpec(4_000, 1.0))
    lengths = torch.tensor([[4_000, 1_500], [70, 0]])
    assert torch.equal(intake.lengths(intake.stand_in(lengths)), lengths)


@pytest.mark.parametrize("form", ["waveform", "int16", "standardised", "fbank", "whisper"])
@pytest.mark.parametrize("samples", [np.zeros(4_000, np.int16), np.zeros(1, np.int16), np.full(900, 77, np.int16)])
def test_silence_and_single_samples_give_finite_input(form: str, samples: np.ndarray) -> None:
    options: dict[str, Any] = {"bins": 8, "frames": 40} if form == "fbank" else {}
    spec = AudioSpec(SECOND, 0.5, form, **options)
    assert given(spec, [samples]).wave.isfinite().all()
