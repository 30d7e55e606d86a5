"""Which words are spoken: common spellings of Debian's word list, none that says a digit.

A word is left out where its spelling holds a digit word ("someone", "weight"), and where its pronunciation begins with,
ends in or is that of one ("fortune", "plate", "won"), in English; the digit words of other languages are left out too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

WORD_LIST = Path("/usr/share/dict/words")  # Debian's package wamerican
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "oh")
SPELLED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "nil", "nought", "twice")
ALIKE = ("won", "wun", "too", "tu", "tree", "for", "fore", "ate", "ait", "sicks", "sax", "nein", "fife", "owe", "o")
_FOREIGN = """
    null eins ein zwei zwo drei vier funf sechs sieben acht neun un une deux trois quatre cinq sept huit neuf
    cero uno una dos tres cuatro cinco seis siete ocho nueve due tre quattro cinque sei sette otto nove nol satu
    dua tiga empat lima enam tujuh delapan sembilan een twee drie vijf zes zeven negen noll ett tva fyra fem sex
    sju atta nio um dois quatro sete oito ichi ni san shi go roku shichi hachi kyu
"""
FOREIGN = _FOREIGN.split()
SHORT = 8  # letters at most; digits are short words, and long ones differ too much to be hard


def candidates() -> list[str]:
    """Words of 3 to ``SHORT`` small letters, sorted, that spell no digit."""
    lines = WORD_LIST.read_text(encoding="utf-8").split("\n")
    kept = sorted({line for line in lines if re.fullmatch(rf"[a-z]{{3,{SHORT}}}", line)})
    banned = {*DIGITS, *ALIKE, *FOREIGN}
    return [word for word in kept if word not in banned and not any(digit in word for digit in SPELLED)]


def chosen(count: int, phonemes: Callable[[str], str], seed: int = 0) -> list[str]:
    """``count`` words that sound differently, mostly of one or two syllables, the same for the same seed.

    Args:
        phonemes: the pronunciation of a word, with the phonemes parted by ``_``.
    """
    said = [pronounced(phonemes(word)) for word in DIGITS]
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, ...], str] = {}
    words = candidates()
    quota = {1: count // 2, 2: count - count // 2 - count // 8, 3: count // 8}
    for index in rng.permutation(len(words)):
        word = words[index]
        if word.endswith("s") and word[:-1] in words:  # plurals are the same word again
            continue
        sounds = pronounced(phonemes(word))
        syllables = sum(is_vowel(sound) for sound in sounds)
        if quota.get(syllables, 0) == 0 or sounds in found or any(_holds(sounds, digit) for digit in said):
            continue
        found[sounds] = word
        quota[syllables] -= 1
        if len(found) == count:
            break
    return sorted(found.values())


def pronounced(phonemes: str) -> tuple[str, ...]:
    """Phonemes without stress and length."""
    plain = re.sub(r"[',:%=|;-]", "", phonemes).strip().replace("O@", "o@")  # "four" and "for" in American English
    return tuple(sound for sound in plain.split("_") if sound)


def is_vowel(sound: str) -> bool:
    """Whether espeak's mnemonic is that of a vowel."""
    return bool(re.match(r"[aeiouAEIOU@0V3]", sound))


def _holds(sounds: tuple[str, ...], digit: tuple[str, ...]) -> bool:
    """The word is the digit, or begins with it or ends in it (of a single sound, such as "oh": is it)."""
    if len(digit) == 1:
        return sounds == digit
    return sounds[: len(digit)] == digit or sounds[-len(digit) :] == digit
