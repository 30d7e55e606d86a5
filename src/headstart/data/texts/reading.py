"""One item to a text or a pair of texts: strings, bytes and files."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from headstart.data import files
from headstart.data.modalities.base import DecodeError

LATIN = "file in Windows' Latin"
SOFT_HYPHEN = "\xad"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
MARKS = (b"\xef\xbb\xbf", *UTF16)  # a file that begins so says what it is
LOOKED_AT = 32  # rows, until one can be read
MAX_CHARACTERS = 1_000_000  # of one text
# What UTF-8 looks like when it was read as Windows' Latin.
TRACES = ("Ã¤", "Ã©", "Ã¶", "Ã¼", "â€", "Â ")


def read(item: Any) -> tuple[tuple[str, ...], str, bytes]:
    """A text or a pair of texts; its kind; its content as bytes, pairs joined by a zero byte.

    Takes a str, a pair of them, ``{"text": …, "text_pair": …}``, bytes, or a path (``os.PathLike``: a str is always
    the text itself).

    Raises:
        DecodeError: missing, empty-text, not-text, encoding, too-long, or a code of ``files.read_bytes``.
    """
    kind = type(item).__name__
    if isinstance(item, os.PathLike):
        item, kind = of_file(item)
    elif isinstance(item, bytes):
        item = decoded(item, "")
    elif isinstance(item, Mapping) and "text" in item and {*item} <= {"text", "text_pair"}:  # as pipelines take them
        item = tuple(item[name] for name in ("text", "text_pair") if name in item)
    texts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
    if not texts or any(text is None or (isinstance(text, float) and text != text) for text in texts):
        raise DecodeError("missing", "has no text")
    if len(texts) > 2 or not all(isinstance(text, str) for text in texts):
        raise DecodeError("not-text", f"is a {kind}, not a text or a pair of texts")
    if not all(text.strip() for text in texts):
        raise DecodeError("empty-text", "is empty")
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise DecodeError("too-long", f"has {sum(map(len, texts)):,} characters, more than {MAX_CHARACTERS:,}")
    try:
        content = b"\0".join(text.encode("utf-8") for text in texts)
    except UnicodeEncodeError as error:
        raise DecodeError("encoding", "holds half of a surrogate pair, which is no character") from error
    return texts, kind, content


def texts_of(item: Any) -> tuple[str, ...]:
    """As ``read``; nothing where the item cannot be read."""
    try:
        return read(item)[0]
    except DecodeError:
        return ()


def count_of(items: Sequence[Any]) -> int | None:
    """How many texts make up a row: as many as in the first that can be read; None where none of the first can."""
    for row in range(min(len(items), LOOKED_AT)):
        with suppress(Exception):  # of the user's own data set: what it raises is told when all rows are read
            if texts := texts_of(items[row]):
                return len(texts)
    return None


def insist_count(texts: tuple[str, ...], wanted: int | None) -> None:
    """A row is a pair of texts where the model reads pairs, and one text where it reads single ones.

    Raises:
        DecodeError: not-a-pair, a-pair.
    """
    if wanted == 2 and len(texts) == 1:
        remedy = 'give (text, second), a table with both columns, or {"text": …, "text_pair": …}'
        raise DecodeError("not-a-pair", f"is one text, and the model reads pairs of texts: {remedy}")
    if wanted == 1 and len(texts) == 2:
        raise DecodeError("a-pair", "is a pair of texts, and the model reads single ones: give a list of texts")


def script_of(text: str) -> str:
    """The script of most letters, by the first word of their Unicode names; "" without letters."""
    letters = Counter(unicodedata.name(letter, "?").split()[0] for letter in text[:1000] if letter.isalpha())
    return letters.most_common(1)[0][0] if letters else ""


def is_garbled(text: str) -> bool:
    """Whether a text holds the traces of a wrong encoding."""
    return "\ufffd" in text or any(trace in text for trace in TRACES)


def of_file(path: str | os.PathLike[str]) -> tuple[str, str]:
    """The text in a file, and what the file is; one that is not UTF-8 is read as Windows' Latin (cp1252).

    Raises:
        DecodeError: encoding (it holds characters that no text holds), or a code of ``files.read_bytes``.
    """
    content = files.read_bytes(path)
    try:
        return decoded(content, os.fspath(path)), "file"
    except DecodeError:
        with suppress(UnicodeDecodeError):
            text = content.decode("cp1252")
            plain = all(letter.isprintable() or letter.isspace() or letter == SOFT_HYPHEN for letter in text)
            if plain and not content.startswith(MARKS) and not is_garbled(text):  # else it is UTF-8, damaged
                return text, LATIN
        raise


def decoded(content: bytes, where: str) -> str:
    """UTF-8 with or without its mark, or UTF-16 with one; nothing is guessed."""
    try:
        return content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecodeError("encoding", f"is not UTF-8 ({error.reason} at byte {error.start})", where=where) from error
