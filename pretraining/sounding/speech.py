"""Synthesised speech: espeak-ng's many voices through its library, and the voices of flite.

Debian's packages espeak-ng, flite and wamerican are all it needs. Samples are int16 at 16 kHz, silence cut off.
"""

from __future__ import annotations

import ctypes
import io
import subprocess
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile
import soxr

RATE = 16_000
LONGEST = 1.3  # seconds
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
_VARIANTS = """
    adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris caleb croak david Denis Diogo ed
    edward edward2 f1 f2 f3 f4 f5 Gene Gene2 grandma grandpa gustave Henrique Hugo iven iven2 iven3 iven4 Jacky
    john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 klatt6 Lee linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo Marco
    Mario max Michael michel miguel Mike norbert pablo paul pedro quincy rob robert sandro shelby steph steph2
    steph3 travis victor whisper whisperf zac anika AnxiousAndy Nguyen Storm
"""
VARIANTS = _VARIANTS.split()
_TONGUES = """
    de nl sv da fr es it pt-br ro pl cs ru uk el tr fi hu et id ms sw vi hi ta ja ko cmn ar fa cy
"""
TONGUES = _TONGUES.split()
FLITE = ("kal16", "awb", "rms", "slt")
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_UTF8 = 1


@dataclass(frozen=True)
class Utterance:
    """What is said, and how: ``speed`` in words a minute, ``pitch`` and ``spread`` in 0..99."""

    text: str
    voice: str  # espeak-ng's name, such as en-us+f2; or flite:slt
    speed: int = 160
    pitch: int = 50
    spread: int = 50


class Synthesiser:
    """One of a process: libespeak-ng keeps its state in the library."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libespeak-ng.so.1")
        self.c = ctypes.CDLL(None)
        self.rate = self.library.espeak_Initialize(2, 0, None, 0)  # synchronous, samples to the callback
        if self.rate <= 0:
            raise RuntimeError("libespeak-ng does not start; is the package espeak-ng installed?")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._parts: list[np.ndarray] = []
        self._callback = kind(self._heard)  # kept, or it would be collected while the library holds it
        self.library.espeak_SetSynthCallback(self._callback)
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._voice = ""

    def _heard(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if count > 0 and samples:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, utterance: Utterance, seed: int = 0) -> np.ndarray:
        """int16 (T,) at 16 kHz, at most ``LONGEST`` seconds."""
        if utterance.voice.startswith("flite:"):
            return _trimmed(_flite(utterance))
        self.voice(utterance.voice)
        self.c.srand(seed)  # whispers and jitter draw from the library's generator
        for parameter, value in ((_RATE, utterance.speed), (_PITCH, utterance.pitch), (_RANGE, utterance.spread)):
            self.library.espeak_SetParameter(parameter, value, 0)
        text = utterance.text.encode()
        self._parts = []
        self.library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None)
        wave = np.concatenate(self._parts) if self._parts else np.zeros(1, np.int16)
        return _trimmed(soxr.resample(wave, self.rate, RATE, quality="MQ"))

    def voice(self, name: str) -> None:
        """Switch to a voice.

        Raises:
            ValueError: espeak-ng knows no such voice.
        """
        if name != self._voice:
            if self.library.espeak_SetVoiceByName(name.encode()) != 0:
                raise ValueError(f"espeak-ng knows no voice '{name}'")
            self._voice = name

    def phonemes(self, word: str) -> str:
        """The pronunciation in American English, as espeak's mnemonics parted by ``_``."""
        self.voice("en-us")
        text = ctypes.c_char_p(word.encode())
        found = self.library.espeak_TextToPhonemes(ctypes.byref(text), _UTF8, (ord("_") << 8) | 0)
        return str(found.decode())


@lru_cache(maxsize=1)
def synthesiser() -> Synthesiser:
    """The one of this process."""
    return Synthesiser()


def voices(held_out: bool) -> list[str]:
    """English voices: accents with variants, so that each variant speaks a few; every sixth variant is held out."""
    variants = [variant for row, variant in enumerate(VARIANTS) if (row % 6 == 5) == held_out]
    made = [
        f"{ACCENTS[(row + turn * 3) % len(ACCENTS)]}+{name}" for row, name in enumerate(variants) for turn in (0, 1)
    ]
    return made + [f"flite:{name}" for name in FLITE if (name == "rms") == held_out]


def drawn(text: str, voice: str, rng: np.random.Generator) -> Utterance:
    """The text in this voice, at a speed and pitch by chance."""
    return Utterance(text, voice, int(rng.integers(95, 215)), int(rng.integers(15, 85)), int(rng.integers(10, 90)))


def _flite(utterance: Utterance) -> np.ndarray:
    stretch, semitones = 150 / utterance.speed, (utterance.pitch - 50) / 50
    given = ["flite", "-voice", utterance.voice.removeprefix("flite:"), "--setf", f"duration_stretch={stretch:.3f}"]
    given += [
        "--setf",
        f"int_f0_target_mean={110 * 2 ** (0.6 * semitones):.1f}",
        "-t",
        utterance.text,
        "-o",
        "/dev/stdout",
    ]
    done = subprocess.run(given, capture_output=True, check=True)
    wave, rate = soundfile.read(io.BytesIO(done.stdout), dtype="int16")
    return wave if rate == RATE else soxr.resample(wave, rate, RATE)


def _trimmed(wave: np.ndarray) -> np.ndarray:
    """Without silence at both ends, below 1 % of the peak, and no longer than ``LONGEST``."""
    loud = np.flatnonzero(np.abs(wave.astype(np.int32)) > max(30, 0.01 * np.abs(wave.astype(np.int32)).max()))
    if not len(loud):
        return wave[:1]
    return np.ascontiguousarray(wave[loud[0] : loud[-1] + 1][: round(LONGEST * RATE)])
