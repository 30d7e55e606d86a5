"""Batches of the two objectives, as a pure function of (seed, step): masked words, and texts of one meaning.

Shapes: B texts, T tokens. Words are exchanged while a batch is made: for a synonym, for the word of the other
language, for an everyday spelling; so that a word of everyday life is met in more sentences than it stands in.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pretraining.writing.colloquial import spoken
from pretraining.writing.corpus import read_meanings
from pretraining.writing.dictionaries import Meaning

_SUFFIXES = (("ies", "y"), ("es", ""), ("s", ""), ("ed", ""), ("d", ""), ("ing", ""), ("ing", "e"), ("ly", ""))


@dataclass
class Exchange:
    """Words that may stand for a word: of the same meaning, of the other language, and of the opposite meaning."""

    same: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {"en": {}, "id": {}})
    other: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {"en": {}, "id": {}})
    opposite: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {"en": {}, "id": {}})

    @classmethod
    def of(cls, meanings: list[Meaning]) -> Exchange:
        """From dictionaries; for each word, what its first meanings give (they are the commonest)."""
        found = cls()
        taken: dict[tuple[int, str, str], int] = defaultdict(int)
        for meaning in meanings:
            for language, words in meaning.words.items():
                for word in (word.lower() for word in words):
                    for table, given, most in (
                        (found.same, [w for w in words if w.lower() != word], 2),
                        (found.other, [w for name, ws in meaning.words.items() if name != language for w in ws], 3),
                        (found.opposite, meaning.opposites.get(language, []), 3),
                    ):
                        short = [w.lower() for w in given if 2 < len(w) < 25 and w.count(" ") < 2]
                        if short and taken[id(table), language, word] < most:
                            taken[id(table), language, word] += 1
                            table[language].setdefault(word, []).extend(short)
        return found

    def words(self, text: str, language: str, draw: random.Random, table: str, share: float, most: int = 99) -> str:
        """``text`` with about ``share`` of its exchangeable words exchanged, ``most`` at most."""
        choices = getattr(self, table)[language]
        pieces = re.split(r"(\W+)", text)
        places = [i for i in range(0, len(pieces), 2) if len(pieces[i]) > 2 and _find(choices, pieces[i], language)]
        draw.shuffle(places)
        for place in places[: min(most, round(share * len(places) + draw.random() * 0.999 - 0.5))]:
            pieces[place] = draw.choice(_find(choices, pieces[place], language) or [pieces[place]])
        return "".join(pieces)


def _find(choices: dict[str, list[str]], word: str, language: str) -> list[str] | None:
    """What stands under ``word`` or, in English, under the word that it is a form of."""
    word = word.lower()
    found = choices.get(word)
    if found is None and language == "en":
        for suffix, end in _SUFFIXES:
            if word.endswith(suffix) and len(word) > len(suffix) + 2:
                found = choices.get(word[: -len(suffix)] + end)
                if found is not None:
                    return found
    if found is None and language == "id" and word.endswith("nya"):
        found = choices.get(word[:-3])
    return found


def _by_class(meanings: Iterable[Meaning]) -> list[list[Meaning]]:
    """Meanings of describing words, of verbs, and of all others."""
    found: list[list[Meaning]] = [[], [], []]
    for meaning in meanings:
        kind = meaning.kind[:1].lower()
        found[0 if kind in "ar" and kind else 1 if kind in "vd" and kind else 2].append(meaning)
    return found


def _meaning(classes: list[list[Meaning]], draw: random.Random) -> Meaning:
    """One of them: what describes comes as often as all else, for texts are judged by it."""
    kept = [(found, weight) for found, weight in zip(classes, (0.5, 0.25, 0.25), strict=True) if found]
    (chosen,) = draw.choices([found for found, _ in kept], [weight for _, weight in kept])
    return draw.choice(chosen)


@dataclass(frozen=True)
class Masked:
    """Token ids (B, T) with words hidden, which are real, where the hidden ones are, and what they were.

    ``positions`` (B, T) begin anywhere in half of the rows, so that the places of longer texts are learnt as well.
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor
    places: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Alike:
    """Texts, their fellows of the same meaning, and opposites, one after the other: ``rows`` of each of the first two.

    ``chunks`` hold token ids and attention of texts of alike length; ``order`` brings them back. ``opposite_of`` says
    whose opposite each of the last is, -1 where it only fills the batch.
    """

    chunks: list[tuple[Tensor, Tensor]]
    order: Tensor
    rows: int
    opposite_of: Tensor


