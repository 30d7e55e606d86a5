"""Augmentation: settings with named mistakes, torchvision's operations and distributions, nothing that does nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from headstart.core.errors import ConfigError
from headstart.core.keyed import generator
from headstart.data import augment
from headstart.data.augment import PRESETS, AugmentPolicy, crop_box, policy
from headstart.data.modalities import image
from headstart.data.modalities.image import ImageSpec
from headstart.data.pictures import autoaugment

from . import corpus

SPEC = ImageSpec((40, 40), 44)
CANVAS = image.canvas(np.asarray(corpus.picture(size=(90, 60))), SPEC)
PLAIN = image.finish(CANVAS, SPEC)


def views(how: Any, count: int = 60, canvas: np.ndarray = CANVAS, spec: ImageSpec = SPEC) -> list[np.ndarray]:
    return [image.augment(canvas, spec, how, generator(row)) for row in range(count)]


def test_policy_reads_names_settings_callables_and_none() -> None:
    assert policy(None) is None
    assert policy("flip") == AugmentPolicy(flip=0.5)
    assert policy({"flip": 0.5}) == PRESETS["flip"]
    assert policy({"preset": "standard", "erasing": 0.1}) == policy(
        {"flip": 0.5, "crop_scale": [0.35, 1], "rotation": 10, "jitter": [0.2, 0.2, 0.2, 0], "erasing": 0.1}
    )
    assert policy(PRESETS["light"]) is PRESETS["light"]
    assert policy(test_policy_reads_names_settings_callables_and_none) is not None
    assert not PRESETS["none"].is_random
    assert all(how.is_random for name, how in PRESETS.items() if name != "none")


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        policy({"flop": 0.5, "erasing": 2, "rotation": "much"}, where="plan[1].augment")
    told = str(caught.value)
    assert "plan[1].augment.flop: unknown setting, did you mean 'flip'?" in told
    assert "plan[1].augment.erasing" in told
    assert "plan[1].augment.rotation" in told
    for wrong in ("standart", 3, {"preset": 3}, {"preset": "nothing"}):
        with pytest.raises(ConfigError):
            policy(wrong)
    ranges: list[dict[str, Any]] = [
        {"crop_scale": (0.5, 1.5)}, {"crop_scale": (0.9, 0.1)}, {"crop_ratio": (0, 1)}, {"jitter": (0.1, 0, 0, 0.7)},
        {"jitter": (-0.1, 0, 0, 0)}, {"affine": (1.0, 0, 0)}, {"randaugment": (0, 9)}, {"randaugment": (2, 31)},
        {"erasing_scale": (0, 0.1)},
    ]  # fmt: skip
    for wrong_range in ranges:
        with pytest.raises(ConfigError):
            policy(wrong_range)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_change_pictures_and_keep_their_shape(name: str) -> None:
    found = views(PRESETS[name], 20)
    assert all(view.shape == (40, 40, 3) and view.dtype == np.uint8 for view in found)
    different = len({view.tobytes() for view in found})
    assert different == {"none": 1, "flip": 2}.get(name, different)
    assert different >= {"none": 1, "flip": 2}.get(name, 15)
    for view in found:  # still the same picture in the mean
        assert abs(float(view.mean()) - float(PLAIN.mean())) < 110


@pytest.mark.parametrize(
    "setting",
    [
        {"flip": 1}, {"vertical_flip": 1}, {"rotation": 30}, {"jitter": (0.5, 0, 0, 0)}, {"jitter": (0, 0.5, 0, 0)},
        {"jitter": (0, 0, 0.5, 0)}, {"jitter": (0, 0, 0, 0.5)}, {"affine": (0.3, 0, 0)}, {"affine": (0, 0.3, 0)},
        {"affine": (0, 0, 30)}, {"crop_scale": (0.1, 0.5)}, {"erasing": 1}, {"randaugment": (2, 20)},
        {"trivialaugment": True},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_does_something(setting: dict[str, Any]) -> None:
    how = policy(setting)
    changed = np.mean([(view != PLAIN).any() for view in views(how, 30)])
    assert changed > 0.6
    again = views(how, 5)
    assert all(np.array_equal(a, b) for a, b in zip(again, views(how, 5), strict=True))
    assert CANVAS.tobytes() == image.canvas(np.asarray(corpus.picture(size=(90, 60))), SPEC).tobytes()  # unchanged


def test_flips_are_flips_at_their_rate() -> None:
    flipped = sum(np.array_equal(view, PLAIN[:, ::-1]) for view in views(policy({"flip": 0.3}), 400))
    assert 80 <= flipped <= 160
    assert np.array_equal(views(policy({"vertical_flip": 1}), 1)[0], PLAIN[::-1])


def test_the_crop_is_torchvisions_distribution() -> None:
    """Shares of area, ratios and places of 4,000 crops agree with RandomResizedCrop's, also for odd shapes."""
    import torch
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for height, width in ((60, 90), (200, 50)):
        ours = np.array([crop_box(height, width, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(4000)], float)
        blank = torch.zeros(1, height, width)
        theirs = np.array(
            [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], float
        )
        for column in range(4):
            low, high = np.sort(ours[:, column]), np.sort(theirs[:, column])
            assert np.abs(low - high).mean() < 0.02 * max(height, width), (height, width, column)
        assert (ours[:, 0] + ours[:, 2] <= height).all()
        assert (ours[:, 1] + ours[:, 3] <= width).all()


def test_the_crop_of_a_picture_is_torchvisions_resized_crop() -> None:
    from torchvision.transforms.v2 import functional

    how = AugmentPolicy(crop_scale=(0.2, 0.9))
    for row in range(10):
        top, left, height, width = crop_box(*CANVAS.shape[:2], (0.2, 0.9), (3 / 4, 4 / 3), generator(row))
        expected = functional.resized_crop(Image.fromarray(CANVAS), top, left, height, width, [40, 40])
        assert np.array_equal(image.augment(CANVAS, SPEC, how, generator(row)), np.asarray(expected))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("wide", [True, False])
def test_every_operation_equals_torchvision(mode: str, wide: bool) -> None:
    """RandAugment's and TrivialAugmentWide's tables and their 14 operations, at every magnitude, bit for bit."""
    from torchvision.transforms import InterpolationMode, v2

    transform: Any = v2.TrivialAugmentWide() if wide else v2.RandAugment()
    table = transform._AUGMENTATION_SPACE
    assert set(table) == set(autoaugment.OPERATIONS)
    picture = corpus.picture(mode, (50, 37))
    for operation, (magnitudes, signed) in table.items():
        unit = 255.0 if operation == "Solarize" else 1.0  # torchvision multiplies its threshold when it is applied
        theirs = magnitudes(autoaugment.BINS, 37, 50)
        ours = autoaugment.magnitudes(operation, 50, 37, wide=wide)
        assert (ours is None) == (theirs is None)
        assert signed == (ours is not None and operation not in autoaugment._UNSIGNED)
        if ours is not None:
            assert np.allclose(ours, unit * theirs.numpy())
        for magnitude in [0.0] if ours is None else [float(m) for m in theirs[::5]] * 2:
            for sign in (1, -1) if signed else (1,):
                expected = transform._apply_image_or_video_transform(
                    picture, operation, sign * magnitude, InterpolationMode.NEAREST, transform._fill
                )
                got = autoaugment.apply(picture, operation, unit * sign * magnitude)
                assert np.array_equal(np.asarray(got), np.asarray(expected)), (operation, sign * magnitude)


def test_operations_and_magnitudes_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, float]] = []
    monkeypatch.setattr(autoaugment, "apply", lambda i, o, m: drawn.append((o, m)) or i)
    picture, rng = corpus.picture(), np.random.default_rng(0)
    for _ in range(2800):
        autoaugment.trivial_augment_wide(picture, rng)
    counts = [sum(name == operation for name, _ in drawn) for operation in autoaugment.OPERATIONS]
    assert min(counts) > 140
    assert max(counts) < 260
    turns = np.array([magnitude for name, magnitude in drawn if name == "Rotate"])
    assert 0.35 < (turns > 0).mean() < 0.65
    assert abs(turns).max() == 135
    drawn.clear()
    autoaugment.rand_augment(picture, 3, 9, rng)
    assert len(drawn) == 3
    drawn.clear()
    for _ in range(300):
        autoaugment.rand_augment(picture, 1, 10, rng)
    assert {abs(round(m, 6)) for name, m in drawn if name == "Rotate"} == {10.0}


