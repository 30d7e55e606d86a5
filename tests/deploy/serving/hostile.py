"""Requests that no honest client sends: made from (seed, number) alone."""

from __future__ import annotations

import base64
import json

import numpy as np

from ...data import corpus
from . import stand

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW", "G\x7fT", "")
PATHS = (
    "/",
    "/predict",
    "/model",
    "/metrics",
    "/healthz",
    "/%2e%2e/etc/passwd",
    "/predict?x=%00",
    "//",
    "*",
    "/\u00e9",
    "/" + "a" * 9000,
)
HEADERS = (
    b"Host: evil.example",
    b"Host: localhost\r\nHost: localhost",
    b"Content-Length: -1",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 99999999999999999999999",
    b"Content-Length: 1_0",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"Transfer-Encoding: gzip",
    b"Expect: 100-continue",
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"Content-Type: multipart/form-data; boundary=" + b"b" * 100,
    b"Content-Type: multipart/form-data; charset=idna; boundary=b",
    b"Content-Type: application/json; charset=hex",
    b"Content-Type: application/json\r\nContent-Type: text/plain",
    b"Content-Type: \xff\xfe",
    b"Origin: null",
    b"Origin: \xe9\xe9",
    b"X: " + b"y" * 20_000,
    b"X:\x00y",
    b" folded: x",
    b"Range: bytes=0-1,2-3,4-",
    b"Accept-Encoding: " + b"gzip," * 900,
    b"Content-Encoding: deflate",
)
VALUES = (
    None,
    True,
    -1,
    1e308,
    [],
    {},
    [[]],
    "",
    "a" * 50,
    "\ud800",
    "é",
    2**70,
    {"text": "x", "text_pair": None},
    ["aGk="] * 40,
)


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """Flipped, cut, doubled or filled with something else."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 8))):
        place, how = int(rng.integers(0, max(1, len(data)))), rng.integers(0, 4)
        if how == 0 and data:
            data[place] ^= 1 << int(rng.integers(0, 8))
        elif how == 1:
            del data[place : place + int(rng.integers(1, 40))]
        elif how == 2:
            data[place:place] = data[place : place + int(rng.integers(1, 40))]
        else:
            data[place:place] = rng.bytes(int(rng.integers(1, 9)))
    return bytes(data)


def head(method: str, path: str, kind: str, length: int, *more: bytes) -> bytes:
    first = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    about = f"Content-Type: {kind}\r\nContent-Length: {length}\r\n"
    return (first + about).encode() + b"".join(line + b"\r\n" for line in more) + b"\r\n"


def form(*contents: bytes, name: str = "file") -> bytes:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'.encode() + each + b"\r\n"
        for each in contents
    ]
    return b"".join(parts) + b"--b--\r\n"


def valid(content: bytes) -> bytes:
    body = form(content)
    return head("POST", "/predict", "multipart/form-data; boundary=b", len(body)) + body


class Hostile:
    """``request(number)`` is bytes for a fresh connection."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._files = [
            stand.picture(n % 3, n, form=form) for n, form in enumerate(("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))
        ]
        self._files += [
            corpus.png_bomb(12000, 12000),
            corpus.encoded(corpus.picture(size=(1, 1)), "PNG"),
            corpus.SVG,
            b"",
        ]
        self._files += list(corpus.headers_of_bombs().values())

    def request(self, number: int) -> bytes:
        rng = np.random.Generator(np.random.Philox(key=self._seed, counter=number))
        kind = number % 8
        file = self._files[int(rng.integers(0, len(self._files)))]
        if kind == 0:
            return rng.bytes(int(rng.integers(1, 2000))) + b"\r\n\r\n"
        if kind == 1:
            more = [HEADERS[int(rng.integers(0, len(HEADERS)))] for _ in range(int(rng.integers(1, 3)))]
            path = PATHS[int(rng.integers(0, len(PATHS)))]
            return head(METHODS[int(rng.integers(0, len(METHODS)))], path, "text/plain", 0, *more)
        if kind == 2:
            told = {
                "inputs": VALUES[int(rng.integers(0, len(VALUES)))],
                "top_k": VALUES[int(rng.integers(0, len(VALUES)))],
            }
            body = json.dumps(told).encode()
            return head("POST", "/predict", "application/json", len(body)) + body
        if kind == 3:
            body = changed(json.dumps({"inputs": [base64.b64encode(file).decode()], "top_k": 2}).encode(), rng)
            return head("POST", "/predict", "application/json", len(body)) + body
        if kind == 4:
            body = changed(form(file, file), rng)
            return head("POST", "/predict", "multipart/form-data; boundary=b", len(body)) + body
        if kind == 5:
            return valid(changed(file, rng)) if file else valid(file)
        if kind == 6:
            body = form(*[changed(file, rng) for _ in range(int(rng.integers(1, 6)))] if file else [b"x"] * 40)
            return head("POST", "/predict", "multipart/form-data; boundary=b", len(body)) + body
        return changed(valid(self._files[0]), rng) if number % 5 == 0 else valid(file)
