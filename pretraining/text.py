"""Pretrains ``builtin/text``: a small BERT-like encoder for English and Indonesian.

python -m pretraining.text --corpus runs/writing                               # collect the corpus, once
python -m pretraining.text --corpus runs/writing --folder runs/text --minutes 60 --pack src/headstart/builtin/text
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, ElectraConfig, ElectraModel, PreTrainedTokenizerFast

from headstart.core import manifest
from pretraining import runtime
from pretraining.writing import factors, judging, vocabulary
from pretraining.writing.batches import Reader
from pretraining.writing.corpus import collect, read_meanings
from pretraining.writing.objectives import Writing
from pretraining.writing.packages import NAMED

LENGTH = 128  # tokens of the longest text
SCALE = 0.1  # standard deviation of the embedding at the start


def tokenizer_of(folder: Path, corpus: Path, size: int) -> PreTrainedTokenizerFast:
    """The vocabulary of a run: trained on the corpus at first, opened after that."""
    place = folder / "tokenizer"
    if not (place / "tokenizer.json").exists():
        texts = {name: (corpus / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in ("en", "id")}
        listed: dict[str, list[str]] = {name: [] for name in texts}
        for meaning in read_meanings(corpus):
            for given in (meaning.words, meaning.related, meaning.opposites):
                for name, words in given.items():
                    listed[name] += words
        vocabulary.save(vocabulary.train(texts, listed, size, LENGTH), place)
    return AutoTokenizer.from_pretrained(place)


def start(module: Writing, reader: Reader, tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    """Begin with factors of the corpus as the embedding; they are counted at first and kept in ``file``."""
    embedding = module.encoder.embeddings.word_embeddings.weight.data
    if not file.exists():
        texts = [(reader.text["en"], 1.0), (reader.text["id"], 3.0), (reader.exchanged(), 2.0)]
        found = factors.embedding(tokenizer, texts, reader.meanings, embedding.shape[1])
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, found.astype(np.float32))
    found = torch.from_numpy(np.load(file))
    found = found * (SCALE / found.std())
    nowhere = found.norm(dim=1) < 1e-6 * found.norm(dim=1).max()
    found[nowhere] = SCALE * torch.randn(int(nowhere.sum()), found.shape[1])
    embedding.copy_(found)


def configuration(vocabulary_size: int, embedding: int, width: int, depth: int) -> ElectraConfig:
    """The encoder's shape; its feed-forward parts are twice as wide as its blocks."""
    return ElectraConfig(
        vocab_size=vocabulary_size,
        embedding_size=embedding,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        intermediate_size=2 * width,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,  # the text is seen about once
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )


def train(options: argparse.Namespace) -> tuple[runtime.Training, PreTrainedTokenizerFast]:
    """Run, or go on with, the training in ``options.folder``."""
    tokenizer = tokenizer_of(options.folder, options.corpus, options.vocabulary)
    reader = Reader(options.corpus, tokenizer, options.seed)
    torch.manual_seed(options.seed)
    config = configuration(len(tokenizer), options.embedding, options.width, options.depth)
    config._attn_implementation = "eager"  # with short texts on a CPU it is the quickest
    module = Writing(config, options.temperature, options.contrast)
    start(module, reader, tokenizer, options.folder / "factors.npy")
    settings = runtime.Settings(seed=options.seed, minutes=options.minutes, steps=options.steps, lr=options.lr)
    training = runtime.Training(module, options.folder, replace(settings, weight_decay=0.01, ema=0.998))
    module.train()
    for step in training:
        masked = reader.masked(step, options.rows, options.length, options.share)
        alike = reader.alike(step, options.pairs, options.pair_length)
        with torch.autocast("cpu", torch.bfloat16):
            words, meanings = module(masked, alike)
        training.update(words + meanings, words=words, meanings=meanings)
    return training, tokenizer


