"""The audit of texts: near copies are found, others not; each oddity is named and a clean collection is silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.audit import Audit, audit
from headstart.data.checks.findings import Finding
from headstart.data.checks.near import text as near
from headstart.data.modalities import text
from headstart.data.modalities.text import TextSpec
from headstart.data.splits import Rows, Splits
from headstart.data.store import Store

from .. import words
from .grammar import disagrees

TOKENIZER = words.tokenizer(extra=2000)
SPEC = TextSpec(TOKENIZER, max_length=64)


def story(rng: np.random.Generator, length: int = 40) -> str:
    return " ".join(f"word{n}" for n in rng.integers(0, 2000, length))


def stories(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [story(rng) for _ in range(count)]


def sketches(texts: list[str]) -> np.ndarray:
    return np.stack([text.sketch(text.decode(each, SPEC)) for each in texts])


def test_a_sketch_estimates_the_likeness_of_shingles() -> None:
    rng = np.random.default_rng(0)
    gaps = []
    for changed in range(0, 20, 2):
        first = story(rng).split()
        second = [f"word{rng.integers(2000)}" if place < changed else word for place, word in enumerate(first)]
        sets = [{tuple(each[place : place + 3]) for place in range(38)} for each in (first, second)]
        wanted = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        numbers = sketches([" ".join(first), " ".join(second)]).view("<u4")
        gaps.append(float((numbers[0] == numbers[1]).mean()) - wanted)
    assert np.abs(gaps).max() < 0.2  # the estimate's standard deviation is below 1/16
    assert abs(np.mean(gaps)) < 0.05


def test_copies_with_a_changed_word_are_found_and_others_not() -> None:
    texts = stories(1000, seed=1)
    rng = np.random.default_rng(2)
    for number in range(50):
        changed = texts[number].split()
        changed[int(rng.integers(40))] = "soup"
        texts[999 - number] = " ".join(changed)
    pairs, likeness, asked = near.near(sketches(texts))
    planted = {(number, 999 - number) for number in range(50)}
    found = {(int(a), int(b)) for a, b in pairs}
    assert len(found & planted) >= 45
    assert len(found - planted) <= 10
    assert (likeness >= asked).all()


def test_short_texts_have_no_sketch_and_are_never_near() -> None:
    same = sketches(["the film was good"] * 3)
    assert not same.any()
    assert len(near.near(same)[0]) == 0


def test_a_crowd_of_copies_hangs_together() -> None:
    texts = [*stories(20, seed=3), *stories(1, seed=4) * 30]
    pairs, _, _ = near.near(sketches(texts))
    assert {int(b) for _, b in pairs} == set(range(21, 50))
    assert {int(a) for a, _ in pairs} <= set(range(20, 50))


def splits(train: dict[int, Any] | None = None) -> Splits:
    texts = stories(60, seed=5)
    items = [(train or {}).get(row, each) for row, each in enumerate(texts[:40])]
    rows = [
        Rows(part, np.arange(len(part)) % 2, tuple(f"{name} {row}" for row in range(len(part))))
        for name, part in (("train", items), ("val", texts[40:]))
    ]
    return Splits(rows[0], rows[1], ("a", "b"), "text")


def checked(found: Splits) -> Audit:
    stores = {name: Store.build(rows, SPEC, modality="text") for name, rows in found.present().items()}
    return audit(found, stores)


def test_a_clean_collection_has_no_finding() -> None:
    assert checked(splits()).findings == ()


LONG = story(np.random.default_rng(6), 200)
COPY = stories(60, seed=5)
PLANTED: dict[str, tuple[Callable[[], dict[int, Any]], str, set[int]]] = {
    "texts that are cut": (lambda: {3: LONG}, "truncated", {3}),
    "words of another language": (lambda: {4: "kata " * 40, 5: "lain " * 40}, "unknown-tokens", {4, 5}),
    "what is kept is of another language": (lambda: {12: "kata " * 15 + LONG}, "unknown-tokens", {12}),
    "a wrong encoding": (lambda: {6: COPY[6] + " cafÃ©"}, "garbled", {6}),
    "another script": (lambda: {7: COPY[7].replace("word", "слово")}, "other-script", {7}),
    "one word": (lambda: {8: "word1"}, "odd-length", {8}),
    "nothing": (lambda: {9: "  "}, "unreadable", {9}),
    "the same text with two labels": (lambda: {11: COPY[10]}, "conflicting-labels", {10, 11}),
}


def pieces(entries: int = 1200, *, divided: bool = True) -> TextSpec:
    """A tokenizer that knows a few words whole, and of others their letters; undivided, a text is one word to it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [*(chr(code) for code in range(ord("a"), ord("z") + 1)), *"ฟิล์มดาก"]
    known = ["[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "good", *letters, *(f"##{letter}" for letter in letters)]
    known += [f"filler{number}" for number in range(entries - len(known))]
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(known)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase() if divided else normalizers.Replace(" ", "")
    if divided:
        made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return TextSpec(made.to_str(), max_length=64)


FOREIGN = "filmnya bagus sekali"


@pytest.mark.parametrize(
    ("share", "sentence", "spec", "told"),
    [
        (0.5, FOREIGN, pieces(), False),
        (0.8, FOREIGN, pieces(), True),
        (0.8, "ฟิล์ม ดีมาก", pieces(), False),  # a script that does not divide words: nothing follows from what is broken
        (0.8, FOREIGN, pieces(100), False),  # a vocabulary that spells
        (1.0, FOREIGN, pieces(divided=False), False),  # one that knows no words
    ],
    ids=["half", "most", "Thai", "spelling", "undivided"],
)
def test_a_backbone_that_may_not_know_the_language_is_told(
    share: float, sentence: str, spec: TextSpec, told: bool
) -> None:
    texts = [sentence if row < share * 100 else "the film was" for row in range(100)]
    rows = Rows(texts, np.arange(100) % 2, tuple(f"row {row}" for row in range(100)))
    assert [each.split for each in broken(rows, spec)] == ["train"] * told
    assert not broken(rows.take(range(60)), spec), "180 words are too few"
    if told:
        assert f"breaks {share:.0%} of the words into pieces" in broken(rows, spec)[0].message


def broken(rows: Rows, spec: TextSpec) -> list[Finding]:
    found = Splits(rows, rows, ("a", "b"), "text")
    stores = {name: Store.build(part, spec, modality="text") for name, part in found.present().items()}
    return [each for each in audit(found, stores).findings if each.kind == "broken-words"]


def test_words_and_those_of_several_tokens_are_counted_in_both_texts_of_a_pair() -> None:
    _, facts = text.decode_with_facts(("The film was bad.", "bad film"), pieces())
    assert (facts.words, facts.broken) == (7, 2)


def test_words_of_what_is_cut_off_are_not_counted() -> None:
    _, facts = text.decode_with_facts("the film was good " * 50, pieces())
    assert (facts.words, facts.broken, facts.kept) == (62, 0, 64)


def test_files_whose_encoding_was_guessed_are_named(tmp_path: Path) -> None:
    for index, story in enumerate(COPY[:3]):
        (tmp_path / f"{index}.txt").write_bytes(f"{story} café".encode("utf-8" if index else "cp1252"))
    told = checked(splits({row: tmp_path / f"{row}.txt" for row in range(3)})).findings
    (found,) = (finding for finding in told if finding.kind == "guessed-encoding")
    assert found.rows == (0,)
    assert found.message.startswith("1 is not UTF-8 and was read as Windows' Latin (cp1252)")


@pytest.mark.parametrize(("change", "kind", "rows"), PLANTED.values(), ids=PLANTED)
def test_every_planted_fault_is_named(change: Callable[[], dict[int, Any]], kind: str, rows: set[int]) -> None:
    found = {finding.kind: finding for finding in checked(splits(change())).findings}
    assert kind in found, sorted(found)
    assert set(found[kind].rows) == rows
    assert not disagrees(found[kind].message)


def test_how_much_is_cut_is_told() -> None:
    (finding,) = [each for each in checked(splits({3: LONG})).findings if each.kind == "truncated"]
    total = 39 * 42 + 202
    assert f"{138 / total:.1%} of all tokens; the longest has 202" in finding.message
    assert finding.severity == "warning"


def test_a_text_of_training_in_validation_is_named() -> None:
    found = checked(splits({0: COPY[40]}))
    kinds = {(finding.kind, finding.split): finding.rows for finding in found.findings}
    assert kinds == {("exact-duplicates-across", "train+val"): (0,)}
