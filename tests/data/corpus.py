"""Seventy kinds of pictures and of things that only look like one, each with the outcome that is expected of it.

Everything is made here with Pillow and struct; nothing is stored or fetched.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 36)  # width, height: neither square nor alike when turned
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Case:
    """One file of the corpus: how it is made, and what must come of it ("ok" or a reason code)."""

    kind: str
    file: str
    make: Callable[[Path], object]
    expected: str = "ok"


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """A smooth, unsymmetrical picture of colours."""
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    bands = [128 + 100 * np.sin(x / (5 + c) + y / (9 - c) + rng.uniform(0, 6)) for c in range(3)]
    return Image.fromarray(np.stack(bands, axis=2).clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A grey PNG of that many black pixels, in about a thousandth of the bytes."""
    packer = zlib.compressobj(9)
    block = bytes((width + 1) * 100)
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)  # after a full flush every block packs alike
    rows = [first, *[again] * (height // 100 - 1), packer.flush()]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG_HEAD + chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(rows)) + chunk(b"IEND", b"")


def headers_of_bombs() -> dict[str, bytes]:
    """Small files of other formats whose headers announce hundreds of millions of pixels or more."""
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16382).to_bytes(3, "little") * 2
    jpeg = bytearray(encoded(picture()))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 65000, 65000)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00;"
    entries = [(256, 60000), (257, 60000), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 60000), (279, 100)]
    tiff = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(entries))
    tiff += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + bytes(104)
    return {
        "webp": b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp,
        "jpeg": bytes(jpeg),
        "gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + frame,
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIIIII", 200, 0, 0, 54, 40, 40000, 40000, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": b"P6 60000 60000 255\n" + bytes(100),
        "tiff": tiff,
    }


def oriented(orientation: int, form: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return encoded(picture(), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))


def animated(form: str) -> bytes:
    frames = [picture(seed=seed) for seed in range(3)]
    options = {"lossless": True} if form == "WEBP" else {}
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)


def palette(transparent: bool) -> bytes:
    image = picture("P")
    return encoded(image, "PNG", **({"transparency": image.getpixel((9, 9))} if transparent else {}))


def with_alpha(mode: str) -> Image.Image:
    image = picture(mode)
    ramp = Image.fromarray(np.linspace(0, 255, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0]).astype(np.uint8))
    image.putalpha(ramp)
    return image


def sixteen_bit() -> Image.Image:
    ramp = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0])
    return Image.fromarray(ramp.astype(np.uint16))


def floating() -> Image.Image:
    return Image.fromarray(np.linspace(0, 1, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE[1], SIZE[0]))


def with_segment(marker: bytes, body: bytes) -> bytes:
    """A JPEG with one more APP segment right at its start."""
    plain = encoded(picture())
    return plain[:2] + marker + struct.pack(">H", len(body) + 2) + body + plain[2:]


def damaged_middle() -> bytes:
    data = bytearray(encoded(picture(size=(480, 360)), quality=90))
    middle = len(data) // 2
    data[middle : middle + 400] = b"\xff\xd4\x00\x13\x37" * 80
    return bytes(data)


def wrong_crc() -> bytes:
    data = bytearray(encoded(picture(), "PNG"))
    place = data.index(b"IDAT")
    data[place + 20] ^= 0x10
    return bytes(data)


def _bytes(data: Callable[[], bytes] | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data())


def _image(image: Callable[[], Image.Image], form: str, **options: object) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(encoded(image(), form, **options))


def _cut(form: str, share: float) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        data = encoded(picture(size=(480, 360)), form)
        path.write_bytes(data[: int(len(data) * share)])

    return make


def _hardlink(path: Path) -> None:
    os.link(path.with_name("ok.jpg"), path)


_JPEG = _image(picture, "JPEG")
HTML = b"<!DOCTYPE html><html><body>404 not found</body></html>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'

