"""Texts: tokens (cacheable), what the network sees, augmentation, batches padded to about their longest, previews.

Shapes: B rows, T tokens, V size of the vocabulary. A row is int32 (2, T): token ids, and which of a pair's texts each
token belongs to; in a batch (B, 2, T) the id ``PAD`` marks places that hold no token. Tokenizers are those of Hugging
Face's `tokenizers`, which needs no torch: training, the command line, a server and ONNX are given identical tokens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from headstart.core.errors import ConfigError
from headstart.core.lengths import evened
from headstart.core.registry import suggest
from headstart.data.modalities.base import DecodeError, insist_types
from headstart.data.modalities.base import Facts as AnyFacts
from headstart.data.splits import Rows
from headstart.data.texts import reading, shingles
from headstart.data.texts.vocabulary import reader, unknown_id, words

name = "text"
version = "2"
NOUN = ("text", "texts")
EXTENT = "characters"
DTYPE, RANK = "int32", 2
SKETCH = shingles.SHAPE
PAD = -1
PREVIEW = 600  # characters
PRESETS = {"none": 0.0, "light": 0.05, "standard": 0.1, "strong": 0.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(AnyFacts):
    """What was seen of one text."""

    characters: int
    tokens: int  # before anything was cut off
    kept: int
    unknown: int  # tokens that the vocabulary does not have
    words: int  # of what is kept, punctuation included; 0 where the tokenizer knows no words
    broken: int  # words that take several tokens
    script: str  # most of its letters: "LATIN", "CYRILLIC"…; "" without letters
    garbled: bool  # holds the traces of a wrong encoding


@dataclass(frozen=True)
class TextSpec:
    """What a language model wants to read.

    ``tokenizer`` is the content of a ``tokenizer.json``, special tokens included; texts of more than ``max_length``
    tokens lose their end. ``mask`` is the id that hides a token in augmentation, where the tokenizer has one.
    ``texts`` is how many make up a row: 1, or 2 of pairs; others are refused. None takes both.
    """

    modality: ClassVar[str] = "text"
    tokenizer: str
    max_length: int = 256
    mask: int | None = None
    texts: int | None = None

    def __post_init__(self) -> None:
        insist_types(self, {"tokenizer": str, "max_length": int, "mask": (int, type(None)), "texts": (int, type(None))})
        if self.texts not in (None, 1, 2):
            raise ConfigError(f"texts {self.texts} of a text spec", remedy="1, or 2 for pairs")
        if self.max_length < 4:
            raise ConfigError(f"max_length {self.max_length} leaves no room for a text", remedy="give 4 or more")

    @property
    def input_shape(self) -> tuple[int, int]:
        """(2, T) of the longest row."""
        return (2, self.max_length)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokenizer."""
        return hashlib.sha256(self.tokenizer.encode()).hexdigest()

    @property
    def kept_by(self) -> tuple[Any, ...]:
        """All that canvases depend on."""
        return (self.digest, self.max_length, self.texts)

    @property
    def described(self) -> str:
        """For people."""
        return f"texts of at most {self.max_length} tokens"

    def blank(self, rows: int) -> np.ndarray:
        """Rows of eight times the first token, int32 (rows, 2, 8)."""
        return np.zeros((rows, 2, min(8, self.max_length)), np.int32)

    def noise(self, rows: int) -> np.ndarray:
        """The same random texts each time, of different lengths, int32 (rows, 2, T)."""
        size = reader(self.tokenizer, self.max_length).get_vocab_size()
        rng = np.random.Generator(np.random.Philox(0))
        lengths = np.linspace(min(12, self.max_length), min(7, self.max_length), rows).astype(int)
        made = [np.stack([rng.integers(0, size, n), np.zeros(n, np.int64)]).astype(np.int32) for n in lengths]
        return collate(made, self)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> TextSpec:
        """The spec that ``to_json`` wrote."""
        spec = cls(**stored)
        reader(spec.tokenizer, spec.max_length)
        return spec


Spec = TextSpec


@dataclass(frozen=True, slots=True)
class TextPolicy:
    """Augmentation of texts: each token is hidden with probability ``mask``."""

    mask: float = 0.0

    @property
    def is_random(self) -> bool:
        return self.mask > 0


def policy(value: Any, *, where: str = "augment") -> TextPolicy | Callable[..., Any] | None:
    """A policy from a preset's name, ``{"mask": 0.1}``, a callable (row, rng) -> row, or None.

    Raises:
        ConfigError: anything else.
    """
    if value is None or callable(value) or isinstance(value, TextPolicy):
        return value
    if isinstance(value, str):
        if value not in PRESETS:
            what = f"no augmentation of texts is called '{value}'{suggest(value, PRESETS)}"
            raise ConfigError(what, where=where, remedy=f"known: {', '.join(PRESETS)}")
        return TextPolicy(PRESETS[value])
    share = value.get("mask") if isinstance(value, Mapping) and set(value) == {"mask"} else None
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ConfigError(f"cannot augment texts by {value!r}", where=where, remedy="such as {mask: 0.1}")
    return TextPolicy(float(share))


def decode(item: Any, spec: TextSpec) -> np.ndarray:
    """The tokens of a text, int32 (2, T). Raises DecodeError with a reason code."""
    return decode_with_facts(item, spec)[0]


