"""The audit: every check catches its planted fault and is silent on a clean collection."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.audit import Audit, audit
from headstart.data.checks.duplicates import duplicates
from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import UNLABELLED, Rows, Splits
from headstart.data.store import Store

from . import corpus
from .grammar import disagrees

SPEC = ImageSpec((32, 32), 36)
CLASSES = ("ant", "bee", "cow")


def photo(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """A picture with the spectrum of photographs: clouds of all sizes, in colour."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]))) + 0.01
    bands = [np.fft.ifft2(np.fft.fft2(rng.standard_normal(size[::-1])) / frequency**1.3).real for _ in range(3)]
    common = bands[0]
    mixed = np.stack([common + 0.4 * band for band in bands], axis=2)
    mixed = (mixed - mixed.mean()) / mixed.std() * 48 + 120
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def items_of(count: int, start: int, form: str = "PNG") -> list[Any]:
    return [corpus.encoded(photo(start + n), form) for n in range(count)]


def rows_of(items: list[Any], split: str) -> Rows:
    return Rows(items, np.arange(len(items)) % len(CLASSES), tuple(f"{split}/{n}.png" for n in range(len(items))))


def clean() -> Splits:
    return Splits(
        rows_of(items_of(36, 0), "train"),
        rows_of(items_of(12, 1000), "val"),
        CLASSES,
        "image",
        rows_of(items_of(12, 2000), "test"),
    )


CLEAN = clean()


def checked(splits: Splits, **options: Any) -> Audit:
    return audit(splits, {name: Store.build(rows, SPEC) for name, rows in splits.present().items()}, **options)


def with_items(split: str, changes: dict[int, Any]) -> Splits:
    rows = CLEAN.present()[split]
    return replace(CLEAN, **{split: replace(rows, items=[changes.get(n, item) for n, item in enumerate(rows.items)])})


def with_labels(split: str, labels: np.ndarray) -> Splits:
    return replace(CLEAN, **{split: replace(CLEAN.present()[split], labels=labels)})


def test_a_clean_collection_has_no_finding() -> None:
    found = checked(CLEAN)
    assert found.findings == ()
    assert found.checked == 60
    assert {split: len(rows) for split, rows in found.usable.items()} == {"train": 36, "val": 12, "test": 12}


