"""Toys of texts: reviews from templates, a tokenizer of whole words, and tiny random networks that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

GOOD = ("good", "great", "lovely", "superb", "bright", "warm", "fine", "sweet")
BAD = ("bad", "awful", "dreadful", "poor", "dull", "cold", "sad", "bitter")
PLAIN = ("usual", "common", "average", "normal", "plain", "regular", "ordinary", "standard")
THINGS = ("film", "soup", "room", "book", "song", "game", "coat", "lamp", "boat", "chair", "garden", "bridge")
FILLERS = ("the", "a", "very", "quite", "rather", "we", "they", "found", "it", "was", "this", "that", "and", "with")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLASSES = ("bad", "good", "plain")
FAMILIES = ("bert", "roberta", "distilbert", "albert", "deberta-v2", "modernbert", "electra", "mpnet")


def tokenizer(extra: int = 0) -> str:
    """The content of a tokenizer.json of whole lower-case words, with BERT's special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = [*SPECIAL, *GOOD, *BAD, *PLAIN, *THINGS, *FILLERS, ".", ",", "!", "?", *(f"word{n}" for n in range(extra))]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(list(SPECIAL))
    return made.to_str()


def reviews(count: int, seed: int = 0, longest: int = 12) -> tuple[list[str], list[str]]:
    """Texts of different lengths and their classes: one word of each tells it."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for number in range(count):
        label = CLASSES[number % 3]
        words = list(rng.choice(FILLERS + THINGS, rng.integers(3, longest)))
        telling = {"good": GOOD, "bad": BAD, "plain": PLAIN}[label]
        for _ in range(2):
            words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(telling)))
        texts.append(" ".join(words) + str(rng.choice([".", "!", ""])))
        labels.append(label)
    return texts, labels


def config(family: str, **other: Any) -> Any:
    """A configuration of three blocks with 32 features."""
    import transformers as hf

    small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    vocabulary = {"vocab_size": len(json.loads(tokenizer())["model"]["vocab"]), "pad_token_id": 0}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    own: dict[str, dict[str, Any]] = {
        "roberta": {"max_position_embeddings": 130},
        "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48},
        "albert": {"embedding_size": 16},
        "electra": {"embedding_size": 16},
        "modernbert": ends,
    }
    sizes = {} if family == "distilbert" else small
    return hf.AutoConfig.for_model(family, **(sizes | vocabulary | own.get(family, {}) | other))


def network(folder: Path, family: str = "bert", *, kind: str = "AutoModel", seed: int = 0, **other: Any) -> Path:
    """A tiny random network as ``save_pretrained`` writes it, with its tokenizer."""
    import torch
    import transformers as hf

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = getattr(hf, kind).from_config(config(family, **other))
    hf.utils.logging.disable_progress_bar()
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer(), encoding="utf-8")
    return folder