def pack(training: runtime.Training, tokenizer: PreTrainedTokenizerFast, folder: Path, facts: dict[str, Any]) -> None:
    """Weights, configuration, vocabulary and card into ``folder``, which transformers opens."""
    assert isinstance(training.module, Writing)
    vocabulary.save(tokenizer, folder)
    config = training.module.encoder.config
    config.architectures = ["ElectraModel"]
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1  # for those who fine-tune
    config.dtype = "float32"
    config.save_pretrained(folder)
    card = {
        "name": "text",
        "architecture": {"library": "transformers"},
        "input": {"max_length": LENGTH},
        "data": "English and Indonesian that installs with Debian packages: program messages with their translations,"
        " documentation, quotations, novels, scripture, games that tell stories, dictionaries and thesauri",
        "script": "pretraining/text.py",
        **facts,
        **training.facts(),
    }
    runtime.pack(folder, training.averages(prefix="encoder."), card)


def about(corpus: Path) -> dict[str, Any]:
    """What the card says of the corpus."""
    facts = manifest.read_json(corpus / "manifest.json")
    return {**{name: facts[name] for name in ("paragraphs", "pairs", "meanings")}, "packages": len(facts["packages"])}


def judged(
    training: runtime.Training, tokenizer: PreTrainedTokenizerFast, corpus: Path, tweets: Path | None
) -> dict[str, float]:
    """Accuracy of a frozen probe on the development sets, beside random weights and TF-IDF."""
    assert isinstance(training.module, Writing)
    config = training.module.encoder.config
    torch.manual_seed(training.settings.seed)
    encoders = {"frozen probe": ElectraModel(config), "random weights": ElectraModel(config)}
    encoders["frozen probe"].load_state_dict(training.averages(prefix="encoder."))
    sets = {"topics of quotations": judging.topics(corpus / "topics.tsv")}
    if tweets is not None:
        sets["emotions in Indonesian tweets (IndoNLU emot)"] = judging.emotions(tweets)
    found = {name: judging.scores(encoders, tokenizer, rows) for name, rows in sets.items()}
    return {f"{name}, {what}": score for name, scores in found.items() for what, score in scores.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runtime.add_arguments(parser, "runs/text")
    parser.add_argument("--corpus", type=Path, default=Path("runs/writing"), help="made where it is not there yet")
    parser.add_argument("--vocabulary", type=int, default=17_408)
    parser.add_argument("--embedding", type=int, default=96)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64, help="running texts a step")
    parser.add_argument("--length", type=int, default=64, help="tokens of a running text")
    parser.add_argument("--share", type=float, default=0.15, help="of the words that are hidden")
    parser.add_argument("--pairs", type=int, default=128, help="texts of one meaning a step")
    parser.add_argument("--pair-length", type=int, default=48)
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--contrast", type=float, default=1.0, help="weight of the contrastive loss")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tweets", type=Path, help="folder of IndoNLU's emot, a second development set")
    parser.add_argument("--pack", type=Path, help="write the backbone here at the end")
    options = parser.parse_args()
    if not (options.corpus / "manifest.json").exists():
        collect(options.corpus, options.corpus / "packages", NAMED)
    if options.minutes is None and options.steps is None:
        return
    training, tokenizer = train(options)
    if options.pack is not None:
        facts: dict[str, Any] = {"corpus": about(options.corpus)}
        facts["scores"] = judged(training, tokenizer, options.corpus, options.tweets)
        names = ("vocabulary", "embedding", "width", "depth", "rows", "length", "share", "pairs", "pair_length")
        names = (*names, "temperature", "contrast", "lr", "seed", "minutes", "steps")
        given = [(name, getattr(options, name)) for name in names if getattr(options, name) is not None]
        arguments = [part for name, value in given for part in (f"--{name.replace('_', '-')}", str(value))]
        pack(training, tokenizer, options.pack, {"arguments": arguments, **facts})


if __name__ == "__main__":
    main()
