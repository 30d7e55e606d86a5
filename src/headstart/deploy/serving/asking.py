"""From the body of a request to the items that are asked about: JSON, or a form with files.

Nothing in here knows a model or touches a disk: a picture or a sound becomes its bytes, a text stays a text.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from headstart.deploy.serving.limits import Limits, Refusal

logging.getLogger("python_multipart").addHandler(logging.NullHandler())  # what is wrong with a form is in the reply
FIELDS = 4  # of a form, besides its items
NAMES = "file, text, top_k"
OF_ADDRESSES = str.maketrans("-_", "+/")  # the other alphabet of RFC 4648


@dataclass(frozen=True)
class Question:
    """Items (bytes of a file, a text, a pair of texts, or why it is none), and how many labels are wanted for each."""

    items: tuple[Any, ...]
    top_k: int | None


def parse(kind: str, body: bytes, limits: Limits, *, of_texts: bool) -> Question:
    """The question in a body whose Content-Type is ``kind``; ``of_texts`` where strings are texts and not base64.

    Raises:
        Refusal: 400 (not what it claims to be), 413 (too many items), 415 (another type).
    """
    media, options = parse_options_header(kind)
    charset = options.get(b"charset", b"utf-8").lower()
    if charset not in (b"utf-8", b"utf8", b"us-ascii"):
        raise Refusal(415, "charset", "the body has to be in UTF-8")
    if media == b"application/json":
        return _of_json(body, limits, of_texts)
    if media == b"multipart/form-data":
        return _of_form(body, options.get(b"boundary", b""), limits, of_texts)
    raise Refusal(415, "content-type", "send application/json or multipart/form-data")


def _of_json(body: bytes, limits: Limits, of_texts: bool) -> Question:
    try:
        asked = json.loads(body.decode("utf-8"))
    except RecursionError as error:
        raise Refusal(400, "json", "the JSON is nested too deeply") from error
    except ValueError as error:  # bad UTF-8, bad JSON, a number of 5,000 digits
        raise Refusal(400, "json", f"the body is not JSON ({str(error)[:120]})") from error
    if not isinstance(asked, dict) or not {"inputs"} <= set(asked) <= {"inputs", "top_k"}:
        raise Refusal(400, "shape", 'the body has to be {"inputs": …, "top_k": …}, the second if wanted')
    inputs = asked["inputs"]
    inputs = inputs if isinstance(inputs, list) else [inputs]
    _demand_count(len(inputs), limits)
    read = _text if of_texts else _file
    return Question(tuple(_own(read, item, place) for place, item in enumerate(inputs)), _top_k(asked.get("top_k")))


def _own(read: Callable[[Any, int], Any], item: Any, place: int) -> Any:
    """What is wrong with one item is its own problem, and costs no other its answer."""
    try:
        return read(item, place)
    except Refusal as refusal:
        return refusal


def _text(item: Any, place: int) -> Any:
    if isinstance(item, dict) and "text" in item and set(item) <= {"text", "text_pair"}:
        item = (item["text"], item["text_pair"]) if "text_pair" in item else item["text"]
    if not all(isinstance(text, str) for text in (item if isinstance(item, tuple) else (item,))):
        raise Refusal(400, "shape", f'inputs[{place}] has to be a text, or {{"text": …, "text_pair": …}}')
    return item


def _file(item: Any, place: int) -> bytes:
    if not isinstance(item, str):
        raise Refusal(400, "shape", f"inputs[{place}] has to be a file's bytes in base64")
    written = "".join((item.partition(",")[2] if item[:5].lower() == "data:" else item).split())
    written = written.translate(OF_ADDRESSES)
    padding = "" if "=" in written else "=" * (-len(written) % 4)  # which addresses leave out
    try:
        return base64.b64decode(written + padding, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "base64", f"inputs[{place}] is not base64 ({str(error)[:160]})") from error


def _of_form(body: bytes, boundary: bytes, limits: Limits, of_texts: bool) -> Question:
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise Refusal(400, "form", "the form has no boundary")
    form = _Form(limits.items + FIELDS)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, UnicodeDecodeError) as error:
        raise Refusal(400, "form", "the body is not a whole form") from error
    if not form.whole:
        raise Refusal(400, "form", "the form ends too early")
    items: list[Any] = []
    top_k = None
    for part in form.parts:
        if part.name in ("file", "files") and part.is_file:
            items.append(bytes(part.content))
        elif part.name == "text" and of_texts:
            items.append(_utf8(part))
        elif part.name == "top_k" and top_k is None:
            top_k = _top_k(_number(_utf8(part)))
        else:
            raise Refusal(400, "form", f"the form may hold {NAMES if of_texts else 'file, top_k'}")
    _demand_count(len(items), limits)
    return Question(tuple(items), top_k)


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    is_file: bool = False
    content: bytearray = field(default_factory=bytearray)


class _Form:
    """What the parser finds, part by part; more than ``most`` are refused while they are read."""

    def __init__(self, most: int) -> None:
        self.parts: list[_Part] = []
        self.whole = False
        self._most = most
        self._field, self._value = bytearray(), bytearray()

    def callbacks(self) -> Any:
        """By the parser's names."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._named,
            "on_part_data": lambda data, start, end: self.parts[-1].content.extend(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == self._most:
            raise Refusal(413, "items", f"the form has more than {self._most} parts")
        self.parts.append(_Part())

    def _header(self) -> None:
        self.parts[-1].headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _named(self) -> None:
        _, options = parse_options_header(self.parts[-1].headers.get(b"content-disposition", b""))
        self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
        self.parts[-1].is_file = b"filename" in options

    def _end(self) -> None:
        self.whole = True


def _utf8(part: _Part) -> str:
    try:
        return bytes(part.content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, "form", f"{part.name} is not UTF-8") from error


def _number(text: str) -> Any:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _top_k(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise Refusal(400, "top_k", "top_k has to be a whole number from 1 on")
    return value


def _demand_count(count: int, limits: Limits) -> None:
    if not count:
        raise Refusal(400, "items", "there is nothing to predict")
    if count > limits.items:
        raise Refusal(413, "items", f"{count} items in one request, the limit is {limits.items}")
