"""Sounds: any rate, channels and format to mono 16 bit once (cacheable), windows, augmentation, batches, previews.

Shapes: B rows, T samples. A row is int16 (T,); in a batch (B, T) the value ``PAD`` marks places that hold no sample.
Files are read by soundfile (libsndfile), resampled by soxr; neither needs torch.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from headstart.core.errors import ConfigError
from headstart.core.plural import plural
from headstart.core.registry import suggest
from headstart.data.modalities.base import insist_types
from headstart.data.sounds import decoding
from headstart.data.sounds.augment import PRESETS as PRESETS
from headstart.data.sounds.augment import AudioPolicy, augmented
from headstart.data.sounds.augment import policy as policy
from headstart.data.splits import Rows

name = "audio"
version = decoding.VERSION
NOUN = ("recording", "recordings")
EXTENT = "seconds"
DTYPE, RANK = "int16", 1
SKETCH = (32, 32)  # the loudness over time and pitch, as a small picture
_EDGES = np.unique(np.geomspace(1, 129, 33).round().astype(int))  # of its bands
_ROWS = np.linspace(0, len(_EDGES) - 2, SKETCH[0]).round().astype(int)
_WINDOW = np.hanning(256).astype(np.float32)
PAD = -32768  # no sample has it: decoding ends at -32767
MAX_SECONDS = 60.0  # of one recording that are used
LONGEST_WINDOW = 30.0  # seconds that a batch holds of each row, unless the user asks for more
SHORTEST_WINDOW = 1.0
COVERED = 0.95  # share of the rows that fit the window whole
PREVIEW_RATE, PREVIEW_SECONDS = 8000, 6.0

Facts = decoding.SoundFacts


@dataclass(frozen=True)
class AudioSpec:
    """What a backbone wants to hear: mono at ``rate`` samples a second, in windows of ``seconds``.

    ``seconds`` None is chosen from the lengths of the rows. Training sees a random window of what is longer;
    predictions are of all windows of a recording, their features averaged. ``form`` says how the network takes the
    samples: "waveform" (-1..1), "int16" (-32768..32767), "standardised" (mean 0, variance 1 over each window, as
    wav2vec2 was trained), "fbank" (AST's log-mel frames), "whisper" (its log-mel frames).
    """

    modality: ClassVar[str] = "audio"
    rate: int = 16_000
    seconds: float | None = None
    form: str = "waveform"
    bins: int = 0  # mel bins of the log-mel forms
    frames: int = 0  # of "fbank", whose mean and spread follow
    mean: float = 0.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        kinds = dict.fromkeys(("rate", "bins", "frames"), int) | dict.fromkeys(("mean", "spread"), (int, float))
        insist_types(self, {**kinds, "seconds": (int, float, type(None)), "form": str})
        if not 4_000 <= self.rate <= 192_000:
            raise ConfigError(f"a rate of {self.rate} samples a second", remedy="usual is 16000")
        if self.form not in FORMS:
            raise ConfigError(
                f"unknown form '{self.form}'{suggest(self.form, FORMS)}", remedy=f"known: {', '.join(FORMS)}"
            )
        if self.seconds is not None and not 0.1 <= self.seconds <= MAX_SECONDS:
            raise ConfigError(f"windows of {self.seconds} s", remedy=f"give 0.1 to {MAX_SECONDS:g}")

    @property
    def window(self) -> int:
        """Samples of one window."""
        return round(self.rate * (SHORTEST_WINDOW if self.seconds is None else self.seconds))

    @property
    def input_shape(self) -> tuple[int]:
        """(T,) of one window."""
        return (self.window,)

    @property
    def kept_by(self) -> tuple[Any, ...]:
        """All that canvases depend on."""
        return (self.rate,)

    @property
    def described(self) -> str:
        """For people."""
        return f"mono at {self.rate} Hz, windows of {self.window / self.rate:g} s ({self.form})"

    def blank(self, rows: int) -> np.ndarray:
        """Silence, int16 (rows, T)."""
        return np.zeros((rows, self.window), np.int16)

    def noise(self, rows: int) -> np.ndarray:
        """The same random sounds each time, int16 (rows, T)."""
        rng = np.random.Generator(np.random.Philox(0))
        return (rng.standard_normal((rows, self.window)) * 2000).clip(-32767, 32767).astype(np.int16)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> AudioSpec:
        """The spec that ``to_json`` wrote."""
        return cls(**stored)


FORMS = ("waveform", "int16", "standardised", "fbank", "whisper")
Spec = AudioSpec


def decode(item: Any, spec: AudioSpec) -> np.ndarray:
    """The sound, mono int16 (T,) at the spec's rate. Raises DecodeError with a reason code."""
    return decode_with_facts(item, spec)[0]


def decode_with_facts(item: Any, spec: AudioSpec) -> tuple[np.ndarray, Facts]:
    """The samples, and what was seen while decoding them."""
    return decoding.decode(item, spec.rate, MAX_SECONDS)


def fingerprint(item: Any) -> str:
    """SHA-256 of the file's bytes, or of rate, shape, type and samples."""
    return decoding.fingerprint(item)


def extent(item: Any) -> float:
    """Seconds by the header of a file's bytes."""
    return decoding.seconds_of(item)


def canvas(value: np.ndarray, spec: AudioSpec) -> np.ndarray:
    """The samples themselves: they are what is worth keeping."""
    return value


def finish(canvas: np.ndarray, spec: AudioSpec) -> np.ndarray:
    """What the network hears without chance: all samples, in whole windows where there is more than one."""
    if len(canvas) <= spec.window:
        return canvas
    count = -(-len(canvas) // spec.window)
    starts = np.linspace(0, len(canvas) - spec.window, count).round().astype(int)  # they overlap a little
    return np.concatenate([canvas[start : start + spec.window] for start in starts])


def prepare(item: Any, spec: AudioSpec) -> np.ndarray:
    """One item from file to network input, int16 (T,)."""
    return finish(decode(item, spec), spec)


def augment(
    canvas: np.ndarray, spec: AudioSpec, policy: AudioPolicy | Callable[..., Any] | None, rng: np.random.Generator
) -> np.ndarray:
    """What the network hears with chance: one window; every draw comes from ``rng``."""
    if callable(policy):
        return np.asarray(policy(canvas.copy(), rng), dtype=np.int16)[: spec.window]
    if policy is None or not policy.is_random:
        return finish(canvas, spec)
    return augmented(canvas, spec.window, spec.rate, policy, rng)


def collate(values: Sequence[np.ndarray], spec: AudioSpec | None = None) -> np.ndarray:
    """B rows as one batch (B, T), as long as the longest; PAD where there is no sample."""
    batch = np.full((len(values), max(map(len, values))), PAD, np.int16)
    for row, value in enumerate(values):
        batch[row, : len(value)] = value
    return batch


def plain(rows: Rows, channels: int) -> AudioSpec:
    """A spec to listen to recordings with where no backbone is asked."""
    return AudioSpec()


def suited(spec: AudioSpec, rows: Rows) -> AudioSpec:
    """The spec for these rows, before they are decoded: nothing needs to change."""
    return spec


def fitted(spec: AudioSpec, lengths: np.ndarray) -> tuple[AudioSpec, str]:
    """The spec for rows of these lengths (samples), and what becomes of those that the window does not hold whole.

    Where no window was asked for, it is one that holds most of the rows.
    """
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return spec, ""
    how = "as asked"
    if spec.seconds is None:
        seconds = float(np.quantile(lengths, COVERED)) / spec.rate
        tenths = np.ceil(10 * min(max(seconds, SHORTEST_WINDOW), LONGEST_WINDOW)) / 10
        spec, how = replace(spec, seconds=float(tenths)), "chosen from the lengths of the rows"
    longer = int((lengths > spec.window).sum())
    if not longer:
        return (
            spec,
            f"{how}: the window holds every row whole",
        )
    told = "training hears a random window of these, predictions the average of all their windows"
    of = f"of {len(lengths):,} rows"
    return spec, f"{how}: {plural(longer, f'{of} is', f'{of} are')} longer than the window; {told}"


def largest_canvas(spec: AudioSpec) -> int:
    """Bytes that no canvas of this spec exceeds."""
    return int(2 * spec.rate * MAX_SECONDS)


def sketch(canvas: np.ndarray) -> np.ndarray:
    """The whole sound as a small spectrogram, uint8 (32, 32): 32 bands (log) by 32 moments, in steps of 0.4 dB."""
    frames = max(1, len(canvas) // 256)
    cut = np.resize(canvas, frames * 256).reshape(frames, 256).astype(np.float32)
    power = np.abs(np.fft.rfft(cut * _WINDOW, axis=1)) ** 2
    bands = (np.add.reduceat(power, _EDGES[:-1], axis=1) / np.diff(_EDGES))[:, _ROWS]  # reduceat: a call, not 33
    if frames >= SKETCH[1]:
        moments, (length, longer) = np.arange(SKETCH[1]), divmod(frames, SKETCH[1])
        starts = moments * length + np.minimum(moments, longer)
        small = np.add.reduceat(bands, starts, axis=0) / np.diff(starts, append=frames)[:, None]
    else:
        small = bands[np.linspace(0, frames - 1, SKETCH[1]).round().astype(int)]
    decibels = 10 * np.log10(small.T + 1.0)
    return (2.0 * decibels).clip(0, 255).astype(np.uint8)


def texts(item: Any) -> tuple[str, ...]:
    """Nothing: an item is no text."""
    return ()


def preview(item: Any) -> tuple[str, bytes]:
    """The beginning of the sound, small: ".wav" and the bytes of that file (8 kHz, mono)."""
    import soundfile

    value, _ = decoding.decode(item, PREVIEW_RATE, PREVIEW_SECONDS)
    out = io.BytesIO()
    soundfile.write(out, value, PREVIEW_RATE, format="WAV", subtype="PCM_16")
    return ".wav", out.getvalue()


def shown(seen: np.ndarray, spec: AudioSpec) -> tuple[str, bytes]:
    """What the network hears of one row (T,): ".wav" and the bytes of that file (8 kHz)."""
    return preview((seen[seen != PAD], spec.rate))
