"""The one decoder of pictures: a file, bytes, an array or a PIL picture to uint8 pixels, the same bytes on every path.

Shapes: H height, W width, C channels. JPEG is read by simplejpeg (libjpeg-turbo, bit-equal to Pillow's and faster),
everything else by Pillow from an allow-list of formats; the size is read from the header before a pixel is decoded.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
import simplejpeg
from PIL import Image

from headstart.data.files import read_bytes
from headstart.data.modalities.base import DecodeError, Facts
from headstart.data.pictures import jpeg
from headstart.data.pictures.exif import orientation as orientation_of
from headstart.data.pictures.pixels import from_array, from_pil, oriented

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with a file is in the error
# Raise the first number whenever the pixels that come out of any file change: cached canvases are then made anew.
VERSION = f"1 pillow {PIL.__version__} simplejpeg {simplejpeg.__version__}"
MAX_PIXELS = 100_000_000  # a picture of 9000x6000 passes; 300 MB as RGB, while it is decoded
MAX_CHUNKS = 100_000  # of a PNG; each costs time whatever its size
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFacts(Facts):
    """What was seen of one picture."""

    mode: str  # the pixel mode as stored: "RGB", "L", "CMYK", "I;16"…, or the dtype of an array
    width: int  # as shown, that is after the EXIF orientation
    height: int
    orientation: int  # EXIF 1-8; it has been applied
    frames: int  # 1; what moves counts 2 or more, and its first frame is taken


def decode(item: Any, channels: int = 3, shorter_side: int | None = None) -> tuple[np.ndarray, PictureFacts]:
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


def visible(item: Any) -> Any:
    """The item as it can be shown: of an array with more than four bands the first three, of one with two the first."""
    if isinstance(item, str | os.PathLike | bytes | bytearray | memoryview | dict | Image.Image):
        return item
    value = _as_array(item)
    bands = value.shape[2] if value.ndim == 3 else 1
    return value if bands in (1, 3, 4) else value[:, :, : 1 if bands == 2 else 3]


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


def pixels_of(data: bytes) -> int:
    """Width times height by the header, before a pixel is decoded; 0 where none can be told (decoding says why)."""
    kind = kind_of(data)
    width, height = _announced_size(kind, data)
    if not width * height and kind in FORMATS:
        try:
            head = jpeg.header(data) if kind == "JPEG" else None
            width, height = _header(kind, data).size if head is None else (head.width, head.height)
        except Exception:  # damaged, in one of many ways
            return 0
    return width * height


def _decode_file(data: bytes, channels: int, shorter_side: int | None) -> tuple[np.ndarray, PictureFacts]:
    if not data:
        raise DecodeError("empty-file", "is empty (0 bytes)")
    kind = kind_of(data)
    if kind == "":
        raise DecodeError("not-an-image", "holds no picture (its first bytes are of no known picture format)")
    if kind not in FORMATS:
        raise DecodeError("unsupported-format", f"is of a format that is not read here ({kind})")
    _demand_size(*_announced_size(kind, data))
    _demand_whole(kind, data)
    try:
        head = jpeg.header(data) if kind == "JPEG" else None
        if head is not None and head.mode != "CMYK":
            _demand_size(head.width, head.height)
            value, frames, mode, orientation = _of_jpeg(data, head, channels, shorter_side)
            width, height = (head.width, head.height) if orientation < 5 else (head.height, head.width)
        else:
            value, frames, mode, orientation = _of_other(kind, data, channels)
            height, width = value.shape[:2]
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # a decoder met hostile or damaged bytes; which error it raises is up to chance
        raise _damage(kind, error) from error
    digest = hashlib.sha256(data).hexdigest()
    return value, PictureFacts(
        format=kind,
        mode=mode,
        width=width,
        height=height,
        orientation=orientation,
        frames=frames,
        bytes=len(data),
        sha256=digest,
    )


def _of_jpeg(
    data: bytes, head: jpeg.Header, channels: int, shorter_side: int | None
) -> tuple[np.ndarray, int, str, int]:
    """(pixels, frames, stored mode, orientation)."""
    value = jpeg.pixels(data, head, head.mode == "L" and channels == 1, shorter_side)
    if value.shape[2] != channels:
        value = from_pil(Image.fromarray(value), channels)
    return oriented(value, head.orientation), 1, head.mode, head.orientation


def _of_other(kind: str, data: bytes, channels: int) -> tuple[np.ndarray, int, str, int]:
    """(pixels, frames, stored mode, orientation) by Pillow."""
    image = _header(kind, data)
    _demand_size(*image.size)
    mode, before = image.mode, orientation_of(image)
    image.load()
    after = orientation_of(image)  # Pillow turns a TIFF itself while loading; a PNG may tell only now
    value = oriented(from_pil(image, channels), after)
    return value, _frames(image, kind), mode, before if before != 1 else after


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


def _demand_whole(kind: str, data: bytes) -> None:
    """Find what Pillow lets pass: a PNG whose pixel data was changed (its checksums are not read), a WebP cut short."""
    if kind == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise DecodeError("truncated", "ends too early: a WEBP file that was cut off")
    place, ended, chunks = 8, kind != "PNG", 0
    while not ended:
        chunks += 1
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 8 + length
        if end + 4 > len(data):
            raise DecodeError("truncated", "ends too early: a PNG file that was cut off")
        if chunks > MAX_CHUNKS:
            raise DecodeError("corrupt", f"is damaged: a PNG file of more than {MAX_CHUNKS} chunks")
        told = int.from_bytes(data[end : end + 4], "big")
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT") and zlib.crc32(data[place + 4 : end]) != told:
            raise DecodeError("corrupt", f"is damaged: a PNG file whose {name.decode()} fails its checksum")
        place, ended = end + 4, name == b"IEND"


def _demand_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        size = f"{width}x{height} is {width * height / 1e6:.0f} million pixels"
        limit = f"the limit is {MAX_PIXELS / 1e6:.0f} million: shrink it"
        raise DecodeError("too-many-pixels", f"is too large ({size}, {limit})")


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
    damaged_inside = text.startswith("corrupt jpeg data")  # "premature end of data segment": bytes follow it
    if not damaged_inside and (isinstance(error, EOFError) or any(word in text for word in short)):
        return DecodeError("truncated", f"ends too early: a {kind} file that was cut off ({error})")
    return DecodeError("corrupt", f"is damaged: a {kind} file that cannot be decoded ({error})")


def _decode_value(item: Any, channels: int) -> tuple[np.ndarray, PictureFacts]:
    """Arrays, tensors and PIL pictures."""
    if isinstance(item, Image.Image):
        _demand_size(*item.size)
        try:
            item.load()  # it may be open on a file still, and a TIFF is turned by Pillow only now
        except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
            raise _damage(item.format or "PIL", error) from error
        orientation = orientation_of(item)
        value = oriented(from_pil(item, channels), orientation)
        mode, kind = item.mode, item.format or "PIL"
    else:
        item = _as_array(item)
        if item.ndim not in (2, 3) or item.dtype.kind not in "buif" or item.size == 0:
            told = f"shape {item.shape}, type {item.dtype}"
            raise DecodeError("wrong-type", f"is no picture: an array (H, W[, C]) of numbers is needed ({told})")
        _demand_size(item.shape[1], item.shape[0])
        value, orientation, mode, kind = from_array(item, channels), 1, str(item.dtype), "array"
    height, width = value.shape[:2]
    return value, PictureFacts(
        format=kind,
        mode=mode,
        width=width,
        height=height,
        orientation=orientation,
        frames=1,
        bytes=np.asarray(item).nbytes,
        sha256=fingerprint(item),
    )


def _as_array(item: Any) -> np.ndarray:
    """(H, W[, C]) of an array, or of a torch tensor (C, H, W)."""
    return item.detach().cpu().numpy().transpose(1, 2, 0) if _is_planar_tensor(item) else np.asarray(item)


def _is_planar_tensor(item: Any) -> bool:
    return type(item).__module__.partition(".")[0] == "torch" and getattr(item, "ndim", 0) == 3
