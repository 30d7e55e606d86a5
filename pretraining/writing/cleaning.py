"""From what a file holds to paragraphs worth reading: markup off, code and tables out, one language, none twice."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator

_TAG = re.compile(r"<!--.*?-->|</?[A-Za-z][^<>]{0,300}>", re.DOTALL)
_PLACEHOLDER = re.compile(
    r"%\([\w ]+\)[sdif]|%[-+#0]*\d*\$?[-.\d]*(?:l|h|ll|z)?[sdifgucxXpq]\b|%\d|\{[\w.:]*\}|\$\{?\w+\}?|@\w+@"
)
_ADDRESS = re.compile(r"\b(?:https?|ftp|file)://\S+|\bwww\.\S+|\S+@\S+\.\S+|(?<!\w)/?(?:[\w.-]+/){2,}[\w.-]*")
_ACCELERATOR = re.compile(r"(?<![A-Za-z0-9])[_&](?=[A-Za-z])|(?<=[A-Za-z])[_&](?=[A-Za-z])|\(_?&?[A-Z]\)$")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d_]+")
_QUOTES = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": " - ", "…": "...", "\xa0": " "}
)

ENGLISH = frozenset(
    _WORD.findall(
        "the of and to a in is that it for as with was on be by this are not or from at have an you which but his "
        "he they we can if their has all will one would there been your when no more who so what into "
        "than its any other only "
    )
)
INDONESIAN = frozenset(
    _WORD.findall(
        "yang dan di untuk dengan dari ini pada tidak dalam anda akan atau adalah dapat itu ke sebuah oleh jika telah "
        "sebagai bisa ada saat juga karena lebih harus bila tersebut hanya semua agar belum sudah saya kita bukan baru "
        "secara gunakan menggunakan antara setiap lain mereka kami dia seperti kepada suatu berkas galat gagal "
    )
)


def clean(text: str) -> str:
    """One line without markup, placeholders, addresses and keyboard accelerators; typographic signs made plain."""
    text = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text)))
    text = _ADDRESS.sub(" ", _PLACEHOLDER.sub(" ", text.translate(_QUOTES)))
    text = _SPACE.sub(" ", _ACCELERATOR.sub("", text))
    return re.sub(r" ([.,;:!?)])", r"\1", unicodedata.normalize("NFC", text)).strip()


def language(text: str) -> str | None:
    """``en`` or ``id`` by the function words, None where they do not tell."""
    words = [word.lower() for word in _WORD.findall(text)]
    english, indonesian = (sum(word in known for word in words) for known in (ENGLISH, INDONESIAN))
    if max(english, indonesian) < max(1, 0.06 * len(words)) or english == indonesian:
        return None
    return "en" if english > indonesian else "id"


def readable(text: str, words: int = 4) -> bool:
    """Whether ``text`` reads as prose: enough words, mostly small Latin letters, no run of signs as in code."""
    found = _WORD.findall(text)
    if len(found) < words or len(text) > 4000:
        return False
    letters = sum(map(len, found))
    latin = sum(character.isascii() or unicodedata.name(character, "").startswith("LATIN") for character in text)
    upper = sum(character.isupper() for character in text)
    return letters > 0.68 * len(text) and latin > 0.95 * len(text) and upper < 0.3 * letters


def paragraphs(text: str) -> Iterator[str]:
    """Cleaned paragraphs of plain text whose paragraphs are parted by empty lines."""
    for block in re.split(r"\n[ \t]*\n", text.replace("\r", "")):
        line = clean(block)
        if line:
            yield line


def key(text: str) -> str:
    """What two texts share that differ only in case, digits, signs and spaces."""
    return "".join(_WORD.findall(text.lower()))


class Unseen:
    """Remembers what has been read, by the first 160 letters."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def __call__(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            mark = hash(key(text)[:160])
            if mark not in self._seen:
                self._seen.add(mark)
                yield text
