"""Sounds made by recipe: what makes a class is the recipe with its settings in bins; the rest is drawn by chance.

They stand for what one hears outside of speech: calls, barks, ticks, engines, wind, rain, fire, bells, strings.
Every recipe takes a generator and its bins, and returns float samples (T,) of any scale, ``SECONDS`` long, at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

RATE, SECONDS = 16_000, 2.0
COUNT = round(RATE * SECONDS)
TIME = np.arange(COUNT) / RATE

Generator = np.random.Generator
Bounds = tuple[float, float]
LOW, MIDDLE, HIGH = (90, 220), (260, 620), (750, 1800)
PITCHES = (LOW, MIDDLE, HIGH)


def between(rng: Generator, bounds: Bounds) -> float:
    """A number between two, even on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))


def noise(rng: Generator, low: float, high: float, slope: float = 0.0) -> np.ndarray:
    """Noise between two frequencies with soft edges, falling by ``slope`` powers of frequency."""
    spectrum = np.fft.rfft(rng.standard_normal(COUNT))
    places = np.fft.rfftfreq(COUNT, 1 / RATE) + 1.0
    gain = 1 / (1 + (low / places) ** 6) / (1 + (places / high) ** 6) * places**-slope
    wave = np.fft.irfft(spectrum * gain, COUNT)
    return wave / (wave.std() + 1e-9)


def smooth(rng: Generator, hertz: float) -> np.ndarray:
    """A slow random curve of spread 1 that changes about ``hertz`` times a second."""
    knots = rng.standard_normal(max(4, int(SECONDS * hertz) + 4))
    return np.interp(TIME * hertz, np.arange(len(knots)), knots)


