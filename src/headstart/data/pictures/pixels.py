"""Pixels from one form to another: pixel modes, channel counts, orientation, sizes. uint8 arrays (H, W, C) throughout.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from headstart.core.plural import plural
from headstart.data.modalities.base import DecodeError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def from_pil(image: Image.Image, channels: int) -> np.ndarray:
    """Any pixel mode as (H, W, channels): alpha over white, 16 bit divided by 257, float 0..1 or 0..255.

    Raises:
        DecodeError: wrong-channels (a file gives 1, 3 or 4) or unsupported-mode (LAB and the like).
    """
    if channels not in _MODES:
        raise DecodeError("wrong-channels", f"gives 1, 3 or 4 channels, not {channels} (arrays can hold any number)")
    if image.mode.startswith("I") or image.mode == "F":
        return from_array(np.asarray(image), channels)
    wanted = _MODES[channels]
    try:
        if image.has_transparency_data and wanted != "RGBA":
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        elif image.mode in ("CMYK", "P", "PA", "1") and wanted == "L":
            image = image.convert("RGB")
        value = np.asarray(image if image.mode == wanted else image.convert(wanted))
    except ValueError as error:
        raise DecodeError("unsupported-mode", f"has pixels of a kind that is not read here ({image.mode})") from error
    return value if value.ndim == 3 else value[:, :, None]


def from_array(value: np.ndarray, channels: int) -> np.ndarray:
    """An array (H, W[, C]) of any number type as uint8 (H, W, channels).

    uint8 stays; bool becomes 0 and 255; integers above 255 are taken as 16 bit and divided by 257; floats are taken
    as 0..1 when none is above 1, otherwise as 0..255. Not-a-number becomes 0.
    """
    value = _as_uint8(value)
    value = value if value.ndim == 3 else value[:, :, None]
    found = value.shape[2]
    if found == channels:
        return value
    if found not in (1, 2, 3, 4) or channels not in _MODES:
        raise DecodeError(
            "wrong-channels", f"has {plural(found, 'channel')} where {plural(channels, 'is', 'are')} wanted"
        )
    if found == 1:
        return from_pil(Image.fromarray(value[:, :, 0]), channels)
    return from_pil(Image.fromarray(value, mode="LA") if found == 2 else Image.fromarray(value), channels)


def _as_uint8(value: np.ndarray) -> np.ndarray:
    if value.dtype == np.uint8:
        return value
    if value.dtype == np.bool_:
        return value.astype(np.uint8) * np.uint8(255)
    if value.dtype.kind in "ui":
        if value.dtype != np.uint16 and value.max() <= 255:
            return value.clip(0, 255).astype(np.uint8)
        return ((value.clip(0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)
    value = np.nan_to_num(value.astype(np.float32), nan=0.0, posinf=255.0, neginf=0.0)
    scale = 255.0 if value.max() <= 1.0 else 1.0
    return (value * scale).clip(0, 255).round().astype(np.uint8)


def oriented(value: np.ndarray, orientation: int) -> np.ndarray:
    """The picture upright, contiguous: what ``ImageOps.exif_transpose`` does for EXIF orientations 1 to 8."""
    if orientation in (5, 6, 7, 8):
        value = value.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        value = value[:, ::-1]
    if orientation in (3, 4, 7, 8):
        value = value[::-1]
    return np.ascontiguousarray(value)


def as_pil(value: np.ndarray) -> Image.Image:
    """(H, W, 1 or 3) as a Pillow picture."""
    return Image.fromarray(value[:, :, 0] if value.shape[2] == 1 else value)


def resize(value: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """(H, W, C) to (h, w, C) by Pillow's antialiased resize, as torchvision's Resize does it on PIL pictures."""
    method = RESAMPLING[interpolation]
    width_height = (size[1], size[0])
    if value.shape[2] in (1, 3):
        return np.asarray(as_pil(value).resize(width_height, method)).reshape(*size, -1)
    bands = [Image.fromarray(np.ascontiguousarray(value[:, :, c])) for c in range(value.shape[2])]
    return np.stack([np.asarray(band.resize(width_height, method)) for band in bands], axis=2)
