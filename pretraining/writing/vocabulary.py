"""The vocabulary: WordPiece over both languages, small letters, without accents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def train(
    texts: dict[str, Iterable[str]], words: Iterable[str], size: int, length: int, flatten: float = 0.6
) -> PreTrainedTokenizerFast:
    """A tokenizer of ``size`` pieces that cuts at ``length`` tokens.

    Each language counts as much as the other, and a word's count is raised to ``flatten``, so that the many repeated
    words of computing do not crowd out those of everyday life; ``words`` of the dictionaries are added.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=60))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=list(SPECIAL.values()), limit_alphabet=120, show_progress=False
    )
    tokenizer.train_from_iterator(_weighted(texts, words, flatten), trainer)
    marks = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **SPECIAL)


def _weighted(texts: dict[str, Iterable[str]], words: Iterable[str], flatten: float) -> Iterator[str]:
    """Lines in which each word stands as often as it weighs."""
    totals: Counter[str] = Counter()
    for lines in texts.values():
        counts = Counter(word for line in lines for word in re.findall(r"[^\W\d_]+|\d|[^\w\s]", line.lower()))
        weights = {word: count**flatten for word, count in counts.items() if count > 2}
        scale = 1_000_000 / max(sum(weights.values()), 1)
        for word, weight in weights.items():
            totals[word] += round(weight * scale)
    for word in words:
        if word.isalpha():
            totals[word.lower()] += 8
    for word, count in sorted(totals.items()):
        for start in range(0, count, 100):
            yield f"{word} " * min(100, count - start)


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