def stack(rng: Generator, pitch: np.ndarray, tilt: float, formants: bool = True) -> np.ndarray:
    """Harmonics of a pitch curve (T,) in hertz, softer upwards by ``tilt``, through resonances where wanted."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE + rng.uniform(0, 6)
    peaks = [between(rng, bounds) for bounds in ((350, 900), (900, 2200), (2200, 4000))] if formants else []
    wave = np.zeros(COUNT)
    for harmonic in range(1, min(25, int(7800 / pitch.max())) + 1):
        hertz = harmonic * pitch.mean()
        gain = sum(1 / (1 + ((hertz - peak) / (0.18 * peak)) ** 2) for peak in peaks) + 0.1 if peaks else 1.0
        wave += harmonic**-tilt * gain * np.sin(harmonic * phase)
    return wave


def events(rng: Generator, rate: float, jitter: float) -> np.ndarray:
    """Times in seconds: regular at ``rate`` a second with some jitter; by chance alone where ``jitter`` is 1."""
    if jitter >= 1:
        return np.sort(rng.uniform(0, SECONDS, max(1, rng.poisson(rate * SECONDS))))
    times = (np.arange(int(rate * SECONDS) + 1) + rng.uniform()) / rate
    times += jitter * rng.standard_normal(len(times)) / rate
    return times[(times >= 0) & (times < SECONDS - 0.01)]


def placed(rng: Generator, times: np.ndarray, grains: list[np.ndarray], spread: float) -> np.ndarray:
    """Short sounds added at times, their loudness varying by ``spread`` (natural logarithm)."""
    wave = np.zeros(COUNT)
    for index, time in enumerate(times):
        grain, start = grains[index % len(grains)], int(time * RATE)
        part = grain[: COUNT - start]
        wave[start : start + len(part)] += part * np.exp(spread * rng.standard_normal())
    return wave


def ring(rng: Generator, hertz: Bounds, decay: Bounds, partials: int = 1) -> np.ndarray:
    """A knock: decaying sines at random inharmonic ratios."""
    fade, base = between(rng, decay), between(rng, hertz)
    t = np.arange(int(RATE * min(SECONDS, 6 * fade)) + 2) / RATE
    wave = np.zeros(len(t))
    for partial in range(partials):
        ratio = 1.0 if partial == 0 else rng.uniform(1.2, 5.0)
        wave += np.sin(2 * np.pi * min(base * ratio, 7600) * t + rng.uniform(0, 6)) * np.exp(-t / fade * ratio**0.7)
    return wave


def envelope(rng: Generator, attack: Bounds, decay: Bounds) -> np.ndarray:
    """A rise and a fall (T', ) in 0..1."""
    rise, fall = between(rng, attack), between(rng, decay)
    t = np.arange(int(RATE * min(SECONDS, rise + 5 * fall))) / RATE
    return np.minimum(t / rise, 1) * np.exp(-np.maximum(t - rise, 0) / fall)


def vibrato(rng: Generator, pitch: Bounds, rate: Bounds) -> np.ndarray:
    depth = rng.uniform(0.05, 0.4)
    curve = between(rng, pitch) * (1 + depth * np.sin(2 * np.pi * between(rng, rate) * TIME + rng.uniform(0, 6)))
    return stack(rng, curve, rng.uniform(0.6, 3.0), formants=False)


def beating(rng: Generator, pitch: Bounds, rate: Bounds) -> np.ndarray:
    wave = stack(rng, between(rng, pitch) * np.ones(COUNT), rng.uniform(0.5, 2.5), formants=False)
    return wave * (1 - rng.uniform(0.6, 1) * (0.5 + 0.5 * np.sin(2 * np.pi * between(rng, rate) * TIME)))


def sweep(rng: Generator, direction: int, rate: Bounds, pitch: Bounds) -> np.ndarray:
    """Chirps that begin anew ``rate`` times a second; direction 0 goes up and down, as sirens do."""
    place = TIME * between(rng, rate) % 1
    place = {1: place, -1: 1 - place, 0: np.abs(2 * place - 1)}[direction]
    wave = stack(rng, between(rng, pitch) * 2 ** (rng.uniform(0.7, 2.0) * place), rng.uniform(1, 3), formants=False)
    gaps = np.where(TIME * between(rng, rate) % 1 < rng.uniform(0.5, 1.0), 1.0, 0.02)
    return wave * (gaps if direction else 1.0)


def call(rng: Generator, shape: str, pitch: Bounds) -> np.ndarray:
    """An animal's or a child's long call: harmonics with a contour, a little rough, again after a pause."""
    length = rng.uniform(0.35, 0.9)
    place = ((TIME + rng.uniform(0, 1)) % (length * rng.uniform(1.1, 1.7)) / length).clip(0, 1)
    contour = {
        "rise": place,
        "fall": 1 - place,
        "arch": np.sin(np.pi * place),
        "flat": 0.1 * place,
        "wobble": 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(3, 9) * place),
    }[shape]
    curve = between(rng, pitch) * 2 ** (rng.uniform(0.4, 1.2) * contour + 0.02 * smooth(rng, 30))
    rough = 1 + rng.uniform(0, 0.5) * noise(rng, 20, 200)
    return stack(rng, curve, rng.uniform(0.3, 1.2)) * np.sin(np.pi * place) ** 0.5 * rough


def bark(rng: Generator, rate: Bounds, pitch: Bounds) -> np.ndarray:
    grains = []
    for _ in range(3):
        shape = envelope(rng, (0.005, 0.03), (0.04, 0.12))
        curve = between(rng, pitch) * (1 + 0.5 * np.sin(np.pi * np.linspace(0, 1, COUNT) * SECONDS / 0.25))
        body = stack(rng, np.abs(curve) + 40, rng.uniform(0.2, 0.8)) + rng.uniform(0.2, 1.5) * noise(rng, 300, 4000)
        grains.append(body[: len(shape)] * shape)
    return placed(rng, events(rng, between(rng, rate), 0.15), grains, 0.2)


def ticks(rng: Generator, rate: Bounds, hertz: Bounds, alternating: int) -> np.ndarray:
    grains = [ring(rng, hertz, (0.002, 0.03), 4) for _ in range(1 + alternating)]
    return placed(rng, events(rng, between(rng, rate), rng.uniform(0, 0.01)), grains, 0.05)


