"""What pretraining listens to: no digit is said, all of it repeats by seed, and rooms leave a clip where it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pretraining.sounding import degrade, pool, recipes, speech, words

SPEAKS = shutil.which("espeak-ng") and shutil.which("flite") and words.WORD_LIST.exists()
needs_speech = pytest.mark.skipif(not SPEAKS, reason="needs the packages espeak-ng, flite and wamerican")
TINY = pool.Amounts(words=20, each=2, tongue=1, recipe=1)


def spelled_out(word: str) -> str:
    """A stand-in for pronunciation: a letter a sound."""
    return "_".join(word)


@pytest.mark.skipif(not words.WORD_LIST.exists(), reason="needs the package wamerican")
def test_no_word_spells_a_digit() -> None:
    found = set(words.candidates())
    assert len(found) > 5000
    assert not found & {*words.DIGITS, *words.ALIKE, "null", "eins", "satu", "tiga", "deux", "siete", "ichi"}
    assert not [word for word in found if any(digit in word for digit in words.SPELLED)]  # someone, weight, often


@pytest.mark.parametrize(
    ("sounds", "digit", "holds"),
    [("f_o@", "f_'o@", True), ("f_o@_t_I", "f_o@", True), ("p_l_'eI_t", "eI_t", True), ("p_eI_n", "eI_t", False)],
)
def test_a_word_that_says_a_digit_at_an_end_would_be_noticed(sounds: str, digit: str, holds: bool) -> None:
    assert words._holds(words.pronounced(sounds), words.pronounced(digit)) == holds


def test_oh_is_only_itself() -> None:
    assert words._holds(("oU",), ("oU",))
    assert not words._holds(("b", "oU", "t"), ("oU",))


@needs_speech
def test_words_are_chosen_by_their_sound() -> None:
    say = speech.synthesiser().phonemes
    found = words.chosen(200, say)
    assert found == words.chosen(200, say)
    said = [words.pronounced(say(word)) for word in found]
    digits = [words.pronounced(say(word)) for word in words.DIGITS]
    assert len(set(said)) == 200
    for sounds in said:
        for digit in digits:
            assert sounds != digit
            assert len(digit) == 1 or (sounds[: len(digit)] != digit and sounds[-len(digit) :] != digit)


@needs_speech
def test_every_voice_speaks_and_none_is_on_both_sides() -> None:
    seen, held = pool.voices(), pool.voices(held_out=True)
    assert len({*seen, *held}) == len(seen) + len(held)
    assert not {name.partition("+")[2] or name for name in seen} & {name.partition("+")[2] or name for name in held}
    for name in [*seen[::9], *held[::5], seen[-1], held[-1], *(f"{tongue}+f2" for tongue in speech.TONGUES)]:
        wave = speech.synthesiser().say(speech.Utterance("mountain", name))
        assert wave.dtype == np.int16
        assert 0.2 * speech.RATE < len(wave) <= speech.LONGEST * speech.RATE, name
        assert np.abs(wave).max() > 1000, name


@needs_speech
def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(ValueError, match="nobody"):
        speech.synthesiser().voice("nobody")


@pytest.mark.parametrize("label", range(len(recipes.CLASSES)))
def test_every_recipe_makes_a_sound_and_the_same_again(label: int) -> None:
    first, again = (recipes.make(label, np.random.default_rng([5, label])) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (recipes.COUNT,)
    assert first.dtype == np.int16
    assert np.abs(first).max() > 5000
    assert not np.array_equal(first, recipes.make(label, np.random.default_rng([6, label])))


@needs_speech
@pytest.mark.slow
def test_a_pool_repeats_and_development_shares_nothing_with_training(tmp_path: Path) -> None:
    first = pool.training(tmp_path / "a", TINY, seed=0, workers=1)
    again = pool.training(tmp_path / "b", TINY, seed=0, workers=2)
    assert np.array_equal(first.samples, again.samples)
    held_out = pool.development(tmp_path / "c", TINY, seed=0, workers=1)
    known, kept = ((tmp_path / name / "words.json").read_text() for name in ("a", "c"))
    assert not {*known.split('"')[1::2]} & {*kept.split('"')[1::2]}
    assert not {*first.recipe.tolist()} & {*held_out.recipe.tolist()} - {pool.NONE}
    assert first.spoken.shape[0] == TINY.words


def clips(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(8000 * rng.standard_normal(rng.integers(2000, 30_000))).astype(np.int16) for _ in range(count)]


def test_degraded_clips_repeat_and_lie_where_it_is_said() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(degrade.batch(clips(32), 16_880, degrade.Strength(silent=1.0)))
    for one, other in zip(*made, strict=True):
        assert torch.equal(one, other)
    wave, start, end = made[0]
    assert wave.shape == (32, 16_880)
    assert wave.abs().max() <= 1
    assert ((start >= 0) & (start + 800 <= end) & (end <= 16_880)).all()
    place = torch.arange(16_880)
    outside = (place < start[:, None]) | (place >= end[:, None])
    assert (wave[outside] == 0).all()
    assert all(row[a:b].abs().max() > 0.01 for row, a, b in zip(wave, start.tolist(), end.tolist(), strict=True))


def test_noise_is_as_loud_as_asked() -> None:
    torch.manual_seed(0)
    quiet = [(np.arange(16_000) % 2).astype(np.int16)]  # too soft to matter
    spectrum = degrade._noise(64, degrade.Strength(quietest=20, cleanest=20), degrade.SIZE)
    wave = torch.fft.irfft(spectrum, degrade.SIZE)
    assert 10 * np.log10(float(wave.square().mean())) == pytest.approx(-20, abs=0.5)
    assert degrade.batch(quiet, 16_880, degrade.Strength())[0].isfinite().all()


def test_a_telephone_takes_the_treble_away() -> None:
    torch.manual_seed(0)
    noise = [(5000 * np.random.default_rng(1).standard_normal(16_880)).astype(np.int16)] * 8
    clean = {"speed": 0.0, "echo": 0.0, "mixed": 0.0, "quietest": 60.0, "cleanest": 60.0, "silent": 0.0}
    wave = degrade.batch(noise, 16_880, degrade.Strength(narrow=1.0, **clean))[0]
    power = torch.fft.rfft(wave[:, 800:16_800]).abs().square().mean(dim=0)  # a bin a hertz; some are clipped
    assert power[4500:].mean() < 0.05 * power[500:3000].mean()
