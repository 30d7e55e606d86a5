"""What the image backbone is taught from: alike for the same seed, and never a digit or another target's class."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from pretraining.drawing import fractals, glyphs, paint, pictures, pool

DIGITS = "0123456789٠١٢٣۴५৬੭૮௯๐໑၂០᭕０①²½Ⅷ一"
SMALL = pool.Amount(3, 2)


@pytest.mark.parametrize("name", list(pool.DRAWERS))
def test_the_same_seed_draws_the_same_pictures(name: str) -> None:
    first, labels = pool.stacked(pool.examples(name, 0, SMALL))
    again, _ = pool.stacked(pool.examples(name, 0, SMALL))
    other, _ = pool.stacked(pool.examples(name, 1, SMALL))
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.uint8
    assert all(not np.array_equal(first[row], first[row + 1]) for row in range(5))
    assert all(picture.std() > 1 for picture in first), "an empty picture"


@pytest.mark.parametrize("name", list(pool.DRAWERS))
def test_a_picture_does_not_depend_on_how_many_are_drawn(name: str) -> None:
    few, _ = pool.stacked(pool.examples(name, 0, pool.Amount(2, 1)))
    many, _ = pool.stacked(pool.examples(name, 0, pool.Amount(2, 2)))
    assert np.array_equal(few, many[::2])


@pytest.mark.parametrize("ranges", [glyphs.TAUGHT, glyphs.HELD_OUT])
def test_no_glyph_is_a_number(ranges: tuple[tuple[int, int], ...]) -> None:
    wanted = glyphs.characters(ranges)
    assert len(wanted) > 50
    assert not [one for one in wanted if unicodedata.category(one).startswith("N") or one.isnumeric()]
    assert not set(wanted) & {*DIGITS, *"OoОоΟοIl|Зб∛∜"}


@pytest.mark.parametrize("digit", DIGITS)
def test_a_number_would_be_left_out(digit: str) -> None:
    assert glyphs.is_number(digit)
    assert not glyphs.characters([(ord(digit), ord(digit))])


def test_letters_that_are_held_out_are_not_taught() -> None:
    assert not set(glyphs.characters(glyphs.TAUGHT)) & set(glyphs.characters(glyphs.HELD_OUT))


@pytest.mark.parametrize(
    "name",
    [
        "animals/mammals/dogs/bobi_01.png",
        "animals/mammals/dog_04_drawn_with_strai_02.png",
        "animals/bugs/bee1_mimooh_01.png",
        "animals/bugs/formicona_architetto_fra_01.png",
        "animals/bugs/ant.png",
        "animals/mammals/elephant.png",
        "animals/cavallo_01.png",
        "people/head2.png",
        "buildings/homes/fancy.png",
        "recreation/music/electric_guitar.png",
        "recreation/games/cards/bordered/bordered_h_7.png",
        "shapes/arrows/tasto_5_architetto_franc_01.png",
        "signs_and_symbols/clocks/two.png",
        "town/houses/cartoon/red.png",
        "GIRAFFE FACE",
        "HONEYBEE",
        "KEYCAP TEN",
        "WOMAN",
    ],
)
def test_a_targets_class_is_left_out(name: str) -> None:
    assert pictures.is_forbidden(name)


@pytest.mark.parametrize(
    "name", ["animals/bugs/quattro_farfalle_01.png", "food/fruit/apple.png", "plants/trees/pine.png", "CAT FACE"]
)
def test_what_is_no_targets_class_is_kept(name: str) -> None:
    assert not pictures.is_forbidden(name)


def test_words_that_recur_become_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "AUTHORS", 2)
    names = [
        pictures.words_of(name) for name in ("food/red_apple_01.png", "food/green_apple.png", "plants/pine_x1.png")
    ]
    words, has = pictures.tags(names)
    assert words == ["apple", "food"]
    assert has.tolist() == [[True, True], [True, True], [False, False]]


def test_a_source_is_drawn_once_and_read_again(tmp_path: Path) -> None:
    drawn = pool.source("strokes", tmp_path, 0, SMALL)
    read = pool.source("strokes", tmp_path, 0, pool.Amount(99, 99))
    assert np.array_equal(drawn.pictures, read.pictures)
    assert (read.pictures.shape, read.classes) == ((6, 1, 64, 64), 3)


def test_a_fractal_is_a_contraction_and_fills_its_square() -> None:
    maps = fractals.system(np.random.default_rng(5))
    assert np.linalg.svd(maps[:, :, :2], compute_uv=False).max() < 1
    assert (fractals.draw(maps, np.random.default_rng(0)) > 0).mean() > 0.1


def test_warping_without_ranges_changes_nothing() -> None:
    still = paint.Warp(area=(1, 1), turn=0, stretch=0, shear=0, mirror=False)
    picture = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(paint.warp(picture, still, 32), picture, atol=1e-5, rtol=0)


def test_painting_follows_torchs_seed_and_stays_in_range() -> None:
    masks, scenery = torch.rand(8, 1, 32, 32), torch.rand(8, 3, 32, 32)
    seen = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        warped = paint.warp(masks, paint.WARPS["glyphs"], 32)
        seen.append(paint.spoil(paint.coarse(paint.light(paint.ink(warped, scenery, 0.5)), 0.5)))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert all(float(one.min()) >= 0 and float(one.max()) <= 1 for one in seen)


def test_ink_stands_out_from_what_it_is_written_on() -> None:
    torch.manual_seed(0)
    written = paint.ink(torch.ones(64, 1, 4, 4), torch.zeros(64, 3, 4, 4), plain=1.0)
    torch.manual_seed(0)
    blank = paint.ink(torch.zeros(64, 1, 4, 4), torch.zeros(64, 3, 4, 4), plain=1.0)
    assert float((written - blank).abs().mean((1, 2, 3)).min()) > 0.4
