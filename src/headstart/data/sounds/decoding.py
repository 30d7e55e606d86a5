"""The one decoder of sounds: a file, bytes, samples or a dataset's dictionary to mono 16 bit, the same on every path.

Shapes: T samples, A channels. The header is read before a sample is decoded, so that what lies about its length costs
nothing; decoding stops at the seconds that are used.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile
import soxr

from headstart.data.files import read_bytes
from headstart.data.modalities.base import DecodeError, Facts

# Raise the first number whenever the samples that come out of any file change: cached rows are then made anew.
VERSION = f"2 soundfile {soundfile.__version__} libsndfile {soundfile.__libsndfile_version__} soxr {soxr.__version__}"
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU", "W64", "CAF")
RATES = (1_000, 768_000)  # samples a second; outside of them a header lies
MAX_CHANNELS = 64
MAX_SAMPLES = 24_000_000  # of all channels that are decoded: a minute of stereo at 192 kHz
CLIPPED = 0.999  # of full scale
MAX_BYTES = 256 * 2**20  # of a file: it is read as a whole, although no more than a minute of it is used
MAX_CHUNKS = 1000  # of a file that are passed over on the way to its samples
UNKNOWN_BYTES = 0x7F000000  # from here on a length stands for "not known yet"
SILENT = 1e-4  # of full scale (-80 dB): softer than the noise of any microphone


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundFacts(Facts):
    """What was seen of one recording."""

    rate: int  # as stored
    channels: int
    seconds: float  # as stored; what is used may be less
    kept: float  # seconds that are used
    peak: float  # of full scale
    clipped: float  # share of the samples at full scale
    silent: bool
    cut: bool  # the file ends before its header says


def decode(item: Any, rate: int, seconds: float) -> tuple[np.ndarray, SoundFacts]:
    """Mono int16 (T,) at ``rate``, at most the first ``seconds``, and what was seen.

    Takes a path, bytes, samples (T,) or (T, A) with their rate as a pair ``(samples, rate)``, or a dictionary with
    ``array`` and ``sampling_rate``, or with ``bytes`` or ``path``, as `datasets` gives them.

    Raises:
        DecodeError: not-sound, unknown-format, corrupt, no-samples, rate, channels, not-finite, or a code of
            ``files.read_bytes``.
    """
    where = ""
    if isinstance(item, Mapping):
        where = str(item.get("path") or "")
        item = _of_mapping(item)
    if isinstance(item, (str, os.PathLike)):
        where = os.fspath(item)
        item = read_bytes(item, limit=MAX_BYTES)
    try:
        return _decoded(item, rate, seconds)
    except DecodeError as error:
        raise DecodeError(error.reason.code, error.reason.message, where=where) from error


def _decoded(item: Any, rate: int, seconds: float) -> tuple[np.ndarray, SoundFacts]:
    """The same of bytes or of samples with their rate."""
    if isinstance(item, bytes):
        samples, found, total, kind, cut = _read(item, seconds)
        size, digest = len(item), hashlib.sha256(item).hexdigest()
    else:
        samples, found = _of_values(item)
        total, kind, cut = len(samples), "array", False
        size, digest = samples.nbytes, fingerprint(item)
        samples = samples[: round(seconds * found)]
    with np.errstate(over="ignore", invalid="ignore"):
        mono = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise DecodeError("not-finite", "holds samples that are no numbers")
    peak = float(np.abs(samples).max())
    facts = SoundFacts(
        format=kind,
        bytes=size,
        sha256=digest,
        rate=found,
        channels=samples.shape[1],
        seconds=total / found,
        kept=len(samples) / found,
        peak=peak,
        clipped=float((np.abs(samples) >= CLIPPED).mean()),
        silent=peak < SILENT,
        cut=cut,
    )
    if found != rate:
        mono = soxr.resample(mono.clip(-1, 1), found, rate)
        if not len(mono):
            raise DecodeError("no-samples", "is shorter than one sample")
    return (mono * 32767).round().clip(-32767, 32767).astype(np.int16), facts


def fingerprint(item: Any) -> str:
    """SHA-256 of the file's bytes, or of rate, shape, type and samples."""
    if isinstance(item, Mapping):
        item = _of_mapping(item)
    if isinstance(item, (str, os.PathLike)):
        return hashlib.sha256(read_bytes(item, limit=MAX_BYTES)).hexdigest()
    if isinstance(item, bytes):
        return hashlib.sha256(item).hexdigest()
    samples, rate = _of_values(item)
    told = f"{rate} {samples.shape} {samples.dtype}".encode()
    return hashlib.sha256(told + np.ascontiguousarray(samples).tobytes()).hexdigest()


