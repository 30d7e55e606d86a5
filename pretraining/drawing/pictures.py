"""Pictures that Debian packages install: clip art, emoji, stamps and desktop backgrounds.

A class is one picture (an example is a distorted view of it), and the words of its name and folder are further labels.
Debian packages: openclipart-png (public domain), fonts-noto-color-emoji, tuxpaint-stamps-default; for photographs
plasma-workspace-wallpapers, mate-backgrounds, lomiri-wallpapers-16.04, lomiri-wallpapers-20.04, ukui-wallpapers.

Left out is what shows, by its name or folder, anything that the backbones are judged on: people, dogs, elephants,
giraffes, guitars, horses, houses, ants, bees, and digits (so also playing cards, clocks, calendars, road signs).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # pixels
CLIP_ART = Path("/usr/share/openclipart/png")
STAMPS = Path("/usr/share/tuxpaint/stamps")
EMOJI = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
BACKGROUNDS = (Path("/usr/share/wallpapers"), Path("/usr/share/backgrounds"))
FORBIDDEN_FOLDERS = re.compile(
    r"(^|/)(people|homes|houses|dogs|equines|games|clocks|roadsigns|stars|symbols|gradients|numbers|calendar|time|"
    r"aiga-symbols|bodypart|stickmen|smilies|buttons)(/|$)"
)
FORBIDDEN_WORDS = re.compile(
    r"dog|pupp|hound|poodle|\bcan[ei]\b|chien|perro|bobi|wolf|eleph|elef|giraf|guitar|chitarr|gitar|banjo|horse|cavall|"
    r"pony|cheval|caball|unicorn|zebra|donkey|asin|centaur|house|home|\bcas[ae]|cottage|maison|haus|hut|villa|chalet|"
    r"person|\bman\b|\bmen\b|wom[ae]n|\bboy|girl|bab[yi]|child|bambin|bimb|donn[ae]|uom[io]|signor|ragazz|people|human|"
    r"lady\b|king\b|queen|prince|family|couple|\bants?\b|formic|\bbees?\b|abeil|\bap[ei]\b|\bape|wasp|hornet|vesp|honey|"
    r"digit|number|numer|calend|clock|watch|orolog|\bdate|calc|dice|\bdad[oi]\b|domino|\bcards?\b|poker|tasto|speed|"
    r"eight|hundred|billiard|input symbol|keycap|ruler|thermomet"
)
HARMLESS_BUGS = re.compile(
    r"farfall|butterfl|lady ?bug|coccinel|spider|ragn|dragon|libell|caterpil|mosq|mosc|mant|grass"
)
AUTHORS = 12  # how often a word must occur to be a label


@dataclass(frozen=True)
class Named:
    """A picture with transparency, (SIDE, SIDE, 4) uint8, and the words it is filed under."""

    pixels: np.ndarray
    words: frozenset[str]


def is_forbidden(name: str) -> bool:
    """Whether a path (or a Unicode name) speaks of a target's class."""
    lower = name.lower()
    folder, _, leaf = lower.rpartition("/")
    spoken = re.sub(r"[^a-zà-ÿ]+", " ", leaf)
    if "bugs" in folder or "insects" in folder:
        return not HARMLESS_BUGS.search(spoken) or bool(FORBIDDEN_WORDS.search(spoken))
    return bool(FORBIDDEN_FOLDERS.search(folder) or FORBIDDEN_WORDS.search(spoken))


def words_of(name: str) -> frozenset[str]:
    """Words of three letters and more in a path or a name, without numbers."""
    return frozenset(re.findall(r"[a-zà-ÿ]{3,}", name.lower().replace(".png", "")))


def clip_art() -> Iterator[Named]:
    """All allowed pictures of the three collections that are installed, in a fixed order."""
    for root in (CLIP_ART, STAMPS):
        for file in sorted(root.rglob("*.png")):
            name = file.relative_to(root).as_posix()
            if is_forbidden(name) or "_mirror" in name:
                continue
            try:
                with Image.open(file) as picture:
                    if picture.width * picture.height <= 3_000_000:
                        yield Named(fitted(picture.convert("RGBA")), words_of(name))
            except (OSError, ValueError, Image.DecompressionBombError):  # a few of the collection are damaged
                continue
    yield from emoji()


def emoji() -> Iterator[Named]:
    """Every single-character picture of the colour font."""
    if not EMOJI.exists():
        return
    font = ImageFont.truetype(str(EMOJI), 109)
    for code in (*range(0x2190, 0x2C00), *range(0x1F300, 0x1FB00)):
        name = unicodedata.name(chr(code), "")
        if not name or is_forbidden(name) or font.getmask(chr(code)).getbbox() is None:
            continue
        picture = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(picture).text((0, 0), chr(code), font=font, embedded_color=True)
        yield Named(fitted(picture), words_of(name))


def fitted(picture: Image.Image) -> np.ndarray:
    """What is not transparent, as large as the square allows and in its middle."""
    box = picture.getchannel("A").getbbox()
    picture = picture.crop(box) if box else picture
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(picture.resize(size, Image.Resampling.BOX), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(square)


def tags(names: list[frozenset[str]]) -> tuple[list[str], np.ndarray]:
    """Words that occur ``AUTHORS`` times and more, and which picture has them: (N, W) bool."""
    counts = Counter(word for words in names for word in words)
    known = sorted(word for word, count in counts.items() if count >= AUTHORS)
    return known, np.array([[word in words for word in known] for words in names], dtype=bool)


def photographs() -> Iterator[np.ndarray]:
    """Cells of the desktop backgrounds, at two scales: each (SIDE, SIDE, 3) uint8 with something to see in it."""
    seen: set[str] = set()
    for file in sorted(file for root in BACKGROUNDS for file in root.rglob("*")):
        sort = file.parts[4] if file.is_relative_to(BACKGROUNDS[0]) else file.stem
        usable = file.suffix in (".jpg", ".png", ".webp") and not re.search(r"screenshot|vertical|_dark", str(file))
        if not usable or sort in seen or is_forbidden(file.name) or is_forbidden(sort):
            continue
        try:
            with Image.open(file) as picture:
                if picture.width < 1200 or picture.width < picture.height:
                    continue
                seen.add(sort)
                yield from cells(picture.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue


def cells(picture: Image.Image) -> Iterator[np.ndarray]:
    """A grid of 10 across, and one of 5 across."""
    for across in (10, 5):
        width = across * SIDE
        small = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
        values = np.asarray(small)
        for top in range(0, values.shape[0] - SIDE + 1, SIDE):
            for left in range(0, width, SIDE):
                cell = values[top : top + SIDE, left : left + SIDE]
                if cell.std((0, 1)).mean() > 10 and np.abs(np.diff(cell.astype(np.int16), axis=0)).mean() > 2:
                    yield cell
