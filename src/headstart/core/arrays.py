"""Arrays from .npz files that others may have written: their sizes are looked at before anything is unpacked.

A zip of one megabyte can unpack to a terabyte, and so can the header of an array claim; numpy would believe both.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from headstart.core.errors import ArtefactError

# What numpy and zipfile raise on damaged files; RuntimeError where a flipped bit says that a member is encrypted,
# the last two where the header of an array is no Python.
UNREADABLE: tuple[type[Exception], ...]
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
UNREADABLE += (SyntaxError, tokenize.TokenError)


def read(path: str | Path, *, limit: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; never pickled ones.

    Args:
        limit: bytes to which the file may unpack; by default no more than it takes itself, as it does where nothing
            in it is compressed.

    Raises:
        ArtefactError: the file is missing, damaged, unpacks to more, or holds an array that claims more than is there.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            most = Path(path).stat().st_size if limit is None else limit
            claimed = sum(member.file_size for member in members)
            if claimed > most:
                raise ArtefactError(f"unpacks to {claimed:,} bytes, more than {most:,}", where=str(path))
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except UNREADABLE as error:
        raise ArtefactError(f"cannot be read ({error})", where=str(path)) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack as much as they like
        raise ValueError(f"{member.filename} is compressed in a way that numpy does not write")
    with archive.open(member) as file:
        npy.read_magic(file)
        shape, _, kind = npy.read_array_header_1_0(file)  # the version of every array whose dtype is plain
        claimed = math.prod(shape) * kind.itemsize
        if not 0 <= claimed <= member.file_size:
            raise ValueError(f"{member.filename} claims {claimed:,} bytes and has {member.file_size:,}")
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)
