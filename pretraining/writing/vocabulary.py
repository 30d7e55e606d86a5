"""The vocabulary: WordPiece over both languages, small letters, without accents.

Most of it are whole words, chosen by how often they stand in the texts and in how many meanings of the dictionaries, so
that a word of everyday life is one token although the texts are largely about computers. Pieces are learned for all
other words.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pretraining.writing.colloquial import WORDS

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
LETTERS = 100  # and signs; words with others are not learned from
SHARES = {"en": 0.58, "id": 0.29}  # of the vocabulary are whole words of a language; the rest is signs and pieces
SIGNS = "0 1 2 3 4 5 6 7 8 9 . , ; : ! ? ' \" ( ) - / & % $ + = * # @ [ ] _ < > ~ ^ | \\ ` { } "


def train(
    texts: Mapping[str, Iterable[str]], listed: Mapping[str, Iterable[str]], size: int, length: int
) -> PreTrainedTokenizerFast:
    """A tokenizer of ``size`` pieces at most that cuts at ``length`` tokens.

    ``listed`` are the words of the dictionaries by language, each as often as it has meanings.
    """
    counts = {name: Counter(word for line in lines for word in _words(line)) for name, lines in texts.items()}
    meanings = {
        name: Counter(word for phrase in phrases for word in _words(phrase)) for name, phrases in listed.items()
    }
    spoken = sorted({word for formal, forms in WORDS.items() for part in (formal, *forms) for word in _words(part)})
    whole = dict.fromkeys(spoken)
    for name, share in SHARES.items():
        known = meanings.get(name, Counter())
        whole.update(dict.fromkeys(_chosen(counts[name], known, round(share * size))))
    weights: Counter[str] = Counter()
    for name, found in counts.items():
        own = {word: count**0.5 for word, count in found.items() if count > 2}
        for word in meanings.get(name, ()):
            own[word] = own.get(word, 0) + 1
        scale = 1_000_000 / max(sum(own.values()), 1)
        for word, weight in own.items():  # of a whole word only its letters are wanted
            weights[word] += 1 if word in whole else round(weight * scale)
    tokenizer = _blank(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=60))
    written: Counter[str] = Counter()
    for word, weight in weights.items():
        written[tokenizer.normalizer.normalize_str(word)] += weight
    # Letters come first: the trainer would number those inside of words in another order every time, and break ties so.
    letters = _letters(written)
    first = [*SPECIAL.values(), *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size - len(whole), special_tokens=first, limit_alphabet=LETTERS, show_progress=False
    )
    tokenizer.train_from_iterator(_repeated(written, letters), trainer)
    found = tokenizer.get_vocab()
    every = dict.fromkeys([*sorted(found, key=lambda piece: found[piece]), *whole])
    pieces = {piece: number for number, piece in enumerate(every)}
    return _finished(models.WordPiece(vocab=pieces, unk_token="[UNK]", max_input_chars_per_word=60), length)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def _chosen(counts: Counter[str], meanings: Counter[str], number: int) -> list[str]:
    """The words that stand often in texts and have many meanings."""
    candidates = {word for word, count in counts.items() if count > 2} | {word for word, n in meanings.items() if n > 1}
    worth = {
        word: 0.75 * math.log1p(counts[word]) + math.log1p(2 * meanings[word])
        for word in candidates
        if 1 < len(word) < 20 and word.isascii()
    }
    return sorted(worth, key=lambda word: (-worth[word], word))[:number]


def _letters(weights: Counter[str]) -> list[str]:
    """The commonest letters of the words, in the order of the alphabet."""
    counts: Counter[str] = Counter()
    for word, count in weights.items():
        for letter in word:
            counts[letter] += count
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[: LETTERS - len(SIGNS.split())])


def _repeated(weights: Counter[str], letters: Iterable[str]) -> Iterator[str]:
    """Lines in which each word of these letters stands as often as it weighs."""
    known = set(letters)
    for word, count in sorted(weights.items()):
        if not known.issuperset(word):
            continue
        for start in range(0, count, 100):
            yield f"{word} " * min(100, count - start)
    yield SIGNS * 50


def _blank(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _finished(model: models.WordPiece, length: int) -> PreTrainedTokenizerFast:
    tokenizer = _blank(model)
    marks = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **SPECIAL)


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
