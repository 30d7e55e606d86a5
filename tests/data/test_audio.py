"""Sounds between decoder and network: windows, batches, augmentation, previews.

Shapes: B rows, T samples.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile

from headstart.core import keyed
from headstart.core.errors import ConfigError
from headstart.data import loaders
from headstart.data.modalities import audio
from headstart.data.modalities.audio import PAD, AudioPolicy, AudioSpec
from headstart.data.sounds.augment import PRESETS
from headstart.data.splits import Rows
from headstart.data.store import Store

SPEC = AudioSpec(4_000, 1.0)


def noise(count: int, seed: int = 0) -> np.ndarray:
    """(T,) int16 in which no two places look alike."""
    return np.random.default_rng(seed).integers(-9000, 9000, count).astype(np.int16)


def rng(seed: int = 0) -> np.random.Generator:
    return keyed.generator(seed, "test")


def drawn(policy: AudioPolicy | str, canvas: np.ndarray, seed: int, spec: AudioSpec = SPEC) -> np.ndarray:
    return audio.augment(canvas, spec, audio.policy(policy), rng(seed))


@pytest.mark.parametrize("given", [{"rate": 10}, {"rate": 10**7}, {"form": "wave"}, {"seconds": 0.01}, {"seconds": 99}])
def test_a_spec_that_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AudioSpec(**given)


def test_a_number_out_of_range_is_told_with_its_name() -> None:
    with pytest.raises(ConfigError, match=r"time_mask has to be 0 to 1 \(got 2\)"):
        audio.policy({"preset": "strong", "time_mask": 2})


def test_a_spec_survives_json() -> None:
    spec = AudioSpec(8_000, 2.5, "fbank", 64, 256, -4.0, 4.5)
    assert AudioSpec.from_json(spec.to_json()) == spec
    assert spec.input_shape == (20_000,)


def test_the_window_holds_most_rows_whole() -> None:
    spec = AudioSpec(16_000)
    lengths = np.array([16_000 * 2] * 96 + [16_000 * 50] * 4)
    assert audio.fitted(spec, lengths)[0].seconds == 2.0
    assert audio.fitted(spec, np.array([16_000 * 4 + 1] * 9))[0].seconds == pytest.approx(4.1)
    assert audio.fitted(spec, np.array([100, 200]))[0].seconds == audio.SHORTEST_WINDOW
    assert audio.fitted(spec, np.array([16_000 * 55] * 9))[0].seconds == audio.LONGEST_WINDOW
    assert audio.fitted(spec, np.array([0, 0])) == (spec, "")  # nothing could be read
    asked = AudioSpec(16_000, 3.0)
    assert audio.fitted(asked, lengths)[0] == asked  # what the user asked for stays


def test_the_policy_of_lengths_is_said_aloud() -> None:
    """Whoever reads the decision knows what happens to rows that are longer or shorter than the window."""
    told = audio.fitted(AudioSpec(16_000), np.array([16_000 * 2] * 19 + [16_000 * 9]))[1]
    assert "1 of 20 rows is longer" in told
    assert "random window" in told
    assert "average" in told
    whole = audio.fitted(AudioSpec(16_000, 2.0), np.array([16_000 * 2] * 20))[1]
    assert "as asked" in whole
    assert "average" not in whole


def test_finish_shows_every_sample_in_whole_windows() -> None:
    for count in (1, 3_999, 4_000):
        assert np.array_equal(audio.finish(noise(count), SPEC), noise(count))
    for count in (4_001, 7_999, 8_000, 9_000, 12_001):
        canvas = np.arange(count).astype(np.int16)
        seen = audio.finish(canvas, SPEC)
        assert len(seen) == 4_000 * -(-count // 4_000)
        assert set(seen.tolist()) == set(canvas.tolist())  # nothing is left out
        for window in seen.reshape(-1, 4_000):
            assert (np.diff(window) == 1).all()  # and every window is one piece
    assert set(np.arange(4_001)[:4_000]) != set(np.arange(4_001))  # planted: cutting at the window


def test_collate_marks_what_is_no_sample() -> None:
    rows = [noise(5, 1), noise(3, 2), noise(4, 3)]
    batch = audio.collate(rows)
    assert batch.shape == (3, 5)
    assert batch.dtype == np.int16
    for row, value in zip(batch, rows, strict=True):
        assert np.array_equal(row[row != PAD], value)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("count", [1, 700, 4_000, 9_001])
def test_augmentation_is_keyed_and_bounded(preset: str, count: int) -> None:
    canvas = noise(count)
    kept = canvas.copy()
    found = [drawn(preset, canvas, seed) for seed in (1, 1, 2)]
    assert np.array_equal(canvas, kept), "the stored canvas was changed"
    assert np.array_equal(found[0], found[1]), "the same key drew something else"
    if preset == "none":
        assert np.array_equal(found[0], audio.finish(canvas, SPEC))
        return
    for each in found:
        assert each.dtype == np.int16
        assert 1 <= len(each) <= SPEC.window
        assert each.min() > PAD
    if count > 1:
        assert not np.array_equal(found[0], found[2]), "another key drew the same"


def test_crops_are_windows_of_the_sound() -> None:
    canvas = np.arange(9_000).astype(np.int16)
    starts = set()
    for seed in range(60):
        crop = drawn(AudioPolicy(), canvas, seed)
        assert len(crop) == 4_000
        assert (np.diff(crop) == 1).all()
        starts.add(int(crop[0]))
    assert len(starts) > 50
    assert min(starts) < 500
    assert max(starts) > 4_500
    assert {int(drawn(AudioPolicy(), canvas[:4_002], seed)[0]) for seed in range(60)} == {0, 1, 2}, "the ends come too"


def test_gain_stays_within_its_decibels() -> None:
    canvas = np.full(4_000, 1000, np.int16)
    levels = [20 * np.log10(drawn(AudioPolicy(gain=6.0), canvas, seed).max() / 1000) for seed in range(80)]
    assert -6.01 <= min(levels) < -4
    assert 4 < max(levels) <= 6.01


def test_loud_sounds_are_clipped_not_wrapped() -> None:
    canvas = np.full(4_000, 30_000, np.int16)
    loudest = max((drawn(AudioPolicy(gain=20.0), canvas, seed) for seed in range(40)), key=lambda each: each.max())
    assert loudest.max() == 32_767
    assert loudest.min() > 0


def test_noise_lies_10_to_40_decibels_below_the_sound() -> None:
    canvas = (8000 * np.sin(np.arange(4_000))).astype(np.int16)
    level = np.sqrt((canvas.astype(float) ** 2).mean())
    for seed in range(40):
        added = drawn(AudioPolicy(noise=1.0), canvas, seed).astype(float) - canvas
        below = 20 * np.log10(level / np.sqrt((added**2).mean()))
        assert 9.5 < below < 40.5
    silence = drawn(AudioPolicy(noise=1.0), np.zeros(4_000, np.int16), 0)
    assert not silence.any()


def test_shifts_keep_the_sound_in_one_piece() -> None:
    canvas = np.arange(1, 4_001).astype(np.int16)
    moves = set()
    for seed in range(60):
        moved = drawn(AudioPolicy(shift=0.25), canvas, seed)
        assert len(moved) == 4_000
        kept = moved[moved != 0]
        assert (np.diff(kept) == 1).all()
        assert len(kept) >= 3_000
        moves.add(int(np.flatnonzero(moved)[0]) or 1 - int(kept[0]))
    assert min(moves) < -500
    assert max(moves) > 500


def test_masks_silence_one_piece_of_limited_width() -> None:
    canvas = np.full(4_000, 500, np.int16)
    widths = []
    for seed in range(60):
        silent = np.flatnonzero(drawn(AudioPolicy(time_mask=0.25), canvas, seed) == 0)
        assert (np.diff(silent) == 1).all()
        widths.append(len(silent))
    assert max(widths) <= 1_000
    assert max(widths) > 700


def test_a_masked_band_takes_the_tones_in_it_and_leaves_the_others() -> None:
    spec, hertz = AudioSpec(16_000, 1.0), np.array([250, 500, 900, 1500, 2400, 3600, 5200])
    tones = 2000 * np.sin(2 * np.pi * hertz[:, None] * np.arange(16_000) / 16_000)
    canvas = tones.sum(axis=0).astype(np.int16)
    policy, gone = AudioPolicy(freq_mask=0.4), []
    for seed in range(60):
        masked = drawn(policy, canvas, seed, spec)
        energy = np.abs(np.fft.rfft(masked.astype(float)))[hertz] ** 2 / np.abs(np.fft.rfft(tones[0]))[hertz[0]] ** 2
        silent = energy < 1e-4
        assert ((energy[~silent] > 0.99) & (energy[~silent] < 1.01)).all(), "a tone is there, or it is not"
        places = np.flatnonzero(silent)
        assert (np.diff(places) == 1).all(), "one band"
        assert np.array_equal(masked, drawn(policy, canvas, seed, spec))
        gone.append(silent)
    assert (np.sum(gone, axis=0) > 0).all(), "every pitch may be masked"
    assert not np.all(gone, axis=0).any()
    untouched = drawn(AudioPolicy(crop=True), canvas, 0, spec)
    assert np.array_equal(untouched, canvas), "off unless asked for"


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_masked_band_is_no_wider_than_asked(share: float) -> None:
    spec = AudioSpec(8_000, 1.0)
    widths = []
    for seed in range(60):
        spectrum = np.abs(np.fft.rfft(drawn(AudioPolicy(freq_mask=share), noise(8_000), seed, spec).astype(float)))
        silent = np.flatnonzero(spectrum < 100)  # of noise, whose lines are tenthousands high
        mels = 2595 * np.log10(1 + silent / 700)  # one line a hertz
        widths.append((mels.max() - mels.min()) / (2595 * np.log10(1 + 4000 / 700)) if len(silent) > 1 else 0.0)
    assert max(widths) <= share
    assert max(widths) > 0.8 * share


def test_a_function_of_the_users_gets_a_copy() -> None:
    canvas = noise(9_000)
    kept = canvas.copy()

    def louder(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
        sound *= 2
        return sound

    assert len(audio.augment(canvas, SPEC, louder, rng())) == SPEC.window
    assert np.array_equal(canvas, kept)


@pytest.mark.parametrize(
    "given", ["lihgt", {"gian": 3}, {"gain": -1}, {"noise": 2}, {"shift": "far"}, {"freq_mask": 2}, 3]
)
def test_unknown_augmentation_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError):
        audio.policy(given)


def test_a_policy_may_start_from_a_preset() -> None:
    assert audio.policy({"preset": "standard", "noise": 0.0}) == AudioPolicy(shift=0.1, gain=6.0, time_mask=0.1)
    assert audio.policy(None) is None
    assert not PRESETS["none"].is_random


def test_batches_depend_on_the_key_alone() -> None:
    rows = Rows([(noise(count, seed), 4_000) for seed, count in enumerate((900, 4_000, 9_000, 5_000, 40))],
                np.zeros(5, np.int64), tuple("abcde"))  # fmt: skip
    store = Store.build(rows, SPEC, modality="audio")

    def rows_of(**given: Any) -> dict[int, np.ndarray]:
        policy = audio.policy("strong")
        parts = loaders.batches(store, rows.labels, SPEC, order=np.arange(5), augment=policy, key=(1, 2), **given)
        return {
            int(r): values[values != PAD] for part in parts for r, values in zip(part.rows, part.inputs, strict=True)
        }

    one, other = rows_of(batch_size=5, prefetch=0), rows_of(batch_size=2, prefetch=2)
    assert all(np.array_equal(one[row], other[row]) for row in range(5))


@pytest.mark.parametrize("count", [1, 100, 4_000, 100_000])
def test_previews_are_small_sounds(count: int) -> None:
    suffix, content = audio.shown(audio.collate([noise(count), noise(count + 7)])[0], SPEC)
    assert suffix == ".wav"
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert rate == audio.PREVIEW_RATE
    assert len(samples) == pytest.approx(min(2 * count, 48_000), abs=1)


@pytest.mark.parametrize("count", [1, 255, 257, 8_000, 100_000])
def test_sketches_of_any_length_are_of_one_size(count: int) -> None:
    made = audio.sketch(noise(count))
    assert made.shape == audio.SKETCH
    assert made.dtype == np.uint8
