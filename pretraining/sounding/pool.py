"""The sounds of a run, rendered once into its folder: int16 samples in one file, and a table of what each clip is.

Clips are rendered in chunks, each in a process of its own, because the synthesiser's state goes from clip to clip: the
pool of a seed is the same however many processes make it.

Shapes: N clips, W words, P phonemes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.core import manifest
from pretraining.sounding import recipes, speech, words

NONE = -1
HELD_OUT_RECIPES = ("bell", "chop")  # whole families, for development only
HELD_OUT_WORDS = 60
CHUNK = 1500


@dataclass(frozen=True)
class Amounts:
    """How many clips of what."""

    words: int = 1500
    each: int = 48  # utterances of a word
    tongue: int = 400  # utterances of every other language
    recipe: int = 100  # sounds of every class


class Pool:
    """N clips: ``clip(i)``, and arrays (N,) of labels, ``NONE`` where a clip has none of that kind."""

    def __init__(self, folder: Path) -> None:
        self.samples = np.load(folder / "samples.npy", mmap_mode="r")
        table = np.load(folder / "table.npz")
        self.start, self.length = table["start"], table["length"]
        self.word, self.voice, self.tongue, self.recipe = (table[k] for k in ("word", "voice", "tongue", "recipe"))
        self.spoken = table["spoken"]  # (W, P): which phonemes a word has
        self.words: list[str] = manifest.read_json(folder / "words.json")

    def __len__(self) -> int:
        return len(self.start)

    def clip(self, index: int) -> np.ndarray:
        """int16 (T,)."""
        return self.samples[self.start[index] : self.start[index] + self.length[index]]


Row = tuple[str, int, int, int, int]  # what to say or "", word, voice, tongue, recipe


def voices(held_out: bool = False) -> list[str]:
    """The voices of English, by label."""
    return speech.voices(held_out)


def training(folder: Path, amounts: Amounts, seed: int, workers: int = 2) -> Pool:
    """The pool to train on: words in many voices, other languages, and sounds by recipe."""
    return _pool(folder, _training_rows, amounts, seed, workers)


def development(folder: Path, amounts: Amounts, seed: int, workers: int = 2) -> Pool:
    """Words and recipes that are in no training pool, the words in voices that are in none either."""
    return _pool(folder, _development_rows, amounts, seed, workers)


def _training_rows(amounts: Amounts, rng: np.random.Generator) -> tuple[list[Row], list[str]]:
    listed = _words(amounts)[0]
    known = voices()
    rows: list[Row] = []
    for label, word in enumerate(listed):
        for voice in _spread(len(known), amounts.each, rng):
            rows.append((word, label, voice, 0, NONE))
    for tongue in range(len(speech.TONGUES)):
        rows += [(str(rng.choice(listed)), NONE, NONE, 1 + tongue, NONE) for _ in range(amounts.tongue)]
    for label, (recipe, _) in enumerate(recipes.CLASSES):
        if recipe.__name__ not in HELD_OUT_RECIPES:
            rows += [("", NONE, NONE, NONE, label)] * amounts.recipe
    return rows, listed


def _development_rows(amounts: Amounts, rng: np.random.Generator) -> tuple[list[Row], list[str]]:
    listed = _words(amounts)[1]
    rows: list[Row] = []
    for label, word in enumerate(listed):
        rows += [(word, label, voice, 0, NONE) for voice in range(len(voices(held_out=True))) for _ in (0, 1)]
    for label, (recipe, _) in enumerate(recipes.CLASSES):
        if recipe.__name__ in HELD_OUT_RECIPES:
            rows += [("", NONE, NONE, NONE, label)] * 60
    return rows, listed


def _words(amounts: Amounts) -> tuple[list[str], list[str]]:
    """Words to train on, and words held out."""
    every = words.chosen(amounts.words + HELD_OUT_WORDS, speech.synthesiser().phonemes)
    order = np.random.default_rng(1).permutation(len(every))
    held = {every[index] for index in order[:HELD_OUT_WORDS]}
    return [word for word in every if word not in held], sorted(held)


def _spread(known: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` voices, none twice before each was taken; the recorded ones (of flite, which come last) more often."""
    order = np.concatenate([rng.permutation(known) for _ in range(1 + count // known)])[:count]
    order[: count // 8] = known - 1 - rng.integers(0, sum(name.startswith("flite:") for name in voices()), count // 8)
    return order


def _pool(folder: Path, plan: object, amounts: Amounts, seed: int, workers: int) -> Pool:
    if (folder / "table.npz").exists():
        return Pool(folder)
    rows, listed = plan(amounts, np.random.default_rng(seed))  # type: ignore[operator]
    held_out = plan is _development_rows
    jobs = [(rows[at : at + CHUNK], seed, at, held_out) for at in range(0, len(rows), CHUNK)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, maxtasksperchild=1) as processes:
        parts = processes.map(render, jobs, chunksize=1)
    clips = [clip for part in parts for clip in part]
    length = np.array([len(clip) for clip in clips])
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "samples.npy", np.concatenate(clips))
    manifest.write_json(folder / "words.json", listed)
    labels = dict(zip(("word", "voice", "tongue", "recipe"), np.array([row[1:] for row in rows]).T, strict=True))
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    np.savez(folder / "table.npz", start=start, length=length, spoken=_spoken(listed), **labels)
    return Pool(folder)


def render(job: tuple[Sequence[Row], int, int, bool]) -> list[np.ndarray]:
    """The clips of some rows, of which the first is row ``at`` of the pool."""
    rows, seed, at, held_out = job
    known = voices(held_out)
    made = []
    for index, (text, _, voice, tongue, recipe) in enumerate(rows, at):
        rng = np.random.default_rng([seed, held_out, index])
        if recipe != NONE:
            made.append(recipes.make(recipe, rng))
            continue
        name = known[voice] if tongue == 0 else f"{speech.TONGUES[tongue - 1]}+{rng.choice(speech.VARIANTS)}"
        made.append(speech.synthesiser().say(speech.drawn(text, name, rng), seed=index))
    return made


def _spoken(listed: Sequence[str]) -> np.ndarray:
    """Which phonemes every word has, bool (W, P); P is over those of at least ten words."""
    said = [set(words.pronounced(speech.synthesiser().phonemes(word))) for word in listed]
    kinds = sorted({sound for each in said for sound in each})
    kinds = [kind for kind in kinds if sum(kind in each for each in said) >= min(10, len(listed) // 20 + 1)]
    return np.array([[kind in each for kind in kinds] for each in said])


def parts(listed: Sequence[str]) -> dict[str, np.ndarray]:
    """Class of every word's first phoneme, first vowel and last phoneme, (W,) each."""
    said = [words.pronounced(speech.synthesiser().phonemes(word)) for word in listed]
    chosen = {
        "first": [each[0] for each in said],
        "vowel": [next((sound for sound in each if words.is_vowel(sound)), "") for each in said],
        "last": [each[-1] for each in said],
    }
    return {name: np.unique(sounds, return_inverse=True)[1] for name, sounds in chosen.items()}
