"""The one decoder of pictures: a file, bytes, an array or a PIL picture to uint8 pixels, the same bytes on every path.

Shapes: H height, W width, C channels. JPEG is read by simplejpeg (libjpeg-turbo, bit-equal to Pillow's and faster),
everything else by Pillow from an allow-list of formats; the size is read from the header before a pixel is decoded.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from typing import Any

import numpy as np
import PIL
import simplejpeg
from PIL import Image

from headstart.data.files import read_bytes
from headstart.data.modalities.base import DecodeError, Facts
from headstart.data.pixels import from_array, from_pil, oriented

# Raise the first number whenever the pixels that come out of any file change: cached canvases are then made anew.
VERSION = f"1 pillow {PIL.__version__} simplejpeg {simplejpeg.__version__}"
MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# A file's first bytes -> its format; names outside FORMATS are known kinds that are refused.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"II+\x00", "TIFF"),
    (0, b"MM\x00+", "TIFF"),
    *((0, b"P%d" % digit + space, "PPM") for digit in range(1, 7) for space in (b" ", b"\n", b"\r", b"\t")),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"%!PS", "EPS"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (4, b"jP  \r\n", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL \r\n", "JPEG XL"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"v/1\x01", "OpenEXR"),
)
# libjpeg's warnings after which the pixels are still whole; any other one means that data is missing or damaged.
_HARMLESS = ("before marker 0xd9", "Invalid SOS parameters", "Unknown Adobe color transform", "unknown JFIF revision")


def decode(item: Any, channels: int = 3, shorter_side: int | None = None) -> tuple[np.ndarray, Facts]:
    """The pixels of one item as uint8 (H, W, C), upright, and what was seen on the way.

    Args:
        item: a path, bytes, {"bytes", "path"} as ``datasets`` gives them, a PIL picture, an array (H, W[, C]),
            or a torch tensor (C, H, W).
        channels: 1 grey, 3 RGB (alpha over white), 4 RGBA; other counts are taken from arrays only.
        shorter_side: what the picture will be shrunk to. A JPEG whose shorter side is at least four times this is
            decoded at 1/2, 1/4 or 1/8 of its size, the smallest that leaves twice ``shorter_side``; so the pixels
            depend on the file and on this number alone.

    Raises:
        DecodeError: with a reason code (see ``files.read_bytes`` for those of the file itself): too-many-pixels,
            truncated, corrupt, not-an-image, unsupported-format, unsupported-mode, wrong-channels, wrong-type.
    """
    where = ""
    if isinstance(item, dict):
        where = str(item.get("path") or "")
        item = item["bytes"] if item.get("bytes") is not None else item.get("path")
    if isinstance(item, str | os.PathLike):
        where = os.fspath(item)
        item = read_bytes(item)
    try:
        if isinstance(item, bytes | bytearray | memoryview):
            return _decode_file(bytes(item), channels, shorter_side)
        return _decode_value(item, channels)
    except DecodeError as error:
        raise DecodeError(error.reason.code, error.reason.message, where=where) from error


def fingerprint(item: Any) -> str:
    """SHA-256 of the item's content: of the file's bytes, or of shape, dtype and pixels of what is no file."""
    if isinstance(item, dict):
        item = item["bytes"] if item.get("bytes") is not None else item.get("path")
    if isinstance(item, str | os.PathLike):
        item = read_bytes(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return hashlib.sha256(item).hexdigest()
    pixels = np.asarray(item)
    digest = hashlib.sha256(f"{getattr(item, 'mode', '')} {pixels.shape} {pixels.dtype.str}".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def kind_of(data: bytes) -> str:
    """The format that the first bytes announce, whatever the file's name says; "" when it is none we know."""
    for offset, mark, name in _SIGNATURES:
        if data.startswith(mark, offset) and (name != "WEBP" or data.startswith(b"RIFF")):
            return name
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "SVG" if head.startswith((b"<svg", b"<?xml")) and b"<svg" in head else ""


def _decode_file(data: bytes, channels: int, shorter_side: int | None) -> tuple[np.ndarray, Facts]:
    if not data:
        raise DecodeError("empty-file", "is empty (0 bytes)")
    kind = kind_of(data)
    if kind == "":
        raise DecodeError("not-an-image", "holds no picture (its first bytes are of no known picture format)")
    if kind not in FORMATS:
        raise DecodeError("unsupported-format", f"is of a format that is not read here ({kind})")
    _demand_size(*_announced_size(kind, data))
    try:
        image = _header(kind, data)
        _demand_size(*image.size)
        before = _orientation(image)
        stored_mode, kind = image.mode, image.format or kind
        if kind in ("JPEG", "MPO") and stored_mode in ("L", "RGB"):
            value, after = _decode_jpeg(data, image.size, stored_mode, channels, shorter_side), before
        else:
            image.load()
            after = _orientation(image)  # Pillow turns a TIFF itself while loading; a PNG may tell only now
            value = from_pil(image, channels)
        value = oriented(value, after)
        frames = _frames(image, kind)
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # a decoder met hostile or damaged bytes; which error it raises is up to chance
        raise _damage(kind, error) from error
    orientation = before if before != 1 else after
    height, width = (image.height, image.width) if after < 5 else (image.width, image.height)
    digest = hashlib.sha256(data).hexdigest()
    return value, Facts(kind, stored_mode, width, height, orientation, frames, len(data), digest)


