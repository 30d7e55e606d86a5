"""Large libraries loaded without a search for garbage meanwhile."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def swift() -> Iterator[None]:
    """No garbage collection inside.

    torch and torchvision make half a million objects that all stay; going through them again and again while they
    become more took a fifth of the time of importing both.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