class Reader:
    """Makes batches from a corpus folder."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.seed = seed
        self.backend = tokenizer.backend_tokenizer
        self.pad, self.mask = tokenizer.pad_token_id, tokenizer.mask_token_id
        self.size, self.longest = len(tokenizer), tokenizer.model_max_length
        self.text = {name: (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in ("en", "id")}
        lines = (folder / "pairs.tsv").read_text(encoding="utf-8").splitlines()
        self.pairs = [tuple(line.split("\t")) for line in lines if line.count("\t") == 1]
        self.meanings = list(read_meanings(folder))
        self.exchange = Exchange.of(self.meanings)
        self.told = _by_class(m for m in self.meanings if m.glosses and "en" in m.words)
        self.bilingual = _by_class(m for m in self.meanings if len(m.words) == 2)
        self.synonyms = {
            name: _by_class(m for m in self.meanings if len(m.words.get(name, ())) + len(m.related.get(name, ())) > 1)
            for name in ("en", "id")
        }

    def masked(self, step: int, rows: int, length: int, share: float = 0.15) -> Masked:
        """Rows of running text; ``share`` of the words hidden whole (80 % mask, 10 % any token, 10 % themselves)."""
        draw, most = random.Random(f"{self.seed}/{step}/masked"), round(share * rows * length * 0.9)
        noise = np.random.default_rng([self.seed, step, 1])
        texts = [self._running(draw, length) for _ in range(rows)]
        ids = np.full((rows, length), self.pad, dtype=np.int64)
        hidden = np.zeros((rows, length), dtype=bool)
        for row, encoding in enumerate(self.backend.encode_batch(texts)):
            count = min(len(encoding.ids), length)
            ids[row, :count] = encoding.ids[:count]
            words = np.array([-1 if word is None else word for word in encoding.word_ids[:count]])
            chosen = noise.random(words.max(initial=0) + 1) < share
            hidden[row, :count] = chosen[words] & (words >= 0)
        places = np.flatnonzero(hidden)
        if len(places) > most:  # one number in every step: kernels are prepared for a shape once
            places = np.sort(noise.permutation(places)[:most])
        targets = ids.reshape(-1)[places]
        kind = noise.random(len(places))
        anything = noise.integers(5, self.size, len(places))
        seen = np.where(kind < 0.8, self.mask, np.where(kind < 0.9, anything, targets))
        given = ids.copy()
        given.reshape(-1)[places] = seen
        starts = noise.integers(0, self.longest - length + 1, rows) * (noise.random(rows) < 0.5)
        positions = starts[:, None] + np.arange(length)
        tensors = [torch.from_numpy(array) for array in (given, ids != self.pad, positions, places, targets)]
        return Masked(tensors[0], tensors[1].long(), *tensors[2:])

    def _running(self, draw: random.Random, length: int) -> str:
        """Consecutive paragraphs in one language, from any place on, with words exchanged in half of the cases."""
        language = draw.choices(("en", "id"), (0.65, 0.35))[0]  # the Indonesian texts are about computers only
        lines = self.text[language]
        place, text = draw.randrange(len(lines)), ""
        while len(text) < 5 * length and place < len(lines):
            text += ("" if not text else " ") + lines[place]
            place += 1
        if len(text) > 8 * length:  # somewhere inside a long paragraph
            start = text.find(" ", draw.randrange(len(text) - 6 * length)) + 1
            text = text[start:]
        return self._varied(text[: 9 * length], language, draw)

    def _varied(self, text: str, language: str, draw: random.Random) -> str:
        choice = draw.random()
        if choice < 0.4:
            text = self.exchange.words(text, language, draw, "other", draw.uniform(0.2, 1.0))
            language = "id"  # what was exchanged may be spoken, too
        elif choice < 0.55:
            text = self.exchange.words(text, language, draw, "same", 0.4)
        if language == "id" and draw.random() < 0.5:
            text = spoken(text, draw, draw.uniform(0.2, 1.0))
        return text

    def exchanged(self) -> list[str]:
        """Half of the English paragraphs with most words in everyday Indonesian, which is in hardly any package."""
        draw, told = random.Random(f"{self.seed}/exchanged"), self.text["en"][::2]
        mixed = (self.exchange.words(text, "en", draw, "other", draw.uniform(0.5, 1.0)) for text in told)
        return [spoken(text, draw, 0.5) for text in mixed]

    def alike(self, step: int, rows: int, length: int) -> Alike:
        """Rows of texts that mean the same, with an opposite where a dictionary knows one."""
        draw = random.Random(f"{self.seed}/{step}/alike")
        kinds: list[tuple[Callable[[random.Random], tuple[str, str, str]], float]] = [
            (self._gloss, 0.2),
            (self._synonym, 0.25),
            (self._translation, 0.15),
            (self._message, 0.05),
            (self._reworded, 0.3),
            (self._next, 0.05),
        ]
        makers = draw.choices([maker for maker, _ in kinds], [weight for _, weight in kinds], k=rows)
        triples = [maker(draw) for maker in makers]
        opposites = [(row, text) for row, (_, _, text) in enumerate(triples) if text][: rows // 4]
        opposites += [(-1, "")] * (rows // 4 - len(opposites))
        texts = [triple[0] for triple in triples] + [triple[1] for triple in triples] + [text for _, text in opposites]
        chunks, order = self._chunks(texts, length)
        return Alike(chunks, order, rows, torch.tensor([row for row, _ in opposites]))

    def _chunks(self, texts: list[str], length: int, count: int = 6) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """``count`` batches of alike length, padded to a multiple of eight; and where each text went."""
        encodings = [encoding.ids[:length] for encoding in self.backend.encode_batch(texts)]
        by_length = sorted(range(len(texts)), key=lambda row: len(encodings[row]))
        size, chunks = -(-len(texts) // count), []
        for start in range(0, len(texts), size):
            rows = [encodings[row] for row in by_length[start : start + size]]
            longest = min(-(-len(rows[-1]) // 8) * 8, length)
            ids = torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows])
            chunks.append((ids, (ids != self.pad).long()))
        return chunks, torch.tensor(by_length).argsort()

    def _words(self, words: list[str], draw: random.Random) -> str:
        return " ".join(draw.sample(words, draw.randint(1, min(len(words), 5))))

    def _opposite(self, meaning: Meaning, language: str, draw: random.Random) -> str:
        found = meaning.opposites.get(language)
        return self._words(found, draw) if found else ""

    def _gloss(self, draw: random.Random) -> tuple[str, str, str]:
        """What an English word means, told in a sentence or shown in one."""
        meaning = _meaning(self.told, draw)
        return self._words(meaning.words["en"], draw), draw.choice(meaning.glosses), self._opposite(meaning, "en", draw)

    def _synonym(self, draw: random.Random) -> tuple[str, str, str]:
        """Words of one meaning."""
        language = draw.choice(("en", "id", "id"))
        meaning = _meaning(self.synonyms[language], draw)
        words = meaning.words[language] + meaning.related.get(language, [])
        draw.shuffle(words)
        cut = draw.randint(1, len(words) - 1)
        first, second = self._words(words[:cut], draw), self._words(words[cut:], draw)
        if language == "id":
            first, second = spoken(first, draw, 0.3), spoken(second, draw, 0.3)
        return first, second, self._opposite(meaning, language, draw)

    def _translation(self, draw: random.Random) -> tuple[str, str, str]:
        """Indonesian words, and the English word or what is said of it."""
        meaning = _meaning(self.bilingual, draw)
        english = meaning.glosses if meaning.glosses and draw.random() < 0.4 else meaning.words["en"]
        return self._words(meaning.words["id"], draw), draw.choice(english), ""

    def _message(self, draw: random.Random) -> tuple[str, str, str]:
        """A message of a program and its translation."""
        english, other = draw.choice(self.pairs)
        return (other if draw.random() < 0.5 else spoken(other, draw, 0.6)), english, ""

    def _reworded(self, draw: random.Random) -> tuple[str, str, str]:
        """A sentence, the same in other words, and the same with a word turned into its opposite."""
        language = draw.choice(("en", "id"))
        text = self._sentence(language, draw)
        table = "other" if draw.random() < 0.5 else "same"
        again = self.exchange.words(text, language, draw, table, 0.6)
        if language == "id" or table == "other":
            again = spoken(again, draw, 0.5)
        opposite = self.exchange.words(text, language, draw, "opposite", 1.0, most=2)
        return text, again, opposite if opposite != text else ""

    def _next(self, draw: random.Random) -> tuple[str, str, str]:
        """Two sentences of one paragraph, or of two in a row."""
        language = draw.choice(("en", "id"))
        lines = self.text[language]
        place = draw.randrange(len(lines) - 1)
        sentences = re.split(r"(?<=[.!?;]) ", lines[place])
        if len(sentences) < 2:
            return lines[place], lines[place + 1], ""
        cut = draw.randrange(1, len(sentences))
        return sentences[cut - 1], sentences[cut], ""

    def _sentence(self, language: str, draw: random.Random) -> str:
        return draw.choice(re.split(r"(?<=[.!?]) ", draw.choice(self.text[language])))[:300]
