"""Small files that would take all memory, or forever: each is made by a function, beside the words that refuse it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

GIB = 2**30


def zeros_in_zip(path: Path, name: str, size: int, method: int = zipfile.ZIP_DEFLATED) -> None:
    """A member of ``size`` zero bytes, packed a mebibyte at a time."""
    with (
        zipfile.ZipFile(path, "w", method, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as out,
    ):
        for _ in range(size >> 20):
            out.write(bytes(2**20))


def sparse(path: Path, start: bytes, size: int) -> None:
    """A file that claims ``size`` bytes and takes a few of the disk."""
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)


def parquet(path: Path, columns: dict[str, object], times: int = 1) -> None:
    """The same rows ``times`` times, each as a row group."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(columns)
    with parquet.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(times):
            writer.write_table(table)


def many_rows(path: Path) -> None:
    import pyarrow

    rows = 2_000_000
    labels = pyarrow.array(np.zeros(rows, np.int64))
    paths = pyarrow.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["a.png"])
    parquet(path, {"image": paths, "label": labels}, times=2)


def long_strings(path: Path) -> None:
    """One string of a megabyte, twenty thousand times: a dictionary keeps the file small."""
    import pyarrow

    rows = 20_000
    paths = pyarrow.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["a" * 2**20])
    parquet(path, {"image": paths, "label": pyarrow.array(np.zeros(rows, np.int64))})


def pages_of_zeros(path: Path) -> None:
    parquet(path, {"image": [bytes(2**24)] * 12, "label": ["a"] * 12})


def nested(depth: int) -> str:
    return '{"image": ' + '{"a": ' * depth + "1" + "}" * depth + ', "label": "a"}\n'


def other_keys(rows: int, keys: int) -> str:
    """Every row has keys of its own: a full table of them would be rows² · keys cells."""
    lines = (json.dumps({f"{row}-{key}": 1 for key in range(keys)} | {"label": "a"}) for row in range(rows))
    return "\n".join(lines)


def sparse_keys(rows: int) -> str:
    """A thousand keys, each in one row, and then rows without any: nearly every cell of the table is empty."""
    return "".join(f'{{"{key}": 1}}\n' for key in range(1000)) + "{}\n" * rows


def tar_of(path: Path, mode: str) -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo("../../escaped.png")
        info.size = 2**24
        archive.addfile(info, io.BytesIO(bytes(2**24)))


HEADER = b"image,label\n"
TABLES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "zip": ("x.zip", lambda path: zeros_in_zip(path, "a.png", 2**24), "archive is not read"),
    "zip that lies": ("y.zip", lambda path: path.write_bytes(b"PK\3\4" + b"\xff" * 99), "archive is not read"),
    "tar": ("x.tar", lambda path: tar_of(path, "w"), "archive is not read"),
    "tar.gz": ("x.tar.gz", lambda path: tar_of(path, "w:gz"), "archive is not read"),
    "csv.gz": ("x.csv.gz", lambda path: path.write_bytes(gzip.compress(bytes(2**22))), "archive is not read"),
    "csv.bz2": ("x.csv.bz2", lambda path: path.write_bytes(bz2.compress(bytes(2**22))), "archive is not read"),
    "csv.xz": ("x.csv.xz", lambda path: path.write_bytes(lzma.compress(bytes(2**22))), "archive is not read"),
    "CSV of 10 GB": ("big.csv", lambda path: sparse(path, HEADER, 10 * GIB), "too large"),
    "TSV of 10 GB": ("big.tsv", lambda path: sparse(path, b"image\tlabel\n", 10 * GIB), "too large"),
    "JSONL of 10 GB": ("big.jsonl", lambda path: sparse(path, b"{}\n", 10 * GIB), "too large"),
    "Parquet of 10 GB": ("big.parquet", lambda path: sparse(path, b"PAR1", 10 * GIB), "not a readable Parquet"),
    "a line without end": ("line.csv", lambda path: path.write_bytes(HEADER + b"a" * 2**25), "characters"),
    "a cell without end": (
        "cell.csv",
        lambda path: path.write_bytes(HEADER + b'"' + b"a cell goes on\n" * 2**21),
        "line 2",
    ),
    "a JSON line without end": (
        "line.jsonl",
        lambda path: path.write_bytes(b'{"image": "' + b"a" * 2**25),
        "characters",
    ),
    "a million columns": ("wide.csv", lambda path: path.write_text("a,b\n,".replace(",", "," * 10**6)), "columns"),
    "a million columns, tabs": ("wide.tsv", lambda path: path.write_text("x\t" * 10**6 + "\n"), "columns"),
    "a row of a million cells": ("ragged.csv", lambda path: path.write_bytes(HEADER + b"x," * 10**6), "columns"),
    "a million keys": ("wide.jsonl", lambda path: path.write_text(other_keys(1, 300_000)), "columns"),
    "keys of their own": ("keys.jsonl", lambda path: path.write_text(other_keys(2_000, 100)), "columns"),
    "keys of few rows": ("sparse.jsonl", lambda path: path.write_text(sparse_keys(100_000)), "unpacks"),
    "nested without end": ("deep.jsonl", lambda path: path.write_text(nested(10**6)), "not a JSON object"),
    "brackets": ("brackets.jsonl", lambda path: path.write_text("[" * 10**6), "not a JSON object"),
    "a number without end": (
        "number.jsonl",
        lambda path: path.write_text('{"image": "x", "label": ' + "9" * 10**7 + "}"),
        "problems|class|row|long",
    ),
    "Parquet of many rows": ("rows.parquet", many_rows, "unpacks"),
    "Parquet of long strings": ("strings.parquet", long_strings, "unpacks"),
    "Parquet of zero pages": ("pages.parquet", pages_of_zeros, "unpacks"),
    "Parquet of many columns": (
        "wide.parquet",
        lambda path: parquet(path, {str(name): [1] for name in range(10_001)}),
        "columns",
    ),
}


