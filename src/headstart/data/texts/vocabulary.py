"""What a tokenizer (Hugging Face's `tokenizers`, from the content of a ``tokenizer.json``) knows, and how it reads."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from headstart.core.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

SPELLING = 1000  # entries of a vocabulary below which it spells every word, of whatever language


@lru_cache(maxsize=8)
def reader(tokenizer: str, max_length: int | None = None) -> Tokenizer:
    """The tokenizer of a spec, cutting at ``max_length`` tokens (the longer text of a pair first), without padding.

    None cuts nothing.

    Raises:
        ConfigError: not a tokenizer.json.
    """
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_str(tokenizer)
    except Exception as error:  # the library raises bare Exception
        what = f"the tokenizer cannot be read ({str(error)[:200]})"
        remedy = "a TextSpec takes the content of the file: Path('tokenizer.json').read_text()"
        raise ConfigError(what, where="tokenizer.json", remedy=remedy) from error
    made.no_padding()
    made.no_truncation()
    if max_length is not None:
        made.enable_truncation(max_length)
    return made


def mask_id(tokenizer: str) -> int | None:
    """The id of the token that hides others, or of the unknown one; None where there is neither."""
    added = {token["content"]: token["id"] for token in json.loads(tokenizer).get("added_tokens", [])}
    return next((added[name] for name in ("[MASK]", "<mask>", "[UNK]", "<unk>") if name in added), None)


@lru_cache(maxsize=8)
def unknown_id(tokenizer: str) -> int:
    """The id of the token for what the vocabulary does not have; -1 where every text can be written."""
    model = json.loads(tokenizer)["model"]
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    number = reader(tokenizer).token_to_id(model["unk_token"]) if model.get("unk_token") else None
    return -1 if number is None else number


def words(read: Encoding, tokenizer: Tokenizer, spaced: float) -> tuple[int, int]:
    """Words of what was read, punctuation included, and how many of them take several tokens.

    0 and 0 of a tokenizer that knows no words: one that spells, or that divides into fewer than the ``spaced`` words
    between spaces.
    """
    places = zip(read.sequence_ids, read.word_ids, strict=True)
    tokens = Counter(place for place in places if place[1] is not None)
    if len(tokens) < 0.5 * spaced or tokenizer.get_vocab_size() < SPELLING:
        return 0, 0
    return len(tokens), sum(count > 1 for count in tokens.values())
