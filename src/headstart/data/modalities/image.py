"""Pictures: decode, canvas (cacheable), finish (what the network sees), augment, collate, preview.

Shapes: B rows, H height, W width, C channels. uint8 throughout: the model normalises, with the mean and std of the
spec, so that training, the command line, a server and ONNX are given identical bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from headstart.core.errors import ConfigError
from headstart.core.plural import plural
from headstart.data import augment as augmentation
from headstart.data.modalities.base import insist_types
from headstart.data.pictures import decoding
from headstart.data.pictures.decoding import PictureFacts as Facts
from headstart.data.pictures.pixels import RESAMPLING, as_pil, resize
from headstart.data.splits import Rows

name = "image"
version = decoding.VERSION
NOUN = ("picture", "pictures")
EXTENT = "pixels"
DTYPE, RANK = "uint8", 3
PREVIEW = 192  # pixels of the longer side
MAX_ELONGATION = 4  # of a picture longer than 4:1 only the middle 4:1 is kept, so that no canvas grows without bound
SKETCH = (32, 32)  # a grey miniature


@dataclass(frozen=True)
class ImageSpec:
    """What a backbone wants to see."""

    modality: ClassVar[str] = "image"
    size: tuple[int, int] = (224, 224)  # (height, width)
    resize: int = 256  # shorter side before the crop ("pad": the longer side)
    crop: str = "center"  # or "squash" (shape not kept) or "pad" (nothing is cut off)
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # for inputs scaled to 0..1
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: int = 3

    def __post_init__(self) -> None:
        kinds = dict.fromkeys(("size", "mean", "std"), tuple) | dict.fromkeys(("crop", "interpolation"), str)
        insist_types(self, kinds | dict.fromkeys(("resize", "channels"), int))
        if len(self.size) != 2:
            raise ConfigError(f"size {self.size} of an image spec is not (height, width)")
        if self.crop not in ("center", "squash", "pad"):
            raise ConfigError(f"unknown crop '{self.crop}'", remedy="known: center, squash, pad")
        if self.interpolation not in RESAMPLING:
            raise ConfigError(f"unknown interpolation '{self.interpolation}'", remedy=f"known: {', '.join(RESAMPLING)}")
        if min(*self.size, self.resize, self.channels) < 1:
            raise ConfigError("size, resize and channels of an image spec must be positive")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ConfigError(f"mean and std need {plural(self.channels, 'number')} each, one a channel")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one row."""
        return (self.channels, *self.size)

    @property
    def kept_by(self) -> tuple[Any, ...]:
        """All that canvases depend on."""
        return (self.channels, self.resize, self.crop, self.interpolation, self.size if self.crop == "squash" else None)

    @property
    def described(self) -> str:
        """For people."""
        return f"{self.channels} x {self.size[0]} x {self.size[1]}, resized to {self.resize} ({self.crop})"

    def blank(self, rows: int) -> np.ndarray:
        """Black pictures, uint8 (rows, C, H, W)."""
        return np.zeros((rows, *self.input_shape), np.uint8)

    def noise(self, rows: int) -> np.ndarray:
        """The same soft random pictures each time, uint8 (rows, C, H, W)."""
        coarse = np.random.Generator(np.random.Philox(0)).integers(0, 256, (rows, self.channels, 8, 8), dtype=np.uint8)
        down, across = (np.arange(side) * 8 // side for side in self.size)
        return np.ascontiguousarray(coarse[:, :, down][:, :, :, across])

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ImageSpec:
        """The spec that ``to_json`` wrote."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
        return cls(**plain)


Spec = ImageSpec
policy, PRESETS = augmentation.policy, augmentation.PRESETS


def decode(item: Any, spec: ImageSpec) -> np.ndarray:
    """The picture upright, uint8 (H, W, C). Raises DecodeError with a reason code."""
    return decode_with_facts(item, spec)[0]


def decode_with_facts(item: Any, spec: ImageSpec) -> tuple[np.ndarray, Facts]:
    """The pixels, and what was seen while decoding them."""
    return decoding.decode(item, spec.channels, spec.resize)


def fingerprint(item: Any) -> str:
    """SHA-256 of the file's bytes, or of shape, type and pixels."""
    return decoding.fingerprint(item)


def extent(item: Any) -> float:
    """Pixels by the header of a file's bytes."""
    return decoding.pixels_of(item)


def canvas(value: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """The deterministic part that is worth keeping, uint8 (h, w, C): shrunk so that its shorter side is ``resize``.

    A picture that would have to be enlarged stays as it is (28x28 digits take 2 KB instead of 150 KB a row): ``finish``
    enlarges it. Of a picture longer than 4:1 the middle is kept.
    """
    value = _bounded(value)
    height, width = _target(value.shape, spec)
    if height * width >= value.shape[0] * value.shape[1]:
        return np.ascontiguousarray(value)
    return np.ascontiguousarray(resize(value, (height, width), spec.interpolation))


def finish(canvas: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """What the network sees without chance, uint8 (H, W, C): torchvision's Resize and CenterCrop, bit for bit."""
    target = _target(canvas.shape, spec)
    value = canvas if canvas.shape[:2] == target else resize(canvas, target, spec.interpolation)
    return _centre(value, spec)


def prepare(item: Any, spec: ImageSpec) -> np.ndarray:
    """One item from file to network input, uint8 (H, W, C)."""
    return finish(canvas(decode(item, spec), spec), spec)


def augment(
    canvas: np.ndarray,
    spec: ImageSpec,
    policy: augmentation.AugmentPolicy | Callable[..., Any] | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """What the network sees with chance, uint8 (H, W, C); every draw comes from ``rng``."""
    return augmentation.augmented(canvas, spec, policy, rng, finish)


def collate(values: Sequence[np.ndarray], spec: ImageSpec | None = None) -> np.ndarray:
    """B pictures (H, W, C) as one contiguous batch (B, C, H, W)."""
    batch = np.empty((len(values), values[0].shape[2], *values[0].shape[:2]), np.uint8)
    for row, value in enumerate(values):
        batch[row] = value.transpose(2, 0, 1)
    return batch


def plain(rows: Rows, channels: int) -> ImageSpec:
    """A spec to look at pictures with where no backbone is asked."""
    return ImageSpec(mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)


def suited(spec: ImageSpec, rows: Rows) -> ImageSpec:
    """The spec for these rows, before they are decoded: nothing needs to change."""
    return spec


def fitted(spec: ImageSpec, lengths: np.ndarray) -> tuple[ImageSpec, str]:
    """The spec itself: pictures of any size are brought to the same."""
    return spec, ""


def sketch(canvas: np.ndarray) -> np.ndarray:
    """The whole canvas squashed to a grey miniature, uint8 (32, 32)."""
    if canvas.shape[2] in (1, 3):
        grey = as_pil(canvas).convert("L")
    else:
        grey = Image.fromarray(canvas[:, :, :3].mean(axis=2).astype(np.uint8))
    return np.asarray(grey.resize(SKETCH, RESAMPLING["box"]))


def largest_canvas(spec: ImageSpec) -> int:
    """Bytes that no canvas of this spec exceeds."""
    return MAX_ELONGATION * spec.resize**2 * spec.channels


def texts(item: Any) -> tuple[str, ...]:
    """Nothing: an item is no text."""
    return ()


def preview(item: Any) -> tuple[str, bytes]:
    """The picture as people know it, small: ".jpg" and the bytes of that file.

    Of an array with more than four bands the first three are shown, of one with two the first.
    """
    value, _ = decoding.decode(decoding.visible(item), 3, PREVIEW)
    height, width = value.shape[:2]
    scale = min(1.0, PREVIEW / max(height, width))
    small = resize(value, (max(1, round(height * scale)), max(1, round(width * scale))), "bilinear")
    out = io.BytesIO()
    Image.fromarray(small).save(out, "JPEG", quality=85)
    return ".jpg", out.getvalue()


def shown(seen: np.ndarray, spec: ImageSpec) -> tuple[str, bytes]:
    """What the network sees of one row (C, H, W): ".png" and the bytes; of 2 or more than 3 bands the first."""
    out = io.BytesIO()
    Image.fromarray(seen.transpose(1, 2, 0) if len(seen) == 3 else seen[0]).save(out, "PNG")
    return ".png", out.getvalue()


def _bounded(value: np.ndarray) -> np.ndarray:
    height, width = value.shape[:2]
    if height > MAX_ELONGATION * width:
        start = (height - MAX_ELONGATION * width) // 2
        return value[start : start + MAX_ELONGATION * width]
    if width > MAX_ELONGATION * height:
        start = (width - MAX_ELONGATION * height) // 2
        return value[:, start : start + MAX_ELONGATION * height]
    return value


def _target(shape: Sequence[int], spec: ImageSpec) -> tuple[int, int]:
    """(height, width) that Resize gives a picture of this shape (rounded down, as torchvision does)."""
    height, width = shape[:2]
    if spec.crop == "squash":
        return spec.resize * spec.size[0] // min(spec.size), spec.resize * spec.size[1] // min(spec.size)
    if spec.crop == "pad":
        longer = max(height, width)
        return max(1, int(spec.resize * height / longer)), max(1, int(spec.resize * width / longer))
    if height <= width:
        return spec.resize, int(spec.resize * width / height)
    return int(spec.resize * height / width), spec.resize


def _centre(value: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """The middle (H, W); where the picture is smaller, "pad" fills with the mean colour and a crop with black."""
    height, width = value.shape[:2]
    wanted_height, wanted_width = spec.size
    if height < wanted_height or width < wanted_width:
        colour = [round(255 * mean) if spec.crop == "pad" else 0 for mean in spec.mean]
        above, left = max(0, wanted_height - height) // 2, max(0, wanted_width - width) // 2
        framed = np.empty((max(height, wanted_height), max(width, wanted_width), value.shape[2]), np.uint8)
        framed[:] = np.asarray(colour, np.uint8)
        framed[above : above + height, left : left + width] = value
        value, height, width = framed, framed.shape[0], framed.shape[1]
    top, left = round((height - wanted_height) / 2), round((width - wanted_width) / 2)
    return np.ascontiguousarray(value[top : top + wanted_height, left : left + wanted_width])