def crackle(rng: Generator, density: Bounds, hertz: Bounds, bed: Bounds) -> np.ndarray:
    """Random clicks on a bed of noise: fire, rain on a roof, a scratched record."""
    grains = [ring(rng, hertz, (0.0006, 0.006), 3) for _ in range(12)]
    return placed(rng, events(rng, between(rng, density), 1), grains, 0.9) + between(rng, bed) * noise(
        rng, 100, 5000, 0.6
    )


def hiss(rng: Generator, band: Bounds, slope: float) -> np.ndarray:
    low, high = band[0] * rng.uniform(0.8, 1.25), band[1] * rng.uniform(0.8, 1.25)
    return noise(rng, low, high, slope) * np.exp(0.1 * smooth(rng, 4))


def swell(rng: Generator, rate: Bounds, band: Bounds) -> np.ndarray:
    """Noise that comes and goes, darker as it goes: waves, gusts, breath, sawing."""
    place = 0.5 + 0.5 * np.sin(2 * np.pi * between(rng, rate) * TIME + rng.uniform(0, 6) + 0.4 * smooth(rng, 3))
    sharp = rng.uniform(0.7, 3)
    bright, dark = noise(rng, band[0], band[1], 0.3), noise(rng, band[0], (band[0] * band[1]) ** 0.5, 0.6)
    return place**sharp * bright + rng.uniform(0.1, 0.6) * place ** (sharp / 2) * dark


def engine(rng: Generator, rate: Bounds, rough: int) -> np.ndarray:
    """Pulses through resonances: motors, saws, helicopters; ``rough`` ones jitter and roar."""
    pulses = np.zeros(COUNT)
    speed = between(rng, rate) * np.exp(0.08 * smooth(rng, 1.5))
    phase = np.cumsum(speed) / RATE
    pulses[np.flatnonzero(np.diff(np.floor(phase + (0.12 * rough) * smooth(rng, 60))) > 0)] = 1.0
    pulses *= np.exp((0.1 + 0.3 * rough) * rng.standard_normal(COUNT))
    bodies = [ring(rng, bounds, (0.004, 0.02), 2) for bounds in ((60, 300), (300, 1200), (1200, 4000))]
    wave = sum(
        weight * _through(pulses, body) for weight, body in zip((1, rng.uniform(0.2, 1), 0.4), bodies, strict=True)
    )
    roar = noise(rng, 100, 4000, 0.5) * (1 + np.sin(2 * np.pi * phase))
    return np.asarray(wave / (np.std(wave) + 1e-9) + (0.1 + 0.5 * rough) * rng.uniform(0.5, 1.2) * roar)


def chop(rng: Generator, rate: Bounds, band: Bounds) -> np.ndarray:
    """Noise in short regular beats: rotors, trains, sprinklers."""
    place = TIME * between(rng, rate) % 1
    return noise(rng, band[0], band[1], 0.5) * (np.exp(-place / rng.uniform(0.1, 0.35)) + 0.05)


def pluck(rng: Generator, rate: Bounds, pitch: Bounds) -> np.ndarray:
    """Strings after Karplus and Strong (1983): a filtered loop that noise starts."""
    grains = []
    for _ in range(3):
        period = max(4, round(RATE / between(rng, pitch)))
        loop, turns = rng.uniform(-1, 1, period), []
        keep = rng.uniform(0.97, 0.998)
        for _ in range(max(2, int(0.8 * RATE / period))):
            turns.append(loop)
            loop = keep * 0.5 * (loop + np.roll(loop, 1))
        grains.append(np.concatenate(turns))
    return placed(rng, events(rng, between(rng, rate), 0.1), grains, 0.2)


def bell(rng: Generator, rate: Bounds, pitch: Bounds, decay: Bounds) -> np.ndarray:
    return placed(rng, events(rng, between(rng, rate), 0.1), [ring(rng, pitch, decay, 7)], 0.2)


