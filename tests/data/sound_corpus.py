"""Sixty kinds of recordings and of things that only look like one, each with the outcome that is expected of it.

Everything is made here with soundfile and struct; nothing is stored or fetched.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


@dataclass(frozen=True)
class Case:
    """One file of the corpus: how it is made, what must come of it ("ok" or a reason code), and what is seen of it."""

    kind: str
    file: str
    make: Callable[[Path], object]
    expected: str = "ok"
    seen: tuple[str, ...] = ()  # facts that must be true of it: silent, cut, clipped, long


def tone(seconds: float = 0.5, rate: int = RATE, channels: int = 1, level: float = 0.4) -> np.ndarray:
    """(T, A) float32."""
    t = np.arange(round(rate * seconds)) / rate
    return np.stack([level * np.sin(2 * np.pi * 300 * (c + 1) * t) for c in range(channels)], 1).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def wav(
    data: bytes, *, rate: int = RATE, channels: int = 1, bits: int = 16, form: int = 1, claims: int | None = None,
    riff: int | None = None, before: bytes = b"",
) -> bytes:  # fmt: skip
    """A WAV by hand: any header over any bytes."""
    width = channels * bits // 8
    kind = struct.pack("<HHIIHH", form, channels, rate, rate * width % 2**32, width % 2**16, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + kind + before
    size = len(body) + 8 + len(data) if riff is None else riff
    return b"RIFF" + struct.pack("<I", size) + body + b"data" + struct.pack("<I", claims or len(data)) + data


PCM = (tone() * 32767).astype("<i2").tobytes()
ID3 = b"ID3\x03\0\0\0\0\0\x15TIT2\0\0\0\x0b\0\0\0some title"
HTML = b"<!DOCTYPE html><html><body>404 not found</body></html>"


def _bytes(data: Callable[[], bytes] | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data())


def _sound(kind: str = "WAV", subtype: str | None = None, rate: int = RATE, **made: float) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(encoded(tone(rate=rate, **made), rate, kind, subtype))  # type: ignore[arg-type]


def _cut(kind: str, share: float) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        whole = encoded(tone(2.0), kind=kind)
        path.write_bytes(whole[: int(len(whole) * share)])

    return make


def _values(values: np.ndarray, subtype: str = "FLOAT", rate: int = RATE) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(encoded(values, rate, subtype=subtype))


def _flipped(kind: str) -> Callable[[Path], object]:
    """Bytes in the middle of the data are others."""

    def make(path: Path) -> None:
        data = bytearray(encoded(tone(2.0), kind=kind))
        middle = len(data) // 2
        data[middle : middle + 300] = b"\xa5\x00\x5a" * 100
        path.write_bytes(data)

    return make


def _noisy(count: int) -> np.ndarray:
    return np.full(count, np.nan, np.float32)


_WAV = _sound()

CASES: tuple[Case, ...] = (
    *(
        Case(f"{subtype} WAV", f"{subtype}.wav", _sound("WAV", subtype))
        for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW", "MS_ADPCM", "GSM610")
    ),
    *(
        Case(kind, f"ok.{kind.lower()}", _sound(kind))
        for kind in ("FLAC", "OGG", "MP3", "AIFF", "AU", "W64", "CAF", "RF64", "WAVEX")
    ),
    *(Case(f"{count} channels", f"channels{count}.wav", _sound(channels=count)) for count in (2, 6, 64)),
    *(Case(f"{rate} Hz", f"rate{rate}.wav", _sound(rate=rate)) for rate in (4_000, 7_999, 11_025, 44_100, 192_000)),
    Case("1 Hz", "slow.wav", _bytes(wav(PCM, rate=1)), "rate"),
    Case("4 GHz", "fast.wav", _bytes(wav(PCM, rate=2**32 - 1)), "corrupt"),
    Case("no rate", "norate.wav", _bytes(wav(PCM, rate=0)), "corrupt"),
    Case("65 channels", "crowd.wav", _bytes(wav(bytes(6500), channels=65)), "channels"),
    Case("no channels", "nochannels.wav", _bytes(wav(PCM, channels=0)), "corrupt"),
    Case("empty", "empty.wav", _bytes(b""), "empty-file"),
    Case("one byte", "one.wav", _bytes(b"R"), "not-sound"),
    Case("RIFF alone", "riff.wav", _bytes(b"RIFF"), "corrupt"),
    Case("a header without samples", "header.wav", _bytes(wav(b"")), "no-samples"),
    Case("one sample", "sample.wav", _values(np.array([0.5], np.float32))),
    Case("one sample at 192 kHz", "less.wav", _values(np.array([0.5], np.float32), rate=192_000), "no-samples"),
    Case("silence", "silence.wav", _values(np.zeros(8000, np.float32)), seen=("silent",)),
    Case(
        "an hour of silence",
        "hour.flac",
        _bytes(lambda: encoded(np.zeros(3600 * 8000, np.int16), 8000, "FLAC")),
        seen=("silent", "long"),
    ),
    Case("clipped", "clipped.wav", _values((20 * tone()).clip(-1, 1)), seen=("clipped",)),
    Case("floats beyond full scale", "loud.wav", _values(3 * tone(level=1.0)), seen=("clipped",)),
    Case("not a number", "nan.wav", _values(_noisy(800)), "not-finite"),
    Case("infinite", "inf.wav", _values(np.full(800, np.inf, np.float32)), "not-finite"),
    Case("WAV cut", "cut.wav", _cut("WAV", 0.5), seen=("cut",)),
    Case("AIFF cut", "cut.aiff", _cut("AIFF", 0.5), seen=("cut",)),
    Case("MP3 cut", "cut.mp3", _cut("MP3", 0.5), seen=("cut",)),
    Case("FLAC cut", "cut.flac", _cut("FLAC", 0.5), "corrupt"),
    Case("OGG cut", "cut.ogg", _cut("OGG", 0.5), "corrupt"),
    Case("WAV cut in its header", "head.wav", _cut("WAV", 0.0003), "corrupt"),
    Case("FLAC with other bytes", "flip.flac", _flipped("FLAC"), "corrupt"),
    Case("WAV with other bytes", "flip.wav", _flipped("WAV")),
    Case("a size of 0", "size0.wav", _bytes(wav(PCM, riff=0))),
    Case("a size of all bits", "size1.wav", _bytes(wav(PCM, riff=2**32 - 1, claims=2**32 - 1))),
    Case("a size of 2 GB", "size2.wav", _bytes(wav(PCM, claims=2**31 - 2**25)), seen=("cut",)),
    Case("0 bits", "bits0.wav", _bytes(wav(PCM, bits=0)), "corrupt"),
    Case("a format nobody knows", "form.wav", _bytes(wav(PCM, form=0x7777)), "corrupt"),
    Case("chunks before the samples", "list.wav", _bytes(wav(PCM, before=b"LIST\x04\0\0\0INFO" * 50))),
    Case("an ID3 chunk", "id3.wav", _bytes(wav(PCM, before=b"id3 " + struct.pack("<I", len(ID3)) + ID3 + b"\0"))),
    Case("an ID3 tag before MP3", "tag.mp3", _bytes(lambda: ID3 + encoded(tone(2.0), kind="MP3"))),
    Case("bytes after the end", "tail.wav", _bytes(lambda: encoded(tone()) + bytes(999))),
    Case("FLAC named wav", "really_flac.wav", _sound("FLAC")),
    Case("WAV named mp3", "really_wav.mp3", _WAV),
    Case("HTML named wav", "html.wav", _bytes(HTML), "not-sound"),
    Case("text named wav", "text.wav", _bytes(b"this is no sound\n" * 9), "not-sound"),
    Case("a picture named wav", "png.wav", _bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "not-sound"),
    Case("M4A", "song.wav", _bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(99)), "unknown-format"),
    Case("WebM", "song.ogg", _bytes(b"\x1aE\xdf\xa3" + bytes(99)), "unknown-format"),
    Case("upper-case suffix", "UPPER.WAV", _WAV),
    Case("no suffix", "nosuffix", _WAV),
    Case("quotes in the name", 'it\'s "quoted".wav', _WAV),
    Case("newline in the name", "two\nlines.wav", _WAV),
    Case("right-to-left override in the name", "evil\u202evaw.exe", _WAV),
    Case("name with a leading dash", "-rf.wav", _WAV),
    Case("dangling link", "dangling.wav", lambda path: path.symlink_to("nowhere.wav"), "dangling-link"),
    Case("link to itself", "self.wav", lambda path: path.symlink_to(path.name), "link-loop"),
    Case("pipe", "fifo.wav", lambda path: os.mkfifo(path), "not-a-file"),
    Case("folder", "folder.wav", lambda path: path.mkdir(), "is-a-folder"),
    Case("gone since it was listed", "gone.wav", lambda path: None, "vanished"),
)


def build(folder: Path) -> dict[str, Path]:
    """Make every case; its path by kind."""
    paths = {}
    for case in CASES:
        paths[case.kind] = folder / case.file
        case.make(paths[case.kind])
    return paths
