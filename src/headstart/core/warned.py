"""Warnings of the Python API, each at the line of the user's own that it is about."""

from __future__ import annotations

import inspect
import warnings

PACKAGE = __name__.partition(".")[0]


def warn(message: str) -> None:
    """A UserWarning that points at the first frame outside of this package.

    Python 3.12 has ``skip_file_prefixes`` for that.
    """
    frame, level = inspect.currentframe(), 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