def decode_with_facts(item: Any, spec: TextSpec) -> tuple[np.ndarray, Facts]:
    """The tokens, and what was seen."""
    texts, kind, content = reading.read(item)
    reading.insist_count(texts, spec.texts)
    second = texts[1] if len(texts) > 1 else None
    tokenizer = reader(spec.tokenizer)
    found = tokenizer.encode(texts[0], second)
    tokens = len(found.ids)
    if tokens > spec.max_length:
        found = reader(spec.tokenizer, spec.max_length).encode(texts[0], second)
    if all(found.special_tokens_mask):
        raise DecodeError("empty-text", "has only characters that the tokenizer leaves out")
    value = np.array([found.ids, found.type_ids], dtype=np.int32)
    whole = " ".join(texts)
    count, broken = words(found, tokenizer, spaced=len(whole.split()) * len(found.ids) / tokens)
    facts = Facts(
        format=kind,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        characters=len(whole),
        tokens=tokens,
        kept=len(found.ids),
        unknown=found.ids.count(unknown_id(spec.tokenizer)),
        words=count,
        broken=broken,
        script=reading.script_of(whole),
        garbled=reading.is_garbled(whole),
    )
    return value, facts


def fingerprint(item: Any) -> str:
    """SHA-256 of the text."""
    return hashlib.sha256(reading.read(item)[2]).hexdigest()


def extent(item: Any) -> float:
    """Characters of a text or a pair of texts; of bytes their number."""
    return sum(map(len, item)) if isinstance(item, (tuple, list)) else len(item)


def canvas(value: np.ndarray, spec: TextSpec) -> np.ndarray:
    """The tokens themselves: they are what is worth keeping."""
    return value


def finish(canvas: np.ndarray, spec: TextSpec) -> np.ndarray:
    """What the network sees without chance: the tokens, int32 (2, T)."""
    return canvas


def prepare(item: Any, spec: TextSpec) -> np.ndarray:
    """One item to network input, int32 (2, T)."""
    return decode(item, spec)


def augment(
    canvas: np.ndarray, spec: TextSpec, policy: TextPolicy | Callable[..., Any] | None, rng: np.random.Generator
) -> np.ndarray:
    """What the network sees with chance; every draw comes from ``rng``. The first and last token always stay."""
    if callable(policy):
        return np.asarray(policy(canvas.copy(), rng), dtype=np.int32)
    if policy is None or not policy.is_random or spec.mask is None:
        return canvas
    hidden = np.asarray(rng.random(canvas.shape[1]) < policy.mask)
    hidden[[0, -1]] = False
    changed = canvas.copy()
    changed[0, hidden] = spec.mask
    return changed


def collate(values: Sequence[np.ndarray], spec: TextSpec | None = None) -> np.ndarray:
    """B rows (2, T) as one batch (B, 2, T), as long as the longest or a little longer; PAD where there is no token."""
    longest = max(value.shape[1] for value in values)
    batch = np.zeros((len(values), 2, longest if spec is None else evened(longest, spec.max_length)), np.int32)
    batch[:, 0] = PAD
    for row, value in enumerate(values):
        batch[row, :, : value.shape[1]] = value
    return batch


def plain(rows: Rows, channels: int) -> TextSpec:
    """A spec to look at texts with where no backbone is asked: the words of the texts themselves are the tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = (" ".join(text for text in reading.texts_of(item)) for item in rows.items)
    made.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False))
    return TextSpec(made.to_str(), 8192)


def suited(spec: TextSpec, rows: Rows) -> TextSpec:
    """The spec for single texts or for pairs, whichever the rows are."""
    return replace(spec, texts=reading.count_of(rows.items))


def fitted(spec: TextSpec, lengths: np.ndarray) -> tuple[TextSpec, str]:
    """The spec for rows of these lengths: a batch is padded to about its own longest, so nothing needs to change."""
    return spec, ""


def largest_canvas(spec: TextSpec) -> int:
    """Bytes that no canvas of this spec exceeds."""
    return 2 * 4 * spec.max_length


def sketch(canvas: np.ndarray) -> np.ndarray:
    """The MinHash of the text between its first and last token, uint8; zeros where it is short."""
    return shingles.minhash(canvas[0, 1:-1])


def texts(item: Any) -> tuple[str, ...]:
    """The text, or the pair of texts; nothing of a file, which has a name, and of what cannot be read."""
    return () if isinstance(item, os.PathLike) else reading.texts_of(item)


def preview(item: Any) -> tuple[str, bytes]:
    """The beginning of the text: ".txt" and its bytes in UTF-8."""
    whole = "\n— — —\n".join(reading.read(item)[0])
    return ".txt", (whole if len(whole) <= PREVIEW else f"{whole[: PREVIEW - 1]}…").encode()


def shown(seen: np.ndarray, spec: TextSpec) -> tuple[str, bytes]:
    """What the network sees of one row (2, T): its tokens, divided by bars, as ".txt"."""
    tokenizer = reader(spec.tokenizer, spec.max_length)
    tokens = [tokenizer.id_to_token(int(number)) or "?" for number in seen[0] if number != PAD]
    return ".txt", "|".join(tokens).encode()[: 2 * PREVIEW]
