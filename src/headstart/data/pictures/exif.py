"""The EXIF orientation, read without Pillow's parser, which warns on stderr about every oddity."""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image

_ORIENTATION = 274
_SHORT, _LONG = 3, 4
_XMP = re.compile(r'tiff:Orientation(?:="|>)([1-8])')


def orientation(image: Image.Image) -> int:
    """1 to 8, from EXIF or else from XMP; 1 where there is none, or only garbage."""
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    tag = _valid(getattr(image, "tag_v2", {}).get(_ORIENTATION))
    return tag or in_block(_block(image.info)) or in_xmp(xmp) or 1


def in_block(block: bytes) -> int:
    """The orientation in an EXIF block, which is a small TIFF (b"Exif" may stand before it); 0 where there is none."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return 0
    place = struct.unpack_from(order + "I", block, 4)[0]
    if place + 2 > len(block):
        return 0
    count = struct.unpack_from(order + "H", block, place)[0]
    for entry in range(place + 2, min(place + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", block, entry)
        if tag == _ORIENTATION and number == 1 and kind in (_SHORT, _LONG):
            return _valid(struct.unpack_from(order + ("H" if kind == _SHORT else "I"), block, entry + 8)[0])
    return 0


def in_xmp(xmp: bytes | str) -> int:
    """The orientation in an XMP packet; 0 where there is none."""
    match = _XMP.search(xmp if isinstance(xmp, str) else xmp.decode("utf-8", "replace"))
    return int(match[1]) if match else 0


def _block(info: dict[Any, Any]) -> bytes:
    block = info.get("exif")
    if isinstance(block, bytes):
        return block
    lines = str(info.get("Raw profile type exif", "")).split("\n")[3:]  # as ImageMagick writes it into a PNG
    try:
        return bytes.fromhex("".join(lines))
    except ValueError:
        return b""


def _valid(value: Any) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 0