TRAIN = CLEAN.train.items
LOW = np.array([0] * 30 + [1] * 3 + [2] * 3)
PLANTED: dict[str, tuple[Callable[[], Splits], str, str, set[int] | None, str]] = {
    "unreadable": (lambda: with_items("train", {5: b"junk"}), "unreadable", "warning", {5}, "train/5.png"),
    "too many unreadable": (lambda: with_items("val", {1: b"", 2: b""}), "unreadable", "error", {1, 2}, "2 empty-file"),
    "one of few unreadable": (lambda: with_items("val", {1: b""}), "unreadable", "warning", {1}, "1 of 12"),
    "nothing readable": (
        lambda: replace(CLEAN, val=Rows([b""], np.array([0]), ("val/0.png",))), "unreadable", "error", {0}, "1 of 1"),
    "a class left empty": (
        lambda: with_items("train", dict.fromkeys(range(0, 36, 3), b"")), "empty-class", "error", None, "ant"),
    "small class": (lambda: with_labels("train", LOW), "small-class", "warning", set(range(30, 36)), "cow (3)"),
    "imbalance": (lambda: with_labels("train", LOW), "imbalance", "warning", None, "10 to 1"),
    "class missing": (
        lambda: with_labels("test", np.arange(12) % 2), "class-missing", "warning", None, "cow"),
    "one class": (
        lambda: replace(with_labels("train", np.zeros(36, np.int64)), classes=("ant",),
                        val=replace(CLEAN.val, labels=np.zeros(12, np.int64)), test=None),
        "single-class", "error", None, "ant"),
    "exact copy within": (
        lambda: with_items("train", {6: TRAIN[3]}), "exact-duplicates", "info", {6}, "train/6.png = train/3.png"),
    "exact copy across": (
        lambda: with_items("test", {3: TRAIN[6]}), "exact-duplicates-across", "warning", {3}, "test/3.png = train/6"),
    "near copy across": (
        lambda: with_items("test", {3: corpus.encoded(photo(6), quality=50)}),
        "near-duplicates-across", "warning", {3}, "test/3.png = train/6.png"),
    "near copy within": (
        lambda: with_items("train", {9: corpus.encoded(photo(3).resize((90, 72)), "PNG")}),
        "near-duplicates", "info", {9}, "train/9.png = train/3.png"),
    "two labels": (
        lambda: with_items("train", {4: TRAIN[3]}), "conflicting-labels", "warning", {3, 4}, "train/4.png (bee)"),
    "two labels, nearly": (
        lambda: with_items("train", {4: corpus.encoded(photo(3), quality=60)}),
        "conflicting-labels-near", "info", {3, 4}, "train/3.png (ant)"),
    "mode": (
        lambda: with_items("train", {2: corpus.encoded(corpus.sixteen_bit(), "PNG")}), "odd-mode", "info", {2}, "I;16"),
    "orientation": (lambda: with_items("val", {2: corpus.oriented(6)}), "orientation", "info", {2}, "val/2.png"),
    "moving": (lambda: with_items("train", {2: corpus.animated("GIF")}), "several-frames", "warning", {2}, "1 holds"),
    "tiny": (lambda: with_items("train", {2: corpus.encoded(photo(99, (9, 9)), "PNG")}), "tiny", "warning", {2}, "48"),
    "elongated": (
        lambda: with_items("train", {2: corpus.encoded(photo(99, (300, 48)), "PNG")}),
        "elongated", "warning", {2}, "4:1"),
    "format gives a class away": (
        lambda: with_items("train", {n: corpus.encoded(photo(n), "BMP") for n in range(1, 36, 3)}),
        "shortcut", "warning", set(range(1, 36, 3)), "bee (BMP: 100% of its rows, 0% of the others)"),
    "size gives a class away": (
        lambda: with_items("train", {n: corpus.encoded(photo(n, (62, 48)), "PNG") for n in range(1, 36, 3)}),
        "shortcut", "warning", set(range(1, 36, 3)), "62x48"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_each_planted_fault_is_found(fault: str) -> None:
    make, kind, severity, rows, text = PLANTED[fault]
    splits = make()
    found = checked(splits)
    matching = [finding for finding in found.findings if finding.kind == kind]
    assert len(matching) == 1, found.findings
    (finding,) = matching
    assert finding.severity == severity
    assert text in finding.message
    assert not disagrees(finding.message)
    if rows is not None:
        assert set(finding.rows) == rows
        if kind != "small-class" and kind != "shortcut":
            split = splits.present()[finding.split.rpartition("+")[2]]
            assert finding.names == tuple(split.names[row] for row in finding.rows)
    assert bool(found.errors) == (severity == "error")
    assert finding.remedy or kind == "odd-mode"


def test_unreadable_rows_are_not_usable_and_may_stop() -> None:
    splits = with_items("train", {5: b"junk", 7: corpus.encoded(photo(7))[:-40]})
    found = checked(splits, max_unreadable=0.5)
    assert not found.errors
    assert sorted(set(range(36)) - set(found.usable["train"].tolist())) == [5, 7]
    (finding,) = found.findings
    assert "1 not-an-image" in finding.message
    assert "1 truncated" in finding.message
    assert checked(splits, on_unreadable="stop", max_unreadable=0.5).errors


def test_one_store_for_all_splits_and_known_duplicates_give_the_same_audit() -> None:
    splits = with_items("test", {3: TRAIN[6], 4: corpus.encoded(photo(7), quality=50), 5: b""})
    items, at, index = [], 0, {}
    for name, rows in reversed(splits.present().items()):  # stored in another order than the splits come
        items += list(rows.items)
        index[name] = np.arange(at, at + len(rows))
        at += len(rows)
    store = Store.build(Rows(items, np.zeros(at, np.int64), tuple(map(str, range(at)))), SPEC)
    order = np.concatenate([index[name] for name in splits.present()])
    stores = {name: store.take(index[name]) for name in splits.present()}
    found = audit(splits, stores, max_unreadable=0.1, twins=duplicates(store).take(order))
    expected = checked(splits, max_unreadable=0.1)
    assert found.findings == expected.findings
    assert len(found.findings) == 3


def test_the_audit_can_be_stored_and_is_cut_short_there() -> None:
    found = checked(with_items("train", dict.fromkeys(range(1, 30), TRAIN[0])))
    told = json.loads(json.dumps(found.to_json()))
    assert told["checked"] == 60
    assert told["usable"]["train"] == 36
    assert {finding["kind"] for finding in told["findings"]} == {"exact-duplicates", "conflicting-labels"}
    copies = next(finding for finding in told["findings"] if finding["kind"] == "exact-duplicates")
    assert copies["count"] == len(copies["rows"]) == 29
    assert "and 24 more" in copies["message"]


def test_a_prompt_shows_the_gravest_findings_in_a_few_lines() -> None:
    splits = with_items("train", {5: b"junk", 7: corpus.encoded(photo(7))[:-40], 10: TRAIN[0]})
    found = checked(splits, max_unreadable=0)
    first, *lines = repr(found).splitlines()
    assert first == "Audit(60 rows checked, 1 error, 1 warning, 1 info)"
    assert lines[0].startswith("  error: train: 2 of 36 cannot be read")
    assert max(map(len, lines)) <= 122
    assert len(lines) == len(found.findings)
    assert found._repr_html_().count("<tr>") == 1 + len(found.findings)
    many = repr(replace(found, findings=found.findings * 4)).splitlines()
    assert (len(many), many[-1]) == (7, f"  and {4 * len(found.findings) - 5} more")
    assert repr(splits) == "Splits('', image rows: 36 train, 12 val, 12 test; 3 classes)"
    assert repr(splits.train) == "Rows(36)"
    assert "train/7.png" not in repr(replace(found.findings[0], message=""))


def test_names_with_braces_are_told_as_they_are() -> None:
    rows = replace(CLEAN.train, names=tuple(f"{{x}}{n}" for n in range(36)))
    splits = replace(with_items("train", {2: corpus.oriented(6)}))
    splits = replace(splits, train=replace(rows, items=splits.train.items))
    (finding,) = checked(splits).findings
    assert "{x}2" in finding.message


@pytest.mark.real
def test_real_photographs_have_no_leak(shared_data: Any) -> None:
    splits = {}
    for split in ("train", "val"):
        paths = sorted((shared_data / "hymenoptera" / split).rglob("*.jpg"))
        labels = np.array([path.parent.name == "bees" for path in paths], np.int64)
        splits[split] = Rows([str(path) for path in paths], labels, tuple(path.name for path in paths))
    found = checked(Splits(splits["train"], splits["val"], ("ants", "bees"), "image"))
    assert not [finding for finding in found.findings if finding.severity == "error" or "duplicates" in finding.kind]


def test_a_pair_with_two_labels_is_told_once() -> None:
    found = checked(with_items("train", {4: TRAIN[3]})).findings
    (conflict,) = [each for each in found if each.kind == "conflicting-labels"]
    assert set(conflict.rows) == {3, 4}
    assert conflict.message.count(" = ") == 1


def test_a_copy_without_a_label_contradicts_nobody() -> None:
    copied = with_items("train", {4: TRAIN[3]})
    labels = copied.train.labels.copy()
    labels[4] = UNLABELLED
    found = checked(replace(copied, train=replace(copied.train, labels=labels)))
    assert "exact-duplicates" in {each.kind for each in found.findings}
    assert not [each for each in found.findings if each.kind.startswith("conflicting")]


def test_the_partner_of_a_conflict_and_the_split_without_a_class_are_named() -> None:
    train, val = CLEAN.train, CLEAN.val
    items = [*val.items[:4], train.items[0], *val.items[5:]]  # val row 4 is train row 0 under another label
    found = checked(replace(CLEAN, val=Rows(items, val.labels, val.names)))
    conflict = next(f for f in found.findings if f.kind == "conflicting-labels" and f.split == "val")
    assert "val val/4.png (bee) = train train/0.png (ant)" in conflict.message
    assert conflict.message.count(" = ") == 1
    leak = next(f for f in found.findings if f.kind == "exact-duplicates-across")
    assert (leak.severity, leak.split, leak.names) == ("warning", "train+val", ("val/4.png",))
    gone = checked(with_labels("test", np.arange(12) % 2))
    assert any(f.message.startswith("test has no rows of: cow") for f in gone.findings)


def test_what_becomes_of_floats_is_told() -> None:
    floats = [np.asarray(photo(n), np.float32) / 255 for n in range(36)]
    found = checked(replace(CLEAN, train=Rows(floats, CLEAN.train.labels, CLEAN.train.names)))
    text = next(f.message for f in found.findings if f.kind == "odd-mode")
    assert "floats are taken as 0..1 where none is above 1" in text
    assert "alpha" not in text
    assert "31 more (a run's data.json names them)" in text


def test_where_unreadable_rows_stop_a_run_all_of_them_are_named() -> None:
    bad = [b"" if n < 58 else CLEAN.train.items[0] for n in range(120)]
    names = tuple(f"train/{n}.png" for n in range(120))
    rows = Rows(bad, np.arange(120) % 2, names)
    errors = checked(replace(CLEAN, train=rows), max_unreadable=0.1).errors
    stopped = next(each for each in errors if each.kind == "unreadable")
    assert stopped.message.count("train/") == 50
    assert stopped.message.endswith("8 more (data.max_unreadable=1 begins a run, whose data.json names them)")
    found = checked(replace(CLEAN, train=rows), max_unreadable=0.5)
    warned = next(each for each in found.findings if each.kind == "unreadable")
    assert warned.message.endswith("53 more (a run's data.json names them)")
