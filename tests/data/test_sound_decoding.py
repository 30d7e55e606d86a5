"""The decoder of sounds: formats, rates, channels, values, what it sees, and what it refuses.

Shapes: T samples, A channels.
"""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from headstart.data.modalities import audio
from headstart.data.modalities.audio import PAD, AudioSpec
from headstart.data.modalities.base import DecodeError
from headstart.data.sounds import decoding

RATE = 16_000


def sine(hertz: float = 440.0, rate: int = RATE, seconds: float = 0.5, level: float = 0.5) -> np.ndarray:
    """(T,) float32."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def heard(item: Any, rate: int = RATE) -> np.ndarray:
    """(T,) as floats within -1..1."""
    return decoding.decode(item, rate, 60.0)[0] / 32767.0


def apart(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, the ends left out (filters ring there)."""
    edge = len(wanted) // 10
    return float(np.abs(got[edge : len(wanted) - edge] - wanted[edge : len(wanted) - edge]).max())


def reason(item: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        decoding.decode(item, RATE, 60.0)
    return caught.value.reason.code


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-4),
        ("WAV", "PCM_32", 1e-4),
        ("WAV", "FLOAT", 1e-4),
        ("WAV", "DOUBLE", 1e-4),
        ("WAV", "ULAW", 0.02),
        ("WAV", "ALAW", 0.02),
        ("WAVEX", "PCM_16", 1e-4),
        ("RF64", "PCM_16", 1e-4),
        ("FLAC", "PCM_S8", 0.01),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-4),
        ("OGG", "VORBIS", 0.03),
        ("OGG", "OPUS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
        ("AIFF", "PCM_16", 1e-4),
        ("AIFF", "PCM_24", 1e-4),
        ("AIFF", "FLOAT", 1e-4),
        ("AU", "PCM_16", 1e-4),
        ("AU", "ULAW", 0.02),
        ("W64", "PCM_16", 1e-4),
        ("CAF", "PCM_16", 1e-4),
        ("CAF", "ALAC_16", 1e-4),
    ],
)
def test_formats(kind: str, subtype: str, tolerance: float) -> None:
    samples = sine(300)
    if subtype == "OPUS":  # works at 48 kHz inside and shifts the phase: its level is what can be compared
        assert np.abs(heard(encoded(samples, RATE, kind, subtype))).max() == pytest.approx(0.5, abs=tolerance)
        return
    got = heard(encoded(samples, RATE, kind, subtype))
    assert len(got) == len(samples)
    assert apart(got, samples) < tolerance
    assert apart(got, -samples) > 0.5  # planted: another sound is told apart


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_becomes_the_same_sine(rate: int) -> None:
    got = heard((sine(440, rate), rate))
    wanted = sine(440)
    assert abs(len(got) - len(wanted)) <= 1
    assert apart(got, wanted) < 2e-3
    assert apart(heard((sine(460, rate), rate)), wanted) > 0.5  # planted: 20 Hz beside it


def test_what_the_new_rate_cannot_hold_is_filtered_out_not_folded_back() -> None:
    aliased = heard((sine(15_000, 48_000), 48_000))  # would be heard at 1 kHz if samples were only left out
    assert np.abs(aliased[100:-100]).max() < 1e-3
    assert np.abs(sine(15_000, 48_000)[::3]).max() > 0.4  # planted: leaving samples out


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(channels: int) -> None:
    parts = np.stack([sine(200 * (index + 1), level=0.8) for index in range(channels)], axis=1)
    got = heard(encoded(parts, subtype="FLOAT"))
    assert apart(got, parts.mean(axis=1)) < 1e-4
    if channels > 1:
        assert apart(got, parts[:, 0]) > 0.1


