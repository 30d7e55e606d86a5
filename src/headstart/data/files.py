"""Reading one of the user's files without ever waiting on it, changing it, or being filled by it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from headstart.data.modalities.base import DecodeError

MAX_FILE_BYTES = 512 * 2**20
_CODES = {
    errno.EACCES: ("permission", "may not be read (permission denied)"),
    errno.EPERM: ("permission", "may not be read (not permitted)"),
    errno.ELOOP: ("link-loop", "is a symbolic link that leads to itself"),
    errno.ENAMETOOLONG: ("name-too-long", "has a name that this file system does not take"),
    errno.ENOTDIR: ("vanished", "lies below something that is not a folder"),
    errno.EISDIR: ("is-a-folder", "is a folder, not a file"),
}


def read_bytes(path: str | os.PathLike[str], *, limit: int = MAX_FILE_BYTES) -> bytes:
    """The whole content of a regular file, opened without blocking (a FIFO has no writer to wait for).

    Raises:
        DecodeError: with one of the codes empty-file, vanished, dangling-link, link-loop, is-a-folder, not-a-file,
            permission, name-too-long, bad-name, file-too-large, changed-while-reading, io-error.
    """
    name = os.fspath(path)
    try:
        handle = _open_regular(name)
        with os.fdopen(handle, "rb") as file:
            before = os.fstat(handle)
            if before.st_size > limit:
                size = f"{before.st_size / 2**20:.0f} MB, more than {limit / 2**20:.0f} MB"
                raise DecodeError("file-too-large", f"is too large ({size})", where=name)
            content = file.read(before.st_size + 1)  # what is asked for is reserved, whatever there is to read
            after = os.fstat(handle)
    except OSError as error:
        raise _refusal(name, error) from error
    except ValueError as error:  # an embedded NUL, or a name that cannot be encoded
        raise DecodeError("bad-name", f"has a name that cannot be opened ({error})", where=repr(name)) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(content) != after.st_size:
        raise DecodeError("changed-while-reading", "was changed while it was read", where=name)
    if not content:
        raise DecodeError("empty-file", "is empty (0 bytes)", where=name)
    return content


def _open_regular(name: str) -> int:
    """A descriptor of a regular file; anything else is refused before it is opened (opening a device may act)."""
    _demand_regular(name, os.stat(name))
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _demand_regular(name, os.fstat(handle))  # it may have been swapped in between
    except DecodeError:
        os.close(handle)
        raise
    return handle


def _demand_regular(name: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise DecodeError("is-a-folder", "is a folder, not a file", where=name)
    if not stat.S_ISREG(found.st_mode):
        raise DecodeError("not-a-file", "is not a regular file (a pipe, socket or device)", where=name)


def _refusal(name: str, error: OSError) -> DecodeError:
    if error.errno == errno.ENOENT:
        if Path(name).is_symlink():
            return DecodeError("dangling-link", "is a symbolic link to a file that is not there", where=name)
        return DecodeError("vanished", "is not there (moved or deleted?)", where=name)
    code, message = _CODES.get(error.errno or 0, ("io-error", f"cannot be read ({error.strerror or error})"))
    return DecodeError(code, message, where=name)
