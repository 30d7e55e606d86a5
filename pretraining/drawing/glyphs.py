"""Letters and symbols of many scripts in every installed font: a class is a character, an example is it in one font.

No character of a class that means a number is drawn (decimal digits, letter-like and other numbers of any script).
Debian packages: fonts-dejavu-core, fonts-dejavu-extra, fonts-freefont-ttf, fonts-liberation, fonts-noto-core.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = Path("/usr/share/fonts/truetype")
SIDE = 64  # pixels
WIDELY_DRAWN = ((0x41, 0x5A), (0x61, 0x7A), (0x391, 0x3C9), (0x410, 0x44F))  # Latin, Greek, Cyrillic
SYMBOLS = ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x2190, 0x2199), (0x25A0, 0x25AF))
SCRIPTS = (
    (0x531, 0x556),  # Armenian
    (0x5D0, 0x5EA),  # Hebrew
    (0x621, 0x64A),  # Arabic
    (0x905, 0x939),  # Devanagari
    (0x985, 0x9B9),  # Bengali
    (0xB85, 0xBB9),  # Tamil
    (0xE01, 0xE2E),  # Thai
    (0x1200, 0x1227),  # Ethiopic
    (0x1401, 0x1430),  # Canadian Aboriginal
    (0x16A0, 0x16EA),  # Runic
    (0x2C00, 0x2C2E),  # Glagolitic
    (0x2D30, 0x2D67),  # Tifinagh
    (0x10330, 0x10349),  # Gothic
)
HELD_OUT = ((0x10D0, 0x10F0), (0x13A0, 0x13BF), (0xE81, 0xEAE))  # Georgian, Cherokee, Lao: for development only
TAUGHT = (*WIDELY_DRAWN, *SYMBOLS, *SCRIPTS)
NUMERIC = re.compile(r"DIGIT|NUMBER|NUMERAL|FRACTION|HUNDRED|THOUSAND|CUBE ROOT|FOURTH ROOT")
LOOKALIKES = frozenset("OoΟοОоIlІ|ЗзбƷ")  # letters that most fonts draw as they draw 0, 1, 3 or 6
PACKAGES = ("dejavu", "freefont", "liberation", "noto")


def is_number(character: str) -> bool:
    """Whether Unicode counts the character among the numbers, or names it after one."""
    named = NUMERIC.search(unicodedata.name(character, ""))
    return unicodedata.category(character).startswith("N") or character.isnumeric() or named is not None


def characters(ranges: Iterable[tuple[int, int]]) -> list[str]:
    """The letters, symbols and marks among them that are no numbers and do not look like one."""
    found = [chr(code) for first, last in ranges for code in range(first, last + 1)]
    return [
        one for one in found if unicodedata.category(one)[0] in "LSP" and not is_number(one) and one not in LOOKALIKES
    ]


def font_files(folder: Path = FONTS) -> list[Path]:
    """The TrueType files of the packages named above, in a fixed order."""
    files = sorted(file for package in PACKAGES for file in (folder / package).glob("*.ttf"))
    return [file for file in files if not re.search(r"Emoji|SignWriting|Blank", file.name)]


def render(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray | None:
    """The character in the middle of a picture, ink 255: (SIDE, SIDE) uint8; None where the font draws nothing."""
    left, top, right, bottom = font.getbbox(character)
    width, height = right - left, bottom - top
    if width < 2 or height < 2 or max(width, height) > 200:
        return None
    picture = Image.new("L", (int(width), int(height)))
    ImageDraw.Draw(picture).text((-left, -top), character, fill=255, font=font)
    scale = 0.85 * SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = Image.new("L", (SIDE, SIDE))
    square.paste(picture.resize(size, Image.Resampling.BILINEAR), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(square)


def draw_all(wanted: list[str], folder: Path = FONTS, most: int = 60) -> Iterator[tuple[np.ndarray, int]]:
    """(picture, index into ``wanted``) for every font that has the character, at most ``most`` of each."""
    drawn = [0] * len(wanted)
    for file in font_files(folder):
        font = ImageFont.truetype(str(file), 64)
        missing = font.getmask("\U000fffff").getbbox(), bytes(font.getmask("\U000fffff"))
        for label, character in enumerate(wanted):
            mask = font.getmask(character)
            absent = (mask.getbbox(), bytes(mask)) == missing
            picture = None if absent or drawn[label] >= most else render(font, character)
            if picture is not None:
                drawn[label] += 1
                yield picture, label
