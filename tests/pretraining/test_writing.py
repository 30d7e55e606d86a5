"""The writing for the text backbone: readers of formats, cleaning, dictionaries, and batches that depend on nothing but
the seed and the step."""

from __future__ import annotations

import json
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pretraining.writing import cleaning, colloquial, dictionaries, factors, formats, judging, vocabulary
from pretraining.writing.batches import Exchange, Reader
from pretraining.writing.dictionaries import Meaning
from pretraining.writing.objectives import Writing

EN = [
    "the food in this house is very good and the people are kind to all",
    "a small cat sat on the old red mat by the door",
]
ID = [
    "makanan di rumah ini sangat enak dan orang yang tinggal ramah",
    "kucing kecil itu tidak duduk di atas tikar merah tua",
]
MEANINGS = [
    Meaning({"id": ["enak", "lezat", "sedap"]}, opposites={"id": ["hambar"]}),
    Meaning({"en": ["good"], "id": ["baik", "bagus"]}, glosses=["having the qualities that one wants"]),
    Meaning({"en": ["kind", "gentle"]}, glosses=["of a friendly nature"], opposites={"en": ["unkind"]}),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writing")
    (folder / "en.txt").write_text("\n".join(EN * 5) + "\n")
    (folder / "id.txt").write_text("\n".join(ID * 5) + "\n")
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(EN, ID, strict=True)))
    lines = [json.dumps(meaning.as_json()) for meaning in MEANINGS]
    (folder / "meanings.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return vocabulary.train({"en": EN * 5, "id": ID * 5}, {"id": ["lezat"] * 2, "en": []}, 600, 64)


def test_a_vocabulary_is_numbered_alike_every_time(tokenizer: PreTrainedTokenizerFast) -> None:
    foreign = ["жаба жила у пруда", "dæmonen løb", "straße und maße", "łąka"]

    def made() -> dict[str, int]:
        texts = {"en": EN * 5 + foreign * 3, "id": ID * 5}
        return dict(vocabulary.train(texts, {"id": ["lezat"] * 2, "en": []}, 600, 64).get_vocab())

    first = made()
    assert {"##ж", "##ß", "##æ"} <= first.keys()
    assert first == made() == made()
    assert [tokenizer.convert_ids_to_tokens(number) for number in range(5)] == list(vocabulary.SPECIAL.values())


@pytest.fixture(scope="module")
def reader(corpus: Path, tokenizer: PreTrainedTokenizerFast) -> Reader:
    return Reader(corpus, tokenizer, seed=3)


def _catalogue(pairs: dict[str, str]) -> bytes:
    texts = [text.encode() for text in (*pairs, *pairs.values())]
    start = 28 + 16 * len(pairs)
    table = b""
    for text in texts:
        table += struct.pack("<2I", len(text), start)
        start += len(text) + 1
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return head + table + b"".join(text + b"\0" for text in texts)


def test_a_catalogue_gives_messages_without_context_and_the_first_plural() -> None:
    content = _catalogue({"": "Language: id", "menu\x04Open": "Buka", "one file\0many files": "satu berkas\0banyak"})
    assert list(formats.catalogue(content)) == [("Open", "Buka"), ("one file", "satu berkas")]


def test_markup_gives_paragraphs_without_code() -> None:
    page = b"<html><head><title>x</title></head><p>One &amp; two</p><pre>code()</pre><p>Three<br/>four</p></html>"
    assert list(formats.markup(page)) == ["One & two", "Three", "four"]


def test_a_bible_module_is_unpacked_block_by_block() -> None:
    packed = zlib.compress(b'In the <w lemma="x">beginning</w>.<div type="x-p"/>And then.')
    assert list(formats.bible(struct.pack("<3I", 0, len(packed), 9), packed)) == ["In the beginning.", "And then."]


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("_Open the file", "Open the file"),
        ("Save &lt;b&gt; as %s", "Save as"),
        ("<b>Bold</b> words at http://a.b/c.", "Bold words at"),
        ("%(count)d files in {folder}", "files in"),
    ],
)
def test_clean_takes_off_what_is_no_word(raw: str, plain: str) -> None:
    assert cleaning.clean(raw) == plain


def test_language_is_told_by_function_words() -> None:
    assert [cleaning.language(text) for text in (EN[0], ID[0], "xyz 123")] == ["en", "id", None]


def test_what_differs_in_case_and_digits_only_is_kept_once() -> None:
    assert list(cleaning.Unseen()(["Chapter 1: a", "chapter 2: A", "b"])) == ["Chapter 1: a", "b"]


def test_a_thesaurus_gives_synonyms_and_antonyms() -> None:
    content = b"ISO-8859-1\nbagus|2\n[a]|apik|baik\n[ant]|jelek|buruk\n"
    (meaning,) = dictionaries.thesaurus(content, "id")
    assert meaning.words == {"id": ["bagus", "apik", "baik"]}
    assert meaning.opposites == {"id": ["jelek", "buruk"]}