def test_values_of_every_kind_are_one_sound() -> None:
    mono = sine()
    stereo = np.stack([mono, mono], axis=1)
    ints = (mono * 32767).astype(np.int16)
    wanted = decoding.decode((mono, RATE), RATE, 60.0)[0]
    for item in [
        (mono, RATE),
        (mono.astype(np.float64), np.int64(RATE)),
        (mono.tolist(), RATE),
        (stereo, RATE),
        (stereo.T, RATE),  # as torchaudio gives it
        (torch.from_numpy(stereo.T.copy()), RATE),
        (torch.from_numpy(mono).requires_grad_(), RATE),
        (ints, RATE),
        (ints.astype(np.int32) << 16, RATE),
        ((ints.astype(np.int32) + 32768).astype(np.uint16), RATE),
        {"array": mono, "sampling_rate": RATE},
        {"array": None, "path": None, "bytes": encoded(mono, subtype="FLOAT")},
        encoded(mono, subtype="FLOAT"),
    ]:
        got, facts = decoding.decode(item, RATE, 60.0)
        assert got.dtype == np.int16
        assert np.abs(got.astype(int) - wanted).max() <= 2
        assert facts.seconds == pytest.approx(0.5)


def test_a_file_a_path_and_its_bytes_are_one(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(sine()))
    for item in (path, str(path), path.read_bytes(), {"path": str(path)}):
        assert np.array_equal(heard(item), heard(path))
        assert decoding.fingerprint(item) == decoding.fingerprint(path)
    assert decoding.fingerprint((sine(), RATE)) != decoding.fingerprint((sine(), 8_000))


@pytest.mark.parametrize(
    "samples",
    [np.full(800, -32768, np.int16), np.full(800, -3.0, np.float32), np.tile([-1.0, 1.0], 400).astype(np.float32)],
)
@pytest.mark.parametrize("rate", [RATE, 8_000, 44_100])
def test_no_sample_is_ever_the_value_that_marks_padding(samples: np.ndarray, rate: int) -> None:
    got, _ = decoding.decode((samples, rate), RATE, 60.0)
    assert got.min() >= -32767 > PAD
    batch = audio.collate([got, got[:10]])
    assert (batch == PAD).sum() == len(got) - 10


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ((np.array([0.0, np.nan], np.float32), RATE), "not-finite"),
        ((np.array([0.0, np.inf], np.float32), RATE), "not-finite"),
        ((np.array([0.0, 1e300]), RATE), "not-finite"),
        ((np.full((10, 2), 3e38, np.float32), RATE), "not-finite"),
        ((np.zeros(0, np.float32), RATE), "no-samples"),
        ((np.zeros(1, np.float32), 192_000), "no-samples"),
        ((np.zeros((2, 3, 4), np.float32), RATE), "not-sound"),
        ((np.zeros(9, np.int64), RATE), "not-sound"),
        ((np.array(["a", "b"]), RATE), "not-sound"),
        ((np.zeros(9, np.float32), 16e3), "rate"),
        ((np.zeros(9, np.float32), None), "rate"),
        ((np.zeros(9, np.float32), 1), "rate"),
        ((np.zeros(9, np.float32), -8000), "rate"),
        (np.zeros(9, np.float32), "not-sound"),
        ({"label": 1}, "not-sound"),
        (b"", "not-sound"),
        (b"RIFF", "corrupt"),
        (b"hello, this is no sound", "not-sound"),
        (b"\0\0\0\x20ftypM4A " + bytes(99), "unknown-format"),
        (b"\x1aE\xdf\xa3" + bytes(99), "unknown-format"),
    ],
)
def test_what_is_no_sound_says_why(item: Any, code: str) -> None:
    assert reason(item) == code