def test_jitter_is_pillows_enhancers_and_hue_is_torchvisions() -> None:
    from torchvision.transforms import functional

    picture = Image.fromarray(PLAIN)
    for shift in (-0.5, -0.2, 0.1, 0.37):
        ours = np.asarray(augment.shifted_hue(picture, shift)).astype(int)
        assert np.abs(ours - np.asarray(functional.adjust_hue(picture, shift))).max() <= 8  # a step of PIL's hue
    for row in range(6):
        view = image.augment(CANVAS, SPEC, AugmentPolicy(jitter=(0.5, 0, 0, 0)), generator(row))
        factor = generator(row).uniform(0.5, 1.5)
        assert np.array_equal(view, np.asarray(ImageEnhance.Brightness(picture).enhance(factor)))
    grey = Image.fromarray(PLAIN[:, :, 0])
    assert augment.shifted_hue(grey, 0.3) is grey


def test_rotation_turns_about_the_middle_and_fills_with_the_mean_colour() -> None:
    how = AugmentPolicy(rotation=30)
    seen = []
    for row in range(30):
        view = image.augment(CANVAS, SPEC, how, generator(row))
        angle = generator(row).uniform(-30, 30)
        mean = tuple(round(255 * m) for m in SPEC.mean)
        expected = Image.fromarray(PLAIN).rotate(-angle, Image.Resampling.BILINEAR, fillcolor=mean)
        difference = np.abs(view.astype(int) - np.asarray(expected)).mean()
        seen.append(difference)
        if abs(angle) > 20:
            assert view[0, 0].tolist() == list(mean)
    assert max(seen) < 1.0


