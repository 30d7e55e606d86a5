"""RandAugment and TrivialAugmentWide in Pillow, operation by operation equal to torchvision's on PIL pictures.

Sources: Cubuk et al. 2019, arXiv 1909.13719; Müller and Hutter 2021, arXiv 2103.10158; op tables and magnitudes as in
``torchvision.transforms.v2``. Rewritten because torch's global generator is shared by all threads, so no sample could
have draws of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

BINS = 31


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def apply(image: Image.Image, operation: str, magnitude: float) -> Image.Image:
    """One operation at one magnitude (shares for shears, pixels for translations, degrees for rotations, a change of
    the factor for colours, bits for Posterize, a threshold for Solarize)."""
    match operation:
        case "Identity":
            return image
        case "ShearX":  # about the upper left corner
            return _affine(image, (1, math.tan(math.atan(magnitude)), 0, 0, 1, 0))
        case "ShearY":
            return _affine(image, (1, 0, 0, math.tan(math.atan(magnitude)), 1, 0))
        case "TranslateX":
            return _affine(image, (1, 0, -int(magnitude), 0, 1, 0))
        case "TranslateY":
            return _affine(image, (1, 0, 0, 0, 1, -int(magnitude)))
        case "Rotate":
            return image.rotate(magnitude)
        case "Posterize":
            return ImageOps.posterize(image, int(magnitude))
        case "Solarize":
            return ImageOps.solarize(image, math.ceil(magnitude))
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
    return _ENHANCE[operation](image).enhance(1.0 + magnitude)


_ENHANCE: dict[str, Callable[[Image.Image], ImageEnhance._Enhance]] = {
    "Brightness": ImageEnhance.Brightness,
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Sharpness": ImageEnhance.Sharpness,
}
_NO_MAGNITUDE = {"Identity", "AutoContrast", "Equalize"}
_UNSIGNED = {"Posterize", "Solarize"}
OPERATIONS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color"),
    *("Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)


def magnitudes(operation: str, width: int, height: int, *, wide: bool) -> np.ndarray | None:
    """The 31 magnitudes of an operation; ``wide`` is TrivialAugmentWide's table, otherwise RandAugment's."""
    if operation in _NO_MAGNITUDE:
        return None
    if operation == "Posterize":
        return 8 - np.round(np.arange(BINS) / ((BINS - 1) / (6 if wide else 4)))
    if operation == "Solarize":
        return np.linspace(255.0, 0.0, BINS)
    top = {
        "ShearX": 0.99 if wide else 0.3,
        "ShearY": 0.99 if wide else 0.3,
        "TranslateX": 32.0 if wide else 150.0 / 331.0 * width,
        "TranslateY": 32.0 if wide else 150.0 / 331.0 * height,
        "Rotate": 135.0 if wide else 30.0,
    }.get(operation, 0.99 if wide else 0.9)
    return np.linspace(0.0, top, BINS)


def _draw(image: Image.Image, bin_: int | None, rng: np.random.Generator) -> Image.Image:
    """One random operation, at bin ``bin_`` of RandAugment's table, or at a random bin of the wide one."""
    operation = OPERATIONS[rng.integers(len(OPERATIONS))]
    table = magnitudes(operation, *image.size, wide=bin_ is None)
    chosen = int(rng.integers(BINS)) if bin_ is None else bin_
    negative = bool(rng.random() < 0.5)
    if table is None:
        return apply(image, operation, 0.0)
    magnitude = float(table[chosen])
    return apply(image, operation, -magnitude if negative and operation not in _UNSIGNED else magnitude)


def rand_augment(image: Image.Image, count: int, magnitude: float, rng: np.random.Generator) -> Image.Image:
    """``count`` random operations, each at the same magnitude 0..30."""
    for _ in range(count):
        image = _draw(image, round(magnitude), rng)
    return image


def trivial_augment_wide(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One random operation at a random magnitude."""
    return _draw(image, None, rng)