def _header(kind: str, data: bytes) -> Image.Image:
    """Pillow's lazily opened picture, by the one plugin named (``Image.open`` would warn on stderr and try others)."""
    if kind not in Image.OPEN:
        Image.init()
    if kind not in Image.OPEN:
        raise DecodeError("unsupported-format", f"is of a format that this Pillow was built without ({kind})")
    factory, _ = Image.OPEN[kind]
    return factory(io.BytesIO(data), "")


def _announced_size(kind: str, data: bytes) -> tuple[int, int]:
    """(width, height) by the header for the formats whose plugin reserves memory on opening; (0, 0) for the others."""
    if kind == "WEBP" and len(data) >= 30:
        if data[12:16] == b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        if data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _demand_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        size = f"{width}x{height} is {width * height / 1e6:.0f} million pixels"
        raise DecodeError("too-many-pixels", f"is too large ({size}, the limit is {MAX_PIXELS / 1e6:.0f})")


def _decode_jpeg(data: bytes, size: tuple[int, int], mode: str, channels: int, shorter_side: int | None) -> np.ndarray:
    width, height = size
    scale = 1
    while shorter_side and scale < 8 and min(width, height) // (scale * 2) >= 2 * shorter_side:
        scale *= 2
    colours = "GRAY" if mode == "L" and channels == 1 else "RGB"
    limits = {"min_height": -(-height // scale), "min_width": -(-width // scale)} if scale > 1 else {}
    try:
        value = simplejpeg.decode_jpeg(data, colours, **limits)
    except ValueError as error:
        if not any(text in str(error) for text in _HARMLESS):
            raise
        value = simplejpeg.decode_jpeg(data, colours, strict=False, **limits)
    return value if value.shape[2] == channels else from_pil(Image.fromarray(value), channels)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or the EXIF block cannot be read."""
    try:
        found = image.getexif().get(274, 1)
    except Exception:  # garbage where EXIF should be: the pixels are not worse for it
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _frames(image: Image.Image, kind: str) -> int:
    """How many frames there are; 2 stands for "more than one" where counting would walk through the whole file."""
    try:
        if kind in ("GIF", "TIFF"):
            return 2 if getattr(image, "is_animated", False) else 1
        return int(getattr(image, "n_frames", 1))
    except Exception:  # the first frame is whole, a later one is not: only the first is used
        return 2


def _damage(kind: str, error: Exception) -> DecodeError:
    """Truncated when the decoder ran out of bytes, corrupt otherwise."""
    text = str(error).lower()
    short = ("truncat", "premature end", "not enough", "could not determine subsampling", "ran out", "end of file")
    if isinstance(error, EOFError) or any(word in text for word in short):
        return DecodeError("truncated", f"ends too early: a {kind} file that was cut off ({error})")
    return DecodeError("corrupt", f"is damaged: a {kind} file that cannot be decoded ({error})")


def _decode_value(item: Any, channels: int) -> tuple[np.ndarray, Facts]:
    """Arrays, tensors and PIL pictures."""
    if isinstance(item, Image.Image):
        _demand_size(*item.size)
        orientation = _orientation(item)
        value = oriented(from_pil(item, channels), orientation)
        mode, kind = item.mode, item.format or "PIL"
    else:
        item = item.detach().cpu().numpy().transpose(1, 2, 0) if _is_planar_tensor(item) else np.asarray(item)
        if item.ndim not in (2, 3) or item.dtype.kind not in "buif" or item.size == 0:
            told = f"shape {item.shape}, type {item.dtype}"
            raise DecodeError("wrong-type", f"is no picture: an array (H, W[, C]) of numbers is needed ({told})")
        _demand_size(item.shape[1], item.shape[0])
        value, orientation, mode, kind = from_array(item, channels), 1, str(item.dtype), "array"
    height, width = value.shape[:2]
    return value, Facts(kind, mode, width, height, orientation, 1, np.asarray(item).nbytes, fingerprint(item))


def _is_planar_tensor(item: Any) -> bool:
    return type(item).__module__.partition(".")[0] == "torch" and getattr(item, "ndim", 0) == 3
