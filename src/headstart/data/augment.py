"""Augmentation of pictures: named presets or single settings, every draw from the sample's own generator.

Shapes: h, w of a canvas; H, W of the network's input; C channels. Order, as in torchvision's reference recipes:
random resized crop → flips → rotation and affine (one resampling) → RandAugment or TrivialAugment → jitter → erasing.

| preset         | crop_scale  | flip | rotation | jitter (brightness, contrast, saturation, hue) | other              |
|----------------|-------------|------|----------|------------------------------------------------|--------------------|
| none           |             |      |          |                                                |                    |
| flip           |             | 0.5  |          |                                                |                    |
| light          | (0.6, 1.0)  | 0.5  |          |                                                |                    |
| standard       | (0.35, 1.0) | 0.5  | 10       | (0.2, 0.2, 0.2, 0)                             |                    |
| strong         | (0.08, 1.0) | 0.5  | 15       | (0.4, 0.4, 0.4, 0.1)                           | erasing 0.25       |
| randaugment    | (0.08, 1.0) | 0.5  |          |                                                | RandAugment(2, 9)  |
| trivialaugment | (0.08, 1.0) | 0.5  |          |                                                | TrivialAugmentWide |
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from headstart.core.errors import ConfigError, Problem
from headstart.core.registry import suggest
from headstart.data.pictures import autoaugment
from headstart.data.pictures.pixels import RESAMPLING, as_pil, from_array, resize

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AugmentPolicy:
    """What may happen to a picture on its way into training. The defaults do nothing."""

    flip: Share = 0.0  # probability of a left-right flip
    vertical_flip: Share = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, uniform in ±
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue: ±
    affine: tuple[float, float, float] = (0.0, 0.0, 0.0)  # shift (share of the side), zoom (±), shear (degrees): ±
    crop_scale: tuple[float, float] | None = None  # share of the area that a random resized crop takes
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # its width / height, uniform in the logarithm
    erasing: Share = 0.0  # probability of painting one rectangle in the mean colour
    erasing_scale: tuple[float, float] = (0.02, 0.33)
    randaugment: tuple[int, float] | None = None  # operations a picture, magnitude 0..30
    trivialaugment: bool = False

    def __post_init__(self) -> None:
        ranges = {"crop_scale": self.crop_scale, "crop_ratio": self.crop_ratio, "erasing_scale": self.erasing_scale}
        for name, limits in ranges.items():
            if limits is not None and not 0 < limits[0] <= limits[1]:
                raise ValueError(f"{name} needs 0 < low <= high, not {limits}")
        if self.crop_scale is not None and self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale is a share of the area, at most 1, not {self.crop_scale}")
        if min(self.jitter) < 0 or max(self.jitter[:3]) > 1 or self.jitter[3] > 0.5:
            raise ValueError(f"jitter needs brightness, contrast, saturation in 0..1 and hue in 0..0.5: {self.jitter}")
        if min(self.affine) < 0 or max(self.affine[:2]) >= 1 or self.affine[2] >= 90:
            raise ValueError(f"affine needs shift and zoom in 0..1 and shear below 90 degrees, not {self.affine}")
        if self.randaugment and not (self.randaugment[0] >= 1 and 0 <= self.randaugment[1] <= 30):
            raise ValueError(f"randaugment needs (operations >= 1, magnitude 0..30), not {self.randaugment}")

    @property
    def is_random(self) -> bool:
        """Whether two views of a picture can differ."""
        return self != AugmentPolicy(crop_ratio=self.crop_ratio, erasing_scale=self.erasing_scale)


PRESETS: dict[str, AugmentPolicy] = {
    "none": AugmentPolicy(),
    "flip": AugmentPolicy(flip=0.5),
    "light": AugmentPolicy(flip=0.5, crop_scale=(0.6, 1.0)),
    "standard": AugmentPolicy(flip=0.5, crop_scale=(0.35, 1.0), rotation=10, jitter=(0.2, 0.2, 0.2, 0.0)),
    "strong": AugmentPolicy(flip=0.5, crop_scale=(0.08, 1.0), rotation=15, jitter=(0.4, 0.4, 0.4, 0.1), erasing=0.25),
    "randaugment": AugmentPolicy(flip=0.5, crop_scale=(0.08, 1.0), randaugment=(2, 9)),
    "trivialaugment": AugmentPolicy(flip=0.5, crop_scale=(0.08, 1.0), trivialaugment=True),
}
Augment = AugmentPolicy | Callable[[np.ndarray, np.random.Generator], Any]


def policy(value: Any, *, where: str = "augment") -> Augment | None:
    """What the user wrote as a policy: a preset's name, settings (with an optional ``preset`` to start from), a
    callable (canvas uint8 (h, w, C), rng) -> picture, a policy, or None.

    Raises:
        ConfigError: every mistake in the settings at once.
    """
    if value is None or isinstance(value, AugmentPolicy):
        return value
    if isinstance(value, str):
        if value not in PRESETS:
            unknown = f"unknown preset '{value}'{suggest(value, PRESETS)}"
            raise ConfigError(unknown, where=where, remedy=f"known: {', '.join(PRESETS)}")
        return PRESETS[value]
    if isinstance(value, Mapping):
        return _from_settings(dict(value), where)
    if callable(value):
        return value
    raise ConfigError(
        f"cannot be read as an augmentation: {value!r}", where=where, remedy=f"known: {', '.join(PRESETS)}"
    )


def _from_settings(settings: dict[str, Any], where: str) -> AugmentPolicy:
    base = policy(settings.pop("preset", "none"), where=f"{where}.preset")
    if not isinstance(base, AugmentPolicy):
        raise ConfigError("a preset's name is needed", where=f"{where}.preset", remedy=f"known: {', '.join(PRESETS)}")
    adapter = TypeAdapter(AugmentPolicy)
    defaults = adapter.dump_python(base)
    try:
        return adapter.validate_python({**defaults, **settings})
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            key = ".".join(str(part) for part in detail["loc"])
            unknown = detail["type"] == "unexpected_keyword_argument"
            what = f"unknown setting{suggest(key, defaults)}" if unknown else detail["msg"]
            problems.append(Problem(what, f"{where}.{key}" if key else where))
        raise ConfigError("the augmentation's settings", problems=problems) from error


def augmented(
    canvas: np.ndarray,
    spec: Any,
    how: Augment | None,
    rng: np.random.Generator,
    finish: Callable[[np.ndarray, Any], np.ndarray],
) -> np.ndarray:
    """One view of ``canvas`` (h, w, C) as the network sees it, uint8 (H, W, C).

    A user's callable may return any picture, of any size: it is then finished like every other.
    """
    if how is None or how == PRESETS["none"]:
        return finish(canvas, spec)
    if not isinstance(how, AugmentPolicy):
        return finish(from_array(np.asarray(how(canvas, rng)), spec.channels), spec)
    view = _random_resized_crop(canvas, spec, how, rng) if how.crop_scale else finish(canvas, spec)
    fill = tuple(round(255 * mean) for mean in spec.mean)
    if spec.channels in (1, 3):
        value = _change(as_pil(view), how, rng, fill)
    else:  # each band is changed alone, with the same draws
        bands = range(spec.channels)
        value = np.concatenate([_change(as_pil(view[:, :, [c]]), how, _twin(rng), (fill[c],)) for c in bands], axis=2)
    return _erase(value, how, rng, fill) if how.erasing else value


def _twin(rng: np.random.Generator) -> np.random.Generator:
    return np.random.Generator(copy.deepcopy(rng.bit_generator))


def _change(image: Image.Image, how: AugmentPolicy, rng: np.random.Generator, fill: tuple[int, ...]) -> np.ndarray:
    """Flips, geometry and colour of one picture; (H, W, C)."""
    if how.flip and rng.random() < how.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how.vertical_flip and rng.random() < how.vertical_flip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if how.rotation or any(how.affine):
        image = _affine(image, how, rng, fill)
    if how.randaugment:
        image = autoaugment.rand_augment(image, *how.randaugment, rng)
    if how.trivialaugment:
        image = autoaugment.trivial_augment_wide(image, rng)
    if any(how.jitter):
        image = _jitter(image, how.jitter, rng)
    value = np.array(image)
    return value if value.ndim == 3 else value[:, :, None]


def crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random resized crop, distributed as torchvision's RandomResizedCrop draws it."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    aspect = min(max(width / height, ratio[0]), ratio[1])  # the largest middle part of an allowed shape
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return (height - h) // 2, (width - w) // 2, h, w


def _random_resized_crop(canvas: np.ndarray, spec: Any, how: AugmentPolicy, rng: np.random.Generator) -> np.ndarray:
    assert how.crop_scale is not None
    top, left, height, width = crop_box(canvas.shape[0], canvas.shape[1], how.crop_scale, how.crop_ratio, rng)
    return resize(canvas[top : top + height, left : left + width], spec.size, spec.interpolation)


def _affine(image: Image.Image, how: AugmentPolicy, rng: np.random.Generator, fill: tuple[int, ...]) -> Image.Image:
    """Rotation, shift, zoom and shear about the middle, in one bilinear resampling; uncovered corners are ``fill``."""
    width, height = image.size
    shift, zoom, shear = how.affine
    angle = math.radians(rng.uniform(-how.rotation, how.rotation))
    dx, dy = rng.uniform(-shift, shift) * width, rng.uniform(-shift, shift) * height
    size, slant = 1 + rng.uniform(-zoom, zoom), math.tan(math.radians(rng.uniform(-shear, shear)))
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    back = np.linalg.inv(turned @ np.array([[1.0, slant], [0.0, 1.0]]) * size)  # Pillow asks: output -> input
    middle = np.array([width / 2, height / 2])
    offset = middle - back @ (middle + np.array([dx, dy]))
    data = (*back[0], offset[0], *back[1], offset[1])
    colour = fill if len(fill) > 1 else fill[0]
    return image.transform(image.size, Image.Transform.AFFINE, data, RESAMPLING["bilinear"], fillcolor=colour)


def _jitter(image: Image.Image, strength: tuple[float, float, float, float], rng: np.random.Generator) -> Image.Image:
    """torchvision's ColorJitter: brightness, contrast, saturation by a factor in 1 ± strength, hue by a shift, in
    random order."""
    brightness, contrast, saturation, hue = strength
    factors = [rng.uniform(1 - s, 1 + s) for s in (brightness, contrast, saturation)]
    shift = rng.uniform(-hue, hue)
    for step in rng.permutation(4):
        if step == 3 and hue:
            image = shifted_hue(image, shift)
        elif step < 3 and strength[step]:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[step]
            image = enhance(image).enhance(factors[step])
    return image


def shifted_hue(image: Image.Image, shift: float) -> Image.Image:
    """Hue turned by ``shift`` (±0.5 is half a turn), through Pillow's HSV; a grey picture stays."""
    if image.mode != "RGB":
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + round(shift * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _erase(value: np.ndarray, how: AugmentPolicy, rng: np.random.Generator, fill: tuple[int, ...]) -> np.ndarray:
    """torchvision's RandomErasing (ratio 0.3..3.3), painted in the mean colour: zero after normalisation."""
    if rng.random() >= how.erasing:
        return value
    height, width = value.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*how.erasing_scale)
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            value[top : top + h, left : left + w] = np.asarray(fill, np.uint8)
            break
    return value
