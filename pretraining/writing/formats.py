"""Readers of the files in which writing is stored: catalogues, help pages, manual pages, games, Bible modules."""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from collections.abc import Iterator

from pretraining.writing.cleaning import clean, paragraphs

_BLOCK = re.compile(
    r"</?(?:p|li|h\d|dd|dt|td|th|title|desc|para|item|div|pre|tr|table|section|br|entry|lb|l)\b[^>]*>", re.I
)
_LEFT_OUT = re.compile(r"<(script|style|pre|code|screen|programlisting|head)\b.*?</\1>", re.DOTALL | re.IGNORECASE)


def catalogue(content: bytes) -> Iterator[tuple[str, str]]:
    """Message and translation of a compiled gettext catalogue (``.mo``, GNU gettext manual, section 10.3)."""
    order = "<" if content[:4] == b"\xde\x12\x04\x95" else ">"
    if len(content) < 20:
        return
    count, originals, translations = struct.unpack(order + "3I", content[8:20])
    for index in range(count):
        texts = []
        for table in (originals, translations):
            length, start = struct.unpack_from(order + "2I", content, table + 8 * index)
            texts.append(content[start : start + length].decode("utf-8", "replace").split("\0")[0])
        message = texts[0].rpartition("\x04")[2]  # the context comes before this sign
        if message and texts[1]:
            yield message, texts[1]


def messages(content: bytes) -> dict[str, str]:
    """Names and texts of a JSON file of messages, as MediaWiki has one for each language."""
    found = json.loads(content.decode("utf-8", "replace"))
    return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def markup(content: bytes) -> Iterator[str]:
    """Paragraphs of HTML, DocBook, Mallard or OSIS."""
    text = _LEFT_OUT.sub(" ", content.decode("utf-8", "replace"))
    for block in _BLOCK.split(text):
        line = clean(block)
        if line:
            yield line


def manual(content: bytes) -> Iterator[str]:
    """Paragraphs of a manual page (roff), compressed or not."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    lines = []
    for line in content.decode("utf-8", "replace").splitlines():
        if line.startswith((".\\", "'\\")):
            continue
        words = re.sub(r"\\f[A-Z]|\\f\(..|\\f\[\w*\]|\\[&%|]", "", line).replace("\\-", "-").replace("\\(aq", "'")
        macro = re.match(r"[.'](\w+) ?(.*)", words)
        if macro is None:
            lines.append(words)
        elif macro[1] in ("B", "I", "BR", "IR", "RB", "RI", "BI", "IB"):
            lines.append(macro[2].replace('"', ""))
        else:
            lines.append("\n")
    yield from paragraphs("\n".join(lines))


def bible(blocks: bytes, texts: bytes) -> Iterator[str]:
    """Paragraphs of a compressed SWORD module: ``blocks`` lists start and length of each zlib block in ``texts``."""
    for start, length, _ in struct.iter_unpack("<3I", blocks[: len(blocks) // 12 * 12]):
        if length:
            opened = zlib.decompress(texts[start : start + length]).decode("utf-8", "replace")
            opened = re.sub(r"<(title|note)\b.*?</\1>", " ", opened, flags=re.DOTALL)
            for part in re.split(
                r'<div [^>]*type="(?:x-p|paragraph)"[^>]*>|<milestone[^>]*>|</?p\b[^>]*>|<lb[^>]*>|\0', opened
            ):
                line = clean(re.sub(r"<[^<>]*>", "", part))
                if line:
                    yield line


def fortunes(content: bytes) -> Iterator[str]:
    """Sayings of a fortune file, which stand between lines of a single per cent sign."""
    for saying in content.decode("utf-8", "replace").split("\n%\n"):
        yield clean(re.sub(r"[_\b]|-- .*", "", saying))


def r_lines(content: bytes) -> Iterator[str]:
    """Paragraphs of the character vectors in an R lazy-load database (zlib chunks of XDR-serialised values)."""
    start = 0
    while (start := content.find(b"\x78\x9c", start)) >= 0:
        try:
            opened = zlib.decompressobj().decompress(content[start:])
        except zlib.error:
            opened = b""
        start += 2
        lines, place = [], 0
        while (place := opened.find(b"\x09", place)) >= 0:  # the type CHARSXP is 9, in the last byte of its flags
            length = int.from_bytes(opened[place + 1 : place + 5], "big")
            if opened[place - 3 : place - 2] == b"\x00" and length < 200 and opened[place - 2] in (4, 0):
                lines.append(opened[place + 5 : place + 5 + length].decode("utf-8", "replace"))
                place += 5 + length
            else:
                place += 1
        yield from paragraphs("\n".join(lines))


def quoted(content: bytes) -> Iterator[str]:
    """What stands between backquotes or on plain lines of a game's data: its descriptions and conversations."""
    text = content.decode("utf-8", "replace")
    found = re.findall(r"`([^`\n]{30,})`", text)
    for line in found or re.split(r"\n%+[^\n]*\n|\n\s*\n", re.sub(r"(?m)^#.*$", "", text)):
        yield clean(line)