def test_facts() -> None:
    loud = np.concatenate([np.ones(100, np.float32), sine(seconds=0.5, level=0.2)[:7900]])
    facts = decoding.decode(encoded(np.stack([loud, loud], 1), 8_000), RATE, 0.5)[1]
    assert (facts.format, facts.rate, facts.channels) == ("WAV", 8_000, 2)
    assert (facts.seconds, facts.kept) == (1.0, 0.5)
    assert facts.clipped == pytest.approx(100 / 4000)
    assert facts.peak == pytest.approx(1.0, abs=1e-3)
    assert not facts.silent
    assert not facts.cut
    assert decoding.decode((np.full(800, 5e-5, np.float32), RATE), RATE, 1.0)[1].silent
    assert not decoding.decode((np.full(800, 5e-4, np.float32), RATE), RATE, 1.0)[1].silent
    assert decoding.decode((sine(), RATE), RATE, 1.0)[1].clipped == 0.0


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "AIFF", "AU", "MP3"])
def test_a_file_that_ends_early_is_noticed(kind: str) -> None:
    whole = encoded(sine(seconds=2.0), kind=kind)
    assert not decoding.decode(whole, RATE, 60.0)[1].cut
    assert decoding.decode(whole[: len(whole) // 2], RATE, 60.0)[1].cut


def test_a_chunk_of_an_odd_length_before_the_samples_hides_no_early_end() -> None:
    """RIFF fills it up with one byte that its length does not count."""
    whole = bytearray(encoded(sine(seconds=2.0)))
    whole[12:12] = b"note" + struct.pack("<I", 5) + b"hello\0"
    whole[4:8] = struct.pack("<I", len(whole) - 8)
    assert not decoding.decode(bytes(whole), RATE, 60.0)[1].cut
    assert decoding.decode(bytes(whole[: len(whole) // 2]), RATE, 60.0)[1].cut


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "CAF"])
def test_what_cannot_be_read_to_its_end_is_refused(kind: str) -> None:
    whole = encoded(sine(seconds=2.0), kind=kind)
    assert reason(whole[: len(whole) // 2]) == "corrupt"


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFF000])
def test_a_length_that_was_not_known_when_it_was_written_is_no_damage(claimed: int) -> None:
    data = bytearray(encoded(sine()))
    place = data.index(b"data")
    data[place + 4 : place + 8] = struct.pack("<I", claimed)
    samples, facts = decoding.decode(bytes(data), RATE, 60.0)
    assert len(samples) == 8_000
    assert not facts.cut


def test_a_lying_header_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a header promises beyond the bytes that are there is never asked for."""
    asked: list[int] = []
    true = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, count, **given: (asked.append(count), true(self, count, **given))[1]
    )
    data = bytearray(encoded(np.zeros(64, np.int16)))
    data[-128 - 4 : -128] = struct.pack("<I", 2**31 - 200)
    decoding.decode(bytes(data), RATE, 60.0)
    assert asked[0] <= 800 * len(data) + 4096
    decoding.decode(encoded(sine(seconds=2.0)), RATE, 0.5)
    assert asked[1] == 8_000  # no more than is used is decoded
    flac = bytearray(encoded(np.zeros(64, np.int16), kind="FLAC"))  # whose header libsndfile takes at its word
    flac[22:26] = struct.pack(">I", 2**31)  # the samples of STREAMINFO
    with contextlib.suppress(DecodeError):
        decoding.decode(bytes(flac), RATE, 60.0)
    assert asked[2] <= 800 * len(flac) + 4096


@pytest.mark.real
def test_real_recordings(shared_data: Path) -> None:
    spec = AudioSpec()
    spoken = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))[::100]
    noises = sorted((shared_data / "esc10").glob("*/*.ogg"))[::12]
    assert len(spoken) > 10
    assert len(noises) == 10
    for path in spoken:
        samples, facts = audio.decode_with_facts(path, spec)
        stored, rate = soundfile.read(path, dtype="float32")
        assert (facts.rate, facts.format) == (8_000, "WAV")
        assert len(samples) == pytest.approx(2 * len(stored), abs=1)
        assert apart(heard(path, rate), stored) < 1e-4
    for path in noises:
        samples, facts = audio.decode_with_facts(path, spec)
        assert facts.rate == 44_100
        assert facts.seconds == pytest.approx(5.0, abs=0.1)
        assert samples.any()