CASES: tuple[Case, ...] = (
    Case("jpeg", "ok.jpg", _JPEG),
    Case("png", "ok.png", _image(picture, "PNG")),
    Case("webp", "ok.webp", _image(picture, "WEBP")),
    Case("gif", "ok.gif", _image(lambda: picture("P"), "GIF")),
    Case("bmp", "ok.bmp", _image(picture, "BMP")),
    Case("tiff", "ok.tif", _image(picture, "TIFF")),
    Case("empty", "empty.jpg", _bytes(b""), "empty-file"),
    Case("one byte", "one.jpg", _bytes(b"\xff"), "not-an-image"),
    *(Case(f"jpeg cut at {p} %", f"cut{p}.jpg", _cut("JPEG", p / 100), "truncated") for p in (1, 10, 50, 90, 99)),
    *(Case(f"{f} cut", f"cut.{f}", _cut(f, 0.5), "truncated") for f in ("png", "webp", "gif")),
    Case("jpeg without end", "noend.jpg", _bytes(lambda: encoded(picture())[:-2]), "truncated"),
    Case("jpeg with a damaged middle", "middle.jpg", _bytes(damaged_middle), "corrupt"),
    Case("png with a flipped bit", "crc.png", _bytes(wrong_crc), "corrupt"),
    Case("cmyk tiff", "cmyk.tif", _image(lambda: picture("CMYK"), "TIFF")),
    Case("cmyk jpeg, inverted by Adobe's custom", "cmyk.jpg", _image(lambda: picture("CMYK"), "JPEG")),
    Case("palette", "p.png", _bytes(lambda: palette(False))),
    Case("palette with a transparent colour", "ptrns.png", _bytes(lambda: palette(True))),
    Case("grey with alpha", "la.png", _image(lambda: with_alpha("L"), "PNG")),
    Case("rgb with alpha", "rgba.png", _image(lambda: with_alpha("RGB"), "PNG")),
    Case("16 bit", "i16.png", _image(sixteen_bit, "PNG")),
    Case("floating point", "f.tif", _image(floating, "TIFF")),
    Case("1 bit", "1.png", _image(lambda: picture("1"), "PNG")),
    *(Case(f"orientation {n}", f"exif{n}.jpg", _bytes(lambda n=n: oriented(n))) for n in range(2, 9)),
    Case(
        "garbage for exif", "exifjunk.jpg", _bytes(lambda: with_segment(b"\xff\xe1", b"Exif\0\0MM\0*" + b"\xee" * 90))
    ),
    Case("garbage for a colour profile", "icc.jpg", _image(picture, "JPEG", icc_profile=b"\x00garbage" * 20)),
    Case("progressive", "progressive.jpg", _image(picture, "JPEG", progressive=True)),
    *(Case(f"animated {f}", f"moving.{f}", _bytes(lambda f=f: animated(f.upper()))) for f in ("gif", "webp", "png")),
    Case("1 by 1", "1x1.png", _image(lambda: picture(size=(1, 1)), "PNG")),
    Case("1 by 60000", "tall.png", _image(lambda: picture(size=(1, 60000)), "PNG")),
    Case("60000 by 1", "wide.png", _image(lambda: picture(size=(60000, 1)), "PNG")),
    Case("144 million pixels", "144.png", _bytes(lambda: png_bomb(12000, 12000)), "too-many-pixels"),
    Case("900 million pixels", "900.png", _bytes(lambda: png_bomb(30000, 30000)), "too-many-pixels"),
    Case("png named jpg", "really_png.jpg", _image(picture, "PNG")),
    Case("html named jpg", "html.jpg", _bytes(HTML), "not-an-image"),
    Case("text named jpg", "text.jpg", _bytes(b"this is no picture\n" * 9), "not-an-image"),
    Case("pdf named jpg", "pdf.jpg", _bytes(b"%PDF-1.7\n" + bytes(99)), "unsupported-format"),
    Case("svg named jpg", "svg.jpg", _bytes(SVG), "unsupported-format"),
    Case("upper-case suffix", "UPPER.JPG", _JPEG),
    Case("mixed-case suffix", "mixed.JpEg", _JPEG),
    Case("no suffix", "nosuffix", _JPEG),
    Case("space in the name", "a name.jpg", _JPEG),
    Case("quotes in the name", 'it\'s "quoted".jpg', _JPEG),
    Case("newline in the name", "two\nlines.jpg", _JPEG),
    Case("emoji in the name", "\N{HOT DOG}.jpg", _JPEG),
    Case("right-to-left override in the name", "evil\u202egpj.exe", _JPEG),
    Case("composed accent in the name", "caf\u00e9.jpg", _JPEG),
    Case("decomposed accent in the name", "cafe\u0301.jpg", _JPEG),
    Case("name of 255 bytes", "n" * 251 + ".jpg", _JPEG),
    Case("name with a leading dash", "-rf.jpg", _JPEG),
    Case("dangling link", "dangling.jpg", lambda path: path.symlink_to("nowhere.jpg"), "dangling-link"),
    Case("link to itself", "self.jpg", lambda path: path.symlink_to(path.name), "link-loop"),
    Case("second hard link", "twin.jpg", _hardlink),
    Case("pipe", "fifo.jpg", lambda path: os.mkfifo(path), "not-a-file"),
    Case("unreadable", "secret.jpg", lambda path: (_JPEG(path), path.chmod(0)), "permission"),
    Case("folder", "folder.jpg", lambda path: path.mkdir(), "is-a-folder"),
    Case("changed while it is read", "growing.jpg", _JPEG, "changed-while-reading"),
    Case("gone since it was listed", "gone.jpg", lambda path: None, "vanished"),
)


def build(folder: Path) -> dict[str, Path]:
    """Make every case; its path by kind."""
    paths = {}
    for case in CASES:
        paths[case.kind] = folder / case.file
        case.make(paths[case.kind])
    return paths