def test_shift_zoom_and_shear_go_where_they_should() -> None:
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[18:23, 18:23] = 255
    spec = ImageSpec((41, 41), 41, mean=(0, 0, 0))
    for row in range(20):
        rng = generator(row)
        rng.uniform(0, 0)  # the angle
        dx, dy = rng.uniform(-0.3, 0.3) * 41, rng.uniform(-0.3, 0.3) * 41
        view = image.augment(dot, spec, AugmentPolicy(affine=(0.3, 0, 0)), generator(row))[:, :, 0].astype(float)
        y, x = (np.average(np.arange(41), weights=view.sum(axis=axis)) for axis in (1, 0))
        assert abs(x - 20 - dx) < 0.6
        assert abs(y - 20 - dy) < 0.6
    areas = [view.astype(float).sum() / dot.sum() for view in views(AugmentPolicy(affine=(0, 0.5, 0)), 60, dot, spec)]
    assert min(areas) < 0.45
    assert max(areas) > 1.8


def test_erasing_paints_one_rectangle_of_the_promised_size() -> None:
    shares = []
    for view in views(AugmentPolicy(erasing=1.0, erasing_scale=(0.1, 0.2)), 100):
        changed = (view == [round(255 * m) for m in SPEC.mean]).all(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        shares.append(changed.mean())
    assert min(shares) > 0.08
    assert max(shares) < 0.22
    untouched = sum(np.array_equal(view, PLAIN) for view in views(AugmentPolicy(erasing=0.25), 200))
    assert 125 < untouched < 175


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_other_channel_counts_keep_their_bands_together(channels: int) -> None:
    spec = ImageSpec((40, 40), 44, mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)
    band = corpus.picture("L", (90, 60))
    canvas = image.canvas(np.repeat(np.asarray(band)[:, :, None], channels, axis=2), spec)
    for name in PRESETS:
        for view in views(PRESETS[name], 6, canvas, spec):
            assert view.shape == (40, 40, channels)
            assert (view == view[:, :, :1]).all(), name  # one draw for all bands


def test_an_own_callable_may_return_any_picture() -> None:
    for result in (Image.new("RGB", (99, 77)), np.zeros((40, 40, 3)), np.zeros((10, 12), np.uint8)):
        assert image.augment(CANVAS, SPEC, lambda _c, _r, result=result: result, generator(1)).shape == (40, 40, 3)


def test_small_canvases_and_grey_ones_work() -> None:
    spec = ImageSpec((32, 32), 36, mean=(0.5,), std=(0.5,), channels=1)
    digit = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    for name in PRESETS:
        assert all(view.shape == (32, 32, 1) for view in views(PRESETS[name], 5, digit, spec))
    one = np.zeros((1, 1, 3), np.uint8)
    assert all(view.shape == (40, 40, 3) for view in views(PRESETS["strong"], 5, one))
