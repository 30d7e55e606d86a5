"""Duplicates: planted copies are found, natural likeness is not, and groups are what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from headstart.data.checks import duplicates as module
from headstart.data.checks.duplicates import Duplicates, duplicate_groups, find, joined
from headstart.data.checks.near import image as near
from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import Rows
from headstart.data.store import Store

from . import corpus
from .test_audit import photo

SPEC = ImageSpec((64, 64), 72)
CHANGES = ("resize", "quality 50", "crop", "brightness", "re-encode")


def changed(picture: Image.Image, how: str, rng: np.random.Generator) -> bytes:
    width, height = picture.size
    if how == "resize":
        share = rng.uniform(0.5, 0.8)
        picture = picture.resize((round(width * share), round(height * share)), Image.Resampling.BICUBIC)
    elif how == "crop":  # 5 % of each side, from anywhere
        x, y = int(rng.integers(0, round(width * 0.05) + 1)), int(rng.integers(0, round(height * 0.05) + 1))
        picture = picture.crop((x, y, x + round(width * 0.95), y + round(height * 0.95)))
    elif how == "brightness":
        picture = ImageEnhance.Brightness(picture).enhance(float(rng.choice([0.8, 1.2])))
    elif how == "re-encode":
        return corpus.encoded(picture, "WEBP", quality=80)
    return corpus.encoded(picture, quality=50 if how == "quality 50" else 92)


def store_of(items: list[Any], spec: ImageSpec = SPEC) -> Store:
    return Store.build(Rows(items, np.zeros(len(items), np.int64), tuple(map(str, range(len(items))))), spec)


def test_planted_copies_among_a_thousand() -> None:
    """50 of 50 exact, at least 45 of 50 near, at most 1 % of the other rows falsely joined."""
    rng = np.random.default_rng(0)
    pictures = [photo(seed, (110, 84)) for seed in range(900)]
    items: list[Any] = [corpus.encoded(picture, quality=95) for picture in pictures]
    exact = [(row, 900 + row) for row in range(50)]
    near = [(100 + row, 950 + row) for row in range(50)]
    items += items[:50] + [changed(pictures[100 + row], CHANGES[row % 5], rng) for row in range(50)]
    groups = duplicate_groups(store_of(items))
    assert sum(groups[a] == groups[b] for a, b in exact) == 50
    assert sum(groups[a] == groups[b] for a, b in near) >= 45
    planted = {row for pair in exact + near for row in pair}
    counts = np.bincount(groups)
    false_alarms = [row for row in range(1000) if counts[groups[row]] > 1 and row not in planted]
    assert len(false_alarms) <= 9


@pytest.mark.slow
def test_alike_by_nature_is_not_a_copy() -> None:
    """Handwritten digits: thousands of pairs look alike, and the decoys make the search strict."""
    from sklearn.datasets import load_digits

    digits = (load_digits().images[:900] * 15.9).astype(np.uint8)
    large = [np.asarray(Image.fromarray(digit).resize((28, 28), Image.Resampling.BICUBIC)) for digit in digits]
    store = store_of(large)
    found = module.duplicates(store)
    assert found.score > near.SCORES[0]
    counts = np.bincount(found.groups)
    assert (counts[found.groups] > 1).mean() <= 0.01
    outlines = near._outlines(store.sketches)
    pairs = near._candidates(outlines, outlines, later_only=True)
    scores = near._scores(store.sketches, store.sketches, pairs, near.SCORES[0])
    assert (scores > near.SCORES[0]).sum() > 100  # the planted fault: without decoys these were copies


def test_alignment_finds_scale_and_shift_and_no_more() -> None:
    large = np.asarray(photo(5, (400, 400)).convert("L"))
    whole = Image.fromarray(large[40:360, 40:360]).resize((32, 32), Image.Resampling.BOX)
    for scale, dx, dy in ((1.0, 0, 0), (0.95, 6, -5), (1.08, -8, 8), (0.92, 0, 10)):
        side = round(320 * scale)
        x, y = 200 + dx - side // 2, 200 + dy - side // 2
        part = Image.fromarray(large[y : y + side, x : x + side]).resize((32, 32), Image.Resampling.BOX)
        a, b = (np.asarray(p, np.float32)[None] for p in (whole, part))
        assert near._aligned(a, b, 5)[0] > 0.94
        assert near._aligned(a, b * 0.5 + 30, 5)[0] > 0.94  # brightness and contrast do not matter
    others = np.stack([np.asarray(photo(n, (32, 32)).convert("L"), np.float32) for n in range(40)])
    assert near._aligned(others[:20], others[20:], 5).max() < 0.9


def test_blocks_give_the_pairs_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    sketches = rng.integers(0, 256, (50, 32, 32), dtype=np.uint8)
    sketches[20:40] = (sketches[:20] * 0.5 + sketches[20:40] * 0.2).astype(np.uint8)
    outlines = near._outlines(sketches)
    assert np.allclose((outlines**2).sum(axis=1), 1)
    cosines = outlines @ outlines.T
    expected = {(a, b) for a in range(50) for b in range(a + 1, 50) if cosines[a, b] > near.OUTLINE_COSINES[0]}
    assert len(expected) >= 15
    for block in (7, 16, 1000):
        monkeypatch.setattr(near, "BLOCK", block)
        assert {tuple(pair) for pair in near._candidates(outlines, outlines, later_only=True).tolist()} == expected
    monkeypatch.setattr(near, "CANDIDATES", 1)
    best = near._candidates(outlines, outlines, later_only=True)
    for a in {a for a, _ in expected}:
        mates = [b for x, b in expected if x == a]
        assert [b for x, b in best.tolist() if x == a] == [max(mates, key=lambda b: cosines[a, b])]


def test_a_crowd_of_alike_pictures_stays_affordable(monkeypatch: pytest.MonkeyPatch) -> None:
    same = np.tile(np.asarray(photo(1, (32, 32)).convert("L")), (400, 1, 1)).astype(np.int16)
    crowd = (same + np.random.default_rng(0).integers(-9, 10, same.shape)).clip(0, 255).astype(np.uint8)
    asked = []
    real = near._scores
    monkeypatch.setattr(near, "_scores", lambda a, b, p, s: asked.append(len(p)) or real(a, b, p, s))
    found = find([str(n) for n in range(400)], crowd)
    assert max(asked) <= 400 * near.CANDIDATES
    assert len(set(found.groups.tolist())) == 1  # nearly the same 400 times: one group


def test_flat_pictures_are_not_near_anything() -> None:
    flat = np.stack([np.full((32, 32), level, np.uint8) for level in (0, 40, 255)])
    assert find(["a", "b", "c"], flat).near == ()
    assert len(set(find(["a", "a", "b"], flat).groups.tolist())) == 2
    assert find([], np.zeros((0, 32, 32), np.uint8)).groups.shape == (0,)
    assert find(["", ""], np.zeros((2, 32, 32), np.uint8)).groups.tolist() == [0, 1]  # unreadable rows are no copies


def test_too_many_rows_are_searched_for_exact_copies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "LIMIT", 2)
    sketches = np.stack([np.asarray(photo(1, (32, 32)).convert("L"))] * 4)
    found = find(["a", "b", "c", "a"], sketches)
    assert not found.searched_near
    assert found.near == ()
    assert found.groups[0] == found.groups[3] != found.groups[1]


def test_joining_is_transitive() -> None:
    rng = np.random.default_rng(3)
    links = [tuple(pair) for pair in rng.integers(0, 60, (40, 2)).tolist()]
    groups = joined(60, links)
    reach = np.eye(60, dtype=bool)
    for a, b in links:
        reach[a, b] = reach[b, a] = True
    for _ in range(6):
        reach = reach @ reach
    assert np.array_equal(groups[:, None] == groups, reach)
    assert set(groups.tolist()) == set(range(groups.max() + 1))


def test_taking_rows_renumbers_everything() -> None:
    whole = Duplicates(((0, 2, 5), (1, 4)), ((0, 3, 0.95), (1, 6, 0.96)), np.array([0, 1, 0, 0, 1, 0, 1]), 0.94, True)
    part = whole.take([5, 3, 2, 4])
    assert part.exact == ((0, 2),)
    assert part.near == ((0, 1, 0.95),)  # row 0 is gone: row 2 or 5, which are the same file, stands in for it
    assert part.groups.tolist() == [0, 0, 0, 1]
    same = whole.take(range(7))
    assert (same.exact, same.near, same.groups.tolist()) == (whole.exact, whole.near, whole.groups.tolist())


@pytest.mark.real
def test_real_photographs_and_their_copies(shared_data: Any) -> None:
    paths = sorted((shared_data / "hymenoptera").rglob("*.jpg"))
    assert len(paths) >= 390
    rng = np.random.default_rng(0)
    items: list[Any] = [str(path) for path in paths]
    planted = rng.choice(len(paths), 50, replace=False)
    items += [changed(Image.open(paths[row]).convert("RGB"), CHANGES[n % 5], rng) for n, row in enumerate(planted)]
    groups = duplicate_groups(store_of(items, ImageSpec()))
    assert sum(groups[row] == groups[len(paths) + n] for n, row in enumerate(planted)) >= 48
    counts = np.bincount(groups[: len(paths)])
    assert (counts[groups[: len(paths)]] > 1).mean() <= 0.01
