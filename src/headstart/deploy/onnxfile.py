"""What an ONNX file says about itself, read before any runtime opens it; the package onnx is not needed.

ONNX is one protobuf message (onnx.proto of the specification). This walks its fields without building anything: weights
are skipped by their length. A file that keeps weights elsewhere is refused: external data has led runtimes to read
files outside of the model's folder again and again (CVE-2022-25882, CVE-2024-27318, CVE-2026-27489).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import ArtefactError

MOST_METADATA = 2**25  # bytes; a tokenizer of a hundred languages takes 17 MB
MOST_BYTES = 2**31 - 1  # of one protobuf message
DEEPEST = 12  # graphs in attributes of nodes of graphs …
Field = tuple[int, int, int, int]  # number, wire type, start and end of the value (of a varint: value, value)
# Where tensors can hide: field number -> the message that stands there.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
NODES, METADATA, EXTERNAL_DATA, DATA_LOCATION, OPERATOR = 1, 14, 13, 14, 4


@dataclass(frozen=True)
class Description:
    """The metadata of a model, and how often each operator occurs in its graph."""

    metadata: dict[str, str]
    operators: dict[str, int]


def describe(path: Path) -> Description:
    """Metadata and operators of a file that stands alone.

    Raises:
        ArtefactError: no ONNX file, weights outside of it, too much metadata, or nested too deeply.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ArtefactError("larger than one ONNX file can be", where=str(path))
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _described(data, str(path))
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise ArtefactError(f"not an ONNX file ({error})", where=str(path)) from error


def _described(data: mmap.mmap, where: str) -> Description:
    metadata: dict[str, str] = {}
    operators: dict[str, int] = {}
    size, graphs = 0, 0
    for number, wire, start, end in _fields(data, 0, len(data)):
        graphs += number == 7
        if number == METADATA and wire == 2:
            size += end - start
            if size > MOST_METADATA:
                raise ArtefactError(f"holds more than {MOST_METADATA:,} bytes of metadata", where=where)
            pair = {key: data[a:b].decode() for key, kind, a, b in _fields(data, start, end) if kind == 2}
            metadata[pair.get(1, "")] = pair.get(2, "")
    if graphs != 1:
        raise ValueError("no graph, or several")
    _look(data, "model", 0, len(data), 0, operators, where)
    return Description(metadata, operators)


def _look(data: mmap.mmap, kind: str, start: int, end: int, depth: int, operators: dict[str, int], where: str) -> None:
    """Visit every tensor and node below; refuse external data."""
    if depth > 3 * DEEPEST:
        raise ArtefactError("nested too deeply", where=where)
    for number, wire, begin, stop in _fields(data, start, end):
        if kind == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and begin != 0)):
            remedy = "export the run again: Headstart writes one file"
            raise ArtefactError("keeps weights in another file, which is refused", where=where, remedy=remedy)
        if kind == "node" and number == OPERATOR:
            name = data[begin:stop].decode()
            operators[name] = operators.get(name, 0) + 1
        inner = MESSAGES.get(kind, {}).get(number)
        if inner is not None:
            if wire != 2:
                raise ValueError(f"field {number} of a {kind} is no message")
            _look(data, inner, begin, stop, depth + 1, operators, where)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[Field]:
    """The fields of one message, by the wire format of protocol buffers."""
    place = start
    while place < end:
        tag, place = _varint(data, place, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field without a number")
        if wire == 0:
            value, place = _varint(data, place, end)
            yield number, wire, value, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire}")
        length = {1: 8, 5: 4}.get(wire, 0)
        if wire == 2:
            length, place = _varint(data, place, end)
        if place + length > end:
            raise ValueError("a field is longer than its message")
        yield number, wire, place, place + length
        place += length


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError("it ends in the middle of a number")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number is too long")
