"""What the command does with its own process: set up before torch is imported, and left without a detour."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

_codes: list[int] = []


def prepare() -> None:
    """Before torch is imported, by a process that is ours alone; a value that the user has set stays."""
    # Threads that spin at a barrier cost a factor of 1.4 to 4 as soon as anything else runs on the machine (measured: a
    # probe in 18 s instead of 24 to 80 s beside other work), and little when nothing does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Large tensors in pages of 2 MB, where Linux gives them: the kernel clears memory page by page whenever a tensor is
    # made, and in pages of 4 kB that was up to half of the time of a forward and backward pass.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    atexit.register(_end)  # what is registered first is called last


def leave(code: int) -> NoReturn:
    """Exit with ``code``; only for a process that called ``prepare``."""
    _codes.append(code)
    sys.exit(code)


def _end() -> None:
    """End here: all that others registered is done, and taking torch apart object by object would take a second."""
    if not _codes:  # an exception ends the process: the interpreter tells it
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # this too
        return
    os._exit(_codes[-1])
