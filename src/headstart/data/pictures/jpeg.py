"""JPEG: its header read here (Pillow's parser warns on stderr about odd EXIF), its pixels by libjpeg-turbo.

Shapes: H height, W width, C channels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg

from headstart.core.plural import plural
from headstart.data.modalities.base import DecodeError
from headstart.data.pictures import exif

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG, DAC
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
MAX_MARKERS = 10_000  # before the first scan; a file of nothing but markers is not worth more time
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
# libjpeg's warnings after which the pixels are still whole; any other one means that data is missing or damaged.
_HARMLESS = ("before marker 0xd9", "Invalid SOS parameters", "Unknown Adobe color transform", "unknown JFIF revision")


@dataclass(frozen=True)
class Header:
    """What stands before the pixels."""

    width: int
    height: int
    mode: str  # "L", "RGB" or "CMYK"
    orientation: int


def header(data: bytes) -> Header:
    """Read the markers up to the first scan.

    Raises:
        DecodeError: truncated before its size is told, corrupt, or unsupported-mode (12 bits, two bands).
    """
    place, size, found, xmp = 2, None, 0, b""
    for _ in range(MAX_MARKERS):
        place = data.find(b"\xff", place)
        if place < 0 or place + 4 > len(data):
            break
        marker = data[place + 1]
        if marker in (0xFF, 0x00):  # fill bytes, or something foreign between two segments
            place += 1
            continue
        if marker in (_SCAN, _END):
            break
        if marker in _ALONE:
            place += 2
            continue
        body = data[place + 4 : place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")]
        if marker in _FRAMES and len(body) >= 6:
            size = size or struct.unpack_from(">BHHB", body)
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            found = found or exif.in_block(body)
        elif marker == _APP1 and body.startswith(_XMP):
            xmp = xmp or body
        place += 4 + len(body)
    else:
        raise DecodeError("corrupt", f"is damaged: a JPEG file of more than {MAX_MARKERS} markers")
    if size is None:
        raise DecodeError("truncated", "ends too early: a JPEG file that was cut off before its size is told")
    bits, height, width, bands = size
    if bits != 8 or bands not in _MODES:
        raise DecodeError(
            "unsupported-mode", f"has pixels of a kind that is not read here ({plural(bands, 'band')}, {bits} bit)"
        )
    if not width or not height:
        raise DecodeError("corrupt", "is damaged: a JPEG file without width or height")
    return Header(width, height, _MODES[bands], found or exif.in_xmp(xmp) or 1)


def scale_for(width: int, height: int, shorter_side: int | None) -> int:
    """1, 2, 4 or 8: by what a JPEG is shrunk while it is decoded, such that twice ``shorter_side`` remains."""
    scale = 1
    while shorter_side and scale < 8 and min(width, height) // (scale * 2) >= 2 * shorter_side:
        scale *= 2
    return scale


def pixels(data: bytes, head: Header, grey: bool, shorter_side: int | None) -> np.ndarray:
    """uint8 (H, W, 3), or (H, W, 1) if ``grey``; at full size bit-equal to Pillow's.

    Raises:
        ValueError: with libjpeg's message, when data is missing or damaged.
    """
    scale = scale_for(head.width, head.height, shorter_side)
    limits = {"min_height": -(-head.height // scale), "min_width": -(-head.width // scale)} if scale > 1 else {}
    colours = "GRAY" if grey else "RGB"
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colours, **limits))
    except ValueError as error:
        if not any(text in str(error) for text in _HARMLESS):
            raise
        return np.asarray(simplejpeg.decode_jpeg(data, colours, strict=False, **limits))