def seconds_of(content: bytes) -> float:
    """The length by the header, before a sample is decoded; 0 where none can be told (decoding says why)."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            return float(file.frames / max(1, file.samplerate))
    except soundfile.LibsndfileError:
        return 0.0


def _read(content: bytes, seconds: float) -> tuple[np.ndarray, int, int, str, bool]:
    """Samples float32 (T, A), the rate, the stored length, the format, and whether the file ends too early."""
    try:
        with soundfile.SoundFile(_Content(content)) as file:
            if file.format not in FORMATS:
                raise DecodeError("unknown-format", f"is {file.format}, which is not read")
            _demand(file.samplerate, file.channels)
            wanted = min(file.frames, round(seconds * file.samplerate), MAX_SAMPLES // file.channels)
            # What the header promises is never allocated: a frame takes a hundredth of a byte at least.
            possible = min(wanted, 800 * len(content) + 4096)
            samples = file.read(possible, dtype="float32", always_2d=True)
            rate, frames, kind = file.samplerate, file.frames, file.format
    except soundfile.LibsndfileError as error:
        raise DecodeError(*_reason(content, error.error_string)) from error
    if not len(samples):
        raise DecodeError("no-samples", "holds no samples")
    if len(samples) < wanted:
        return samples, rate, len(samples), kind, True
    return samples, rate, frames, kind, _ends_early(content)


class _Content(io.BytesIO):
    """A file in memory; a damaged one may send libsndfile to places before its beginning, which it must be told."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _ends_early(content: bytes) -> bool:
    """Whether the file holds fewer bytes of samples than its header says; libsndfile lowers the number without a word.

    A length that programs write before they know it (0, or nearly all bits set) says nothing.
    """
    if content.startswith(b".snd"):
        start, claimed = (int.from_bytes(content[at : at + 4], "big") for at in (4, 8))
        return claimed < UNKNOWN_BYTES and start + claimed > len(content)
    order: Literal["little", "big"] = "little" if content.startswith(b"RIFF") else "big"
    if not content.startswith((b"RIFF", b"RIFX", b"FORM")):
        return False
    place = 12
    for _ in range(MAX_CHUNKS):
        claimed = int.from_bytes(content[place + 4 : place + 8], order)
        if content[place : place + 4] in (b"data", b"SSND"):
            return claimed < UNKNOWN_BYTES and place + 8 + claimed > len(content)
        place += 8 + claimed + claimed % 2
    return False


def _demand(rate: int, channels: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise DecodeError("rate", f"claims {rate:,} samples a second")
    if not 1 <= channels <= MAX_CHANNELS:
        raise DecodeError("channels", f"claims {channels:,} channels")


_STARTS = (
    b"ID3",
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"riff",
    b"fLaC",
    b"OggS",
    b"FORM",
    b".snd",
    b"caff",
)  # of files that are sounds, or were meant to be


def _reason(content: bytes, told: str) -> tuple[str, str]:
    """Code and sentence for what libsndfile does not open."""
    if content[4:8] == b"ftyp":
        return "unknown-format", "is M4A or MP4, which is not read; convert it to WAV or FLAC"
    if content[:4] == b"\x1aE\xdf\xa3":
        return "unknown-format", "is WebM or Matroska, which is not read; convert it to WAV or FLAC"
    if content.startswith(_STARTS):
        return "corrupt", f"is damaged ({told.rstrip('.')})"
    return "not-sound", "is no sound file"


def _of_mapping(item: Mapping[str, Any]) -> Any:
    """What a dataset's dictionary holds: samples with their rate, bytes, or a path."""
    if item.get("array") is not None:
        return item["array"], item.get("sampling_rate")
    found = item.get("bytes") or item.get("path")
    if found is None:
        raise DecodeError("not-sound", "is a dictionary without array, bytes or path")
    return found


def _of_values(item: Any) -> tuple[np.ndarray, int]:
    """Samples float32 (T, A) within -1..1, and their rate."""
    if not isinstance(item, tuple) or len(item) != 2:
        raise DecodeError("not-sound", f"is a {type(item).__name__}; samples need their rate: (samples, rate)")
    values, rate = item
    if not isinstance(rate, (int, np.integer)):
        raise DecodeError("rate", f"has the rate {rate!r}")
    values = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if values.ndim not in (1, 2) or values.dtype.kind not in "iuf" or not values.size:
        raise DecodeError("no-samples" if not values.size else "not-sound", f"has the shape {values.shape}")
    if values.dtype in (np.int64, np.uint64):
        raise DecodeError("not-sound", f"has samples of type {values.dtype}, whose full scale is not known; give int16")
    if values.ndim == 2 and values.shape[0] < values.shape[1] and values.shape[0] <= MAX_CHANNELS:
        values = values.T  # (A, T), as torchaudio gives it
    _demand(int(rate), 1 if values.ndim == 1 else values.shape[1])
    if values.dtype.kind in "iu":
        middle = 2 ** (8 * values.dtype.itemsize - 1)
        values = (values.astype(np.float64) - (middle if values.dtype.kind == "u" else 0)) / middle
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return values.astype(np.float32).reshape(len(values), -1), int(rate)