def test_a_bilingual_dictionary_gives_translations_and_glosses() -> None:
    text = "delicious //x// /y/ <adj>\nenak, lezat\npleasing to taste\n"
    text += "good //x// <adj>\n1. baik, bagus\nof good use\n2. cukup 2.\n"
    first, second, third = dictionaries.bilingual(text)
    assert first.words == {"en": ["delicious"], "id": ["enak", "lezat"]}
    assert first.glosses == ["pleasing to taste"]
    assert second.words["id"] == ["baik", "bagus"]
    assert third.words["id"] == ["cukup"]


def test_wordnet_gives_glosses_examples_and_the_opposites_of_what_is_near() -> None:
    lines = [
        '01 00 a 01 good 0 002 ! 02 a 0101 & 03 a 0000 | of quality; "a good novel"',
        "02 00 a 01 bad 0 001 ! 01 a 0101 | of no quality",
        "03 00 s 01 superb(p) 0 001 & 01 a 0000 | of surpassing quality",
    ]
    good, _, superb = dictionaries.wordnet({"data.adj": "\n".join(lines).encode()})
    assert good.glosses == ["of quality", "a good novel"]
    assert good.opposites == {"en": ["bad"]}
    assert superb.words == {"en": ["superb"]}
    assert superb.opposites == {"en": ["bad"]}
    assert superb.related == {"en": ["good"]}


def test_exchange_knows_forms_of_words() -> None:
    exchange = Exchange.of(MEANINGS)
    draw = random.Random(0)
    assert exchange.words("lezatnya hambar", "id", draw, "opposite", 1.0).startswith("hambar")
    assert exchange.words("good", "en", draw, "other", 1.0) in ("baik", "bagus")
    assert exchange.words("kinds", "en", draw, "same", 1.0) == "gentle"


def test_everyday_words_take_the_place_of_formal_ones() -> None:
    assert colloquial.spoken("tidak", random.Random(0), 1.0) in colloquial.WORDS["tidak"]
    assert colloquial.spoken("tidak enak", random.Random(0), 0.0) == "tidak enak"


def test_batches_depend_on_seed_and_step_only(reader: Reader) -> None:
    first, again, later = reader.masked(4, 6, 32), reader.masked(4, 6, 32), reader.masked(5, 6, 32)
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.ids, later.ids)
    alike, same = reader.alike(4, 8, 16), reader.alike(4, 8, 16)
    assert all(torch.equal(a, b) for a, b in zip(alike.chunks[1], same.chunks[1], strict=True))
    assert torch.equal(alike.opposite_of, same.opposite_of)


def test_words_are_hidden_whole_and_real(reader: Reader) -> None:
    batch = reader.masked(0, 8, 32, share=1.0)
    inside = batch.attention.bool().clone()
    inside[:, 0] = False
    ends, most = 8, round(0.9 * 8 * 32)  # the ends of rows are no words, and no batch hides more than that
    assert min(inside.sum().item() - ends, most) <= len(batch.places) <= inside.sum().item()
    assert batch.attention.reshape(-1)[batch.places].all()
    assert (batch.targets > 4).all()


def test_words_of_texts_of_dictionaries_and_of_chats_are_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("The house is lezat, banget") == ["the", "house", "is", "lezat", ",", "banget"]
    assert len(tokenizer) <= 600
    assert tokenizer.unk_token not in tokenizer.tokenize("unheard hal")
    assert len(tokenizer("red " * 100, truncation=True)["input_ids"]) == 64


def test_the_embedding_begins_with_what_words_mean(tokenizer: PreTrainedTokenizerFast) -> None:
    told = [*MEANINGS, Meaning({"en": ["good"], "id": ["enak"]}, opposites={"en": ["old"]})]
    found = factors.embedding(tokenizer, [(EN, 1.0), (ID, 3.0)], told, 6, share=10.0)
    assert found.shape == (len(tokenizer), 6)
    units = found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-9)
    near = {word: units[tokenizer.convert_tokens_to_ids(word)] for word in ("good", "enak", "old")}
    assert near["good"] @ near["enak"] > 0.5
    assert near["good"] @ near["old"] < 0
    assert np.abs(found[tokenizer.mask_token_id]).max() < 1e-9  # it stands nowhere


def test_a_probe_is_judged_on_rows_it_has_not_seen(tmp_path: Path) -> None:
    (tmp_path / "train_preprocess.csv").write_text('label,tweet\nlove,"so, good"\n')
    assert judging.emotions(tmp_path) == [("love", "so, good")]
    (tmp_path / "topics.tsv").write_text("pets\ta cat\n")
    assert judging.topics(tmp_path / "topics.tsv") == [("pets", "a cat")]


def test_both_losses_fall_on_one_batch(reader: Reader) -> None:
    from transformers import ElectraConfig

    torch.manual_seed(0)
    shape = {"embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    module = Writing(ElectraConfig(vocab_size=600, intermediate_size=32, max_position_embeddings=64, **shape))
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    masked, alike = reader.masked(0, 8, 32), reader.alike(0, 16, 16)
    values = []
    for _ in range(40):
        words, meanings = module(masked, alike)
        optimizer.zero_grad()
        (words + meanings).backward()
        optimizer.step()
        values.append((words.item(), meanings.item()))
    assert values[-1][0] < 0.7 * values[0][0]
    assert values[-1][1] < 0.7 * values[0][1]
