"""Texts: tokens as transformers' own tokenizer makes them, what is seen of them, batches, augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import ConfigError
from headstart.data.modalities import text
from headstart.data.modalities.base import DecodeError
from headstart.data.modalities.text import PAD, TextSpec
from headstart.data.splits import Rows
from headstart.data.texts import reading

from .. import words

TOKENIZER = words.tokenizer()
SPEC = TextSpec(TOKENIZER, max_length=12, mask=4)
LONG = "the film was very good and the soup was rather bad and cold"
ITEMS: dict[str, Any] = {
    "a word": "good",
    "a sentence": "The film was GOOD!",
    "unknown words": "the zyzzyva was good",
    "too long": LONG,
    "a pair": ("the film was good", "it was bad"),
    "a pair, its first too long": (LONG, "it was bad"),
    "a pair, its second too long": ("it was bad", LONG),
    "a pair, both too long": (LONG, LONG),
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(TOKENIZER), pad_token="[PAD]", model_max_length=12
    )


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_tokens_are_those_of_transformers(item: Any, theirs: Any) -> None:
    first, second = item if isinstance(item, tuple) else (item, None)
    wanted = theirs(first, second, truncation=True, max_length=12, return_token_type_ids=True)
    value = text.decode(item, SPEC)
    assert value.dtype == np.int32
    assert value[0].tolist() == wanted["input_ids"]
    assert value[1].tolist() == wanted["token_type_ids"]


def test_single_texts_and_pairs_are_not_mixed_up() -> None:
    one, pair = "the film was good", ("the film was good", "it was bad")
    for texts, taken, refused, told in ((1, one, pair, "single ones"), (2, pair, one, "pairs of texts")):
        spec = TextSpec(TOKENIZER, max_length=12, texts=texts)
        assert np.array_equal(text.decode(taken, spec), text.decode(taken, SPEC))
        with pytest.raises(DecodeError, match=f"the model reads {told}"):
            text.decode(refused, spec)
        assert TextSpec.from_json(spec.to_json()) == spec
    with pytest.raises(ConfigError, match="texts 3"):
        TextSpec(TOKENIZER, texts=3)


@pytest.mark.parametrize(
    ("items", "texts"), [(["", "a b"], 1), ([("", ""), ("a", "b"), "c"], 2), ([None], None), ([], None)]
)
def test_what_a_row_is_is_told_by_the_first_that_can_be_read(items: list[Any], texts: int | None) -> None:
    rows = Rows(items=items, labels=np.zeros(len(items), np.int64), names=tuple(map(str, range(len(items)))))
    assert text.suited(SPEC, rows).texts == texts


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_facts_count_what_is_cut_off(item: Any, theirs: Any) -> None:
    first, second = item if isinstance(item, tuple) else (item, None)
    value, facts = text.decode_with_facts(item, SPEC)
    assert facts.tokens == len(theirs(first, second, truncation=False, max_length=None)["input_ids"])
    assert facts.kept == value.shape[1] <= 12
    assert facts.unknown == value[0].tolist().count(1)
    assert facts.characters == len(first if second is None else f"{first} {second}")


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (None, "missing"),
        (float("nan"), "missing"),
        (("a", None), "missing"),
        ("", "empty-text"),
        (" \n\t", "empty-text"),
        (("good", " "), "empty-text"),
        (7, "not-text"),
        (("a", "b", "c"), "not-text"),
        (b"\xff\xfe\xff", "encoding"),
        (b"caf\xe9", "encoding"),
        ("\ud800", "encoding"),
        ("x" * 1_000_001, "too-long"),
        (Path("/nowhere/at/all.txt"), "vanished"),
    ],
)
def test_what_is_no_text_has_a_code(item: Any, code: str) -> None:
    with pytest.raises(DecodeError) as raised:
        text.decode(item, SPEC)
    assert raised.value.reason.code == code


def test_a_file_in_an_old_encoding_is_read_as_tables_are(tmp_path: Path) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_bytes("ein schö\xadnes “Café”\r\n".encode("cp1252"))
    new.write_bytes("ein schö\xadnes “Café”\r\n".encode())
    (value, facts), (wanted, others) = text.decode_with_facts(old, SPEC), text.decode_with_facts(new, SPEC)
    assert value.tolist() == wanted.tolist()
    assert (facts.format, others.format) == (reading.LATIN, "file")
    assert facts.sha256 == others.sha256


ODD = [b"\xff\xfe\xff", b"\x89PNG\r\n\x1a\n\x00", b"caf\xe9 \x81", b"\xef\xbb\xbfcaf\xe9", "café é".encode()[:-1]]


@pytest.mark.parametrize("content", ODD)
def test_a_file_that_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DecodeError) as raised:
        text.decode(tmp_path / "a.txt", SPEC)
    assert raised.value.reason.code == "encoding"


@pytest.mark.parametrize("content", ["good".encode("utf-8-sig"), "good".encode("utf-16"), b"good"])
def test_files_in_each_encoding_that_says_itself(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert text.decode(tmp_path / "a.txt", SPEC).tolist() == text.decode("good", SPEC).tolist()
    assert text.fingerprint(tmp_path / "a.txt") == text.fingerprint("good")


def test_scripts_and_traces_of_wrong_encodings() -> None:
    assert reading.script_of("ein Wort 12") == "LATIN"
    assert reading.script_of("слово word слово") == "CYRILLIC"
    assert reading.script_of("12 !") == ""
    assert text.decode_with_facts("cafÃ© was good", SPEC)[1].garbled
    assert not text.decode_with_facts("café was good", SPEC)[1].garbled


def test_a_batch_is_as_long_as_its_longest() -> None:
    rows = [text.decode(item, SPEC) for item in ("good", "the film was good", ("it was bad", "good"))]
    batch = text.collate(rows)
    assert batch.shape == (3, 2, 7)
    for row, value in zip(batch, rows, strict=True):
        assert row[:, : value.shape[1]].tolist() == value.tolist()
        assert (row[0, value.shape[1] :] == PAD).all()
        assert (row[1, value.shape[1] :] == 0).all(), "which of a pair's texts: a network looks it up"


def test_augmentation_hides_words_and_never_the_ends() -> None:
    row = text.decode(LONG, TextSpec(TOKENIZER, 32, mask=4))
    rng = np.random.Generator(np.random.Philox(3))
    spec = TextSpec(TOKENIZER, 32, mask=4)
    seen = [text.augment(row, spec, text.policy({"mask": 0.3}), rng) for _ in range(200)]
    hidden = np.mean([each[0, 1:-1] == 4 for each in seen])
    assert 0.25 < hidden < 0.35
    assert all(each[0, 0] == 2 and each[0, -1] == 3 for each in seen)
    assert (text.augment(row, TextSpec(TOKENIZER, 32), text.policy("strong"), rng) == row).all()  # no token that hides
    with pytest.raises(ConfigError, match="did you mean 'light'"):
        text.policy("ligth")


def test_a_specification_survives_json_and_refuses_what_is_no_tokenizer() -> None:
    assert TextSpec.from_json(SPEC.to_json()) == SPEC
    with pytest.raises(ConfigError, match="tokenizer cannot be read"):
        TextSpec.from_json({"tokenizer": "{}", "max_length": 12})
    with pytest.raises(ConfigError, match="no room"):
        TextSpec(TOKENIZER, 2)


def test_unknown_words_are_counted_whatever_the_kind_of_tokenizer() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    unigram = Tokenizer(models.Unigram([("<unk>", -10.0), ("good", -1.0), ("film", -2.0)], unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Whitespace()
    facts = text.decode_with_facts("good film 何 good", TextSpec(unigram.to_str(), 12))[1]
    assert facts.unknown == 1
    assert facts.kept == 4


def test_previews_are_short_and_tokens_shown() -> None:
    assert text.preview("x" * 5000)[1].decode() == "x" * 599 + "…"
    assert text.preview(("a", "b"))[1].decode().split("\n") == ["a", "— — —", "b"]
    assert text.shown(text.collate([text.decode("good", SPEC), text.decode(LONG, SPEC)])[0], SPEC)[1] == (
        b"[CLS]|good|[SEP]"
    )