def burst(rng: Generator, decay: Bounds, band: Bounds, gasp: int) -> np.ndarray:
    """A breath of noise: a sneeze or cough, before it a gasp where wanted, clapping, a door."""
    shape = envelope(rng, (0.003, 0.03), decay)
    wave = np.zeros(COUNT)
    start = int(RATE * rng.uniform(0.35, 1.0))
    part = (noise(rng, band[0], band[1], 0.3)[: len(shape)] * shape)[: COUNT - start]
    wave[start : start + len(part)] += part
    if gasp:
        rise = np.linspace(0, 1, start) ** rng.uniform(1, 4)
        wave[:start] += rng.uniform(0.1, 0.3) * rise * noise(rng, 400, 3500)[:start]
    return wave


def drops(rng: Generator, density: Bounds, pitch: Bounds) -> np.ndarray:
    """Bubbles: short tones that rise (Minnaert 1933 gives them their pitch)."""
    grains = []
    for _ in range(8):
        t = np.arange(int(RATE * between(rng, (0.015, 0.08)))) / RATE
        hertz = between(rng, pitch) * (1 + rng.uniform(0, 0.8) * t / t[-1])
        grains.append(np.sin(2 * np.pi * np.cumsum(hertz) / RATE) * np.exp(-4 * t / t[-1]))
    return placed(rng, events(rng, between(rng, density), 1), grains, 0.5)


def beeps(rng: Generator, rate: Bounds, pitch: Bounds) -> np.ndarray:
    wave = stack(rng, between(rng, pitch) * np.ones(COUNT), rng.uniform(1, 4), formants=False)
    return wave * (TIME * between(rng, rate) % 1 < rng.uniform(0.25, 0.6))


def _through(pulses: np.ndarray, body: np.ndarray) -> np.ndarray:
    size = 2 * COUNT
    return np.fft.irfft(np.fft.rfft(pulses, size) * np.fft.rfft(body[:COUNT], size), size)[:COUNT]


SLOW, STEADY, FAST = (1.0, 2.2), (3.5, 7.0), (11.0, 24.0)
BANDS = ((60, 500), (400, 2000), (1800, 7000), (60, 7500))
RECIPES: dict[Callable[..., np.ndarray], tuple[tuple[object, ...], ...]] = {
    vibrato: (PITCHES, (STEADY, FAST)),
    beating: (PITCHES, (STEADY, FAST, (35, 90))),
    sweep: ((1, -1, 0), (SLOW, STEADY), (MIDDLE, HIGH)),
    call: (("rise", "fall", "arch", "flat", "wobble"), PITCHES),
    bark: ((SLOW, STEADY), PITCHES),
    ticks: ((SLOW, STEADY, FAST), ((250, 900), (1800, 6000)), (0, 1)),
    crackle: (((6, 20), (45, 120), (300, 900)), ((300, 1200), (1800, 7000)), ((0.003, 0.02), (0.06, 0.2))),
    hiss: (BANDS, (0.0, 1.0)),
    swell: (((0.4, 0.9), SLOW, STEADY), BANDS),
    engine: (((11, 20), (26, 50), (65, 120), (150, 300)), (0, 1)),
    chop: (((4, 8), (11, 22)), BANDS),
    pluck: ((SLOW, STEADY), PITCHES),
    bell: ((SLOW, STEADY), PITCHES, ((0.03, 0.1), (0.3, 0.9))),
    burst: (((0.02, 0.05), (0.1, 0.3)), BANDS[1:], (0, 1)),
    drops: (((2, 6), (15, 45), (120, 400)), ((300, 900), (1200, 4000))),
    beeps: ((SLOW, STEADY), PITCHES),
}
CLASSES: tuple[tuple[Callable[..., np.ndarray], tuple[object, ...]], ...] = tuple(
    (recipe, bins) for recipe, settings in RECIPES.items() for bins in product(*settings)
)


def make(label: int, rng: Generator) -> np.ndarray:
    """A sound of class ``label``, int16 (T,) with a peak between -12 and 0 dB, sometimes over a little noise."""
    recipe, bins = CLASSES[label]
    wave = recipe(rng, *bins)
    wave = wave / (np.abs(wave).max() + 1e-9)
    wave += 10 ** rng.uniform(-4, -1.7) * noise(rng, 30, 7800, rng.uniform(0, 1))
    return (wave * 10 ** rng.uniform(-0.6, 0) / np.abs(wave).max() * 32767).astype(np.int16)