def zip_of_arrays(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def claiming(shape: tuple[int, ...]) -> bytes:
    """An array of a few bytes whose header claims ``shape``."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(16)


ARRAYS: dict[str, Callable[[Path], object]] = {
    "too many zeros": lambda path: zeros_in_zip(path, "inputs.npy", 2**28 + 2**20),
    "two of them": lambda path: np.savez_compressed(
        path, inputs=np.zeros(2**27, np.uint8), logits=np.zeros(2**27 + 1, np.uint8)
    ),
    "bz2": lambda path: zeros_in_zip(path, "inputs.npy", 2**24, zipfile.ZIP_BZIP2),
    "lzma": lambda path: zeros_in_zip(path, "inputs.npy", 2**24, zipfile.ZIP_LZMA),
    "a header of terabytes": lambda path: zip_of_arrays(path, inputs=claiming((2**40,)), logits=claiming((4,))),
    "a header below nothing": lambda path: zip_of_arrays(path, inputs=claiming((-4,)), logits=claiming((4,))),
    "a header of many axes": lambda path: zip_of_arrays(path, inputs=claiming((1,) * 99), logits=claiming((4,))),
    "a header that is no Python": lambda path: zip_of_arrays(
        path, inputs=claiming((4,)).replace(b", }", b"((("), logits=claiming((4,))
    ),
}


def wav(path: Path, *, rate: int = 16_000, channels: int = 1, bits: int = 16, claims: int = 64, real: int = 64) -> None:
    """A WAV whose header claims ``claims`` bytes of samples, and that holds ``real`` bytes of silence."""
    width = channels * bits // 8
    kind = struct.pack("<HHIIHH", 1, channels % 2**16, rate, rate * width % 2**32, width % 2**16, bits)
    size = min(claims, 2**32 - 1)
    head = b"RIFF" + struct.pack("<I", min(size + 36, 2**32 - 1)) + b"WAVEfmt " + struct.pack("<I", 16) + kind
    path.write_bytes(head + b"data" + struct.pack("<I", size) + bytes(real))


def flac(path: Path, rate: int, channels: int, seconds: int) -> None:
    """Silence, which FLAC packs to nothing."""
    import soundfile

    with soundfile.SoundFile(path, "w", rate, channels, format="FLAC") as file:
        for _ in range(seconds):
            file.write(np.zeros((rate, channels), np.int16))


def flac_claiming(samples: int) -> bytes:
    """A FLAC whose header claims so many samples, before a frame of none."""
    told = (16_000 << 44) | (15 << 36) | samples  # rate, one channel of 16 bits, samples
    return b"fLaC\x80\0\0\x22" + struct.pack(">HH", 4096, 4096) + bytes(6) + struct.pack(">Q", told) + bytes(16)


def aiff_claiming(claims: int) -> bytes:
    """An AIFF at 16 kHz whose samples would take ``claims`` bytes."""
    common = struct.pack(">hIh", 1, claims // 2, 16) + b"\x40\x0c\xfa" + bytes(7)
    body = b"COMM" + struct.pack(">I", 18) + common + b"SSND" + struct.pack(">III", claims, 0, 0) + bytes(64)
    return b"FORM" + struct.pack(">I", min(claims + 54, 2**32 - 1)) + b"AIFF" + body


def chunks(path: Path, size: int) -> None:
    """A WAV with so many bytes of empty chunks between its format and its samples."""
    wav(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:36] + (b"junk" + bytes(4)) * (size // 8) + whole[36:])


# Refused, or decoded to what a spec may use of it: neither may take memory or time.
SOUNDS: dict[str, Callable[[Path], object]] = {
    "200 hours at 1 Hz": lambda path: wav(path, rate=1, claims=1_440_000, real=1_440_000),
    "4 GB claimed, 64 bytes there": lambda path: wav(path, claims=2**32 - 1),
    "4 GB claimed at 768 kHz in 64 channels": lambda path: wav(
        path, rate=768_000, channels=64, claims=2**32 - 1, real=2**20
    ),
    "65,535 channels": lambda path: wav(path, channels=65_535, claims=2**31),
    "no channels": lambda path: wav(path, channels=0),
    "4 GHz": lambda path: wav(path, rate=2**32 - 1, claims=2**20, real=2**20),
    "a rate of 0": lambda path: wav(path, rate=0),
    "0 bits": lambda path: wav(path, bits=0),
    "no samples": lambda path: wav(path, claims=0, real=0),
    "FLAC of an hour of silence": lambda path: flac(path, 8_000, 1, 3600),
    "FLAC of a minute of silence in 8 channels at 384 kHz": lambda path: flac(path, 384_000, 8, 60),
    "FLAC that claims 2^36 samples": lambda path: path.write_bytes(flac_claiming(2**36 - 1)),
    "200 MB of chunks before the samples": lambda path: chunks(path, 200 * 2**20),
    "a WAV of 10 GB": lambda path: sparse(path, b"RIFF\xff\xff\xff\xffWAVEfmt ", 10 * GIB),
    "a WAV of an hour that is there": lambda path: wav(path, claims=2 * 16_000 * 3600, real=2 * 16_000 * 3600),
    "AU that claims 2 GB": lambda path: path.write_bytes(
        b".snd" + struct.pack(">5I", 24, 2**31 - 2, 3, 16_000, 1) + bytes(64)
    ),
    "AIFF that claims 4 GB": lambda path: path.write_bytes(aiff_claiming(2**32 - 2)),
}
