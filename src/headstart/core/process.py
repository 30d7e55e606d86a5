"""What the command does with its own process: set up before torch is imported, and left without a detour."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of mallopt, see malloc.h


@dataclass
class _Own:
    """Whether the process is the command's own, and the code that it ends with."""

    prepared: bool = False
    code: int | None = None


_own = _Own()


def prepare() -> None:
    """Before torch is imported, by a process that is ours alone; a value that the user has set stays."""
    # Threads that spin at a barrier cost a factor of 1.4 to 4 as soon as anything else runs on the machine (measured: a
    # probe in 18 s instead of 24 to 80 s beside other work), and little when nothing does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Not at once, though: a network of 150 small layers meets at a barrier every other millisecond. This many turns
    # (tens of microseconds) made a training step of MobileNetV2 1.13 times faster alone, and .83 times as fast beside
    # other work, where spinning as long as GNU's OpenMP does by itself halved it.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    # Large tensors in pages of 2 MB, where Linux gives them: the kernel clears memory page by page whenever a tensor is
    # made, and in pages of 4 kB that was up to half of the time of a forward and backward pass.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # oneDNN keeps the kernels of 1,024 shapes: a fine-tuned language model meets more in every epoch, and made them all
    # anew, for an eighth of its time (126 batches of MiniLM-L6: 28.1 s a second epoch, 24.6 s with room for them). The
    # peak of memory was 3.1 GB, and 2.8 GB with room.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    _own.prepared = True
    atexit.register(_end)  # what is registered first is called last


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Large libraries are loaded inside, without a search for garbage.

    torch and torchvision make half a million objects that all stay; going through them again and again while they
    become more took a fifth of the time of importing both. In a process of our own no later search visits them either.
    """
    enabled = gc.isenabled()
    gc.disable()
    if _own.prepared:
        _keep_memory()
    try:
        yield
    finally:
        if _own.prepared:
            gc.freeze()
        if enabled:
            gc.enable()


def _keep_memory() -> None:
    """Memory that tensors gave back is used again, where the C library is glibc and the user has not set it up.

    By itself it gives blocks of 32 MB and more back to the kernel at once, which clears them again for the next tensor:
    a training step of ResNet-18 or MobileNetV2 took 1.1 to 1.2 times as long. Their peak of memory was the same to
    3 %. And every thread has a heap of its own, where what another thread gave back is of no use: a probe took 1.5 GB
    instead of 1.1, and up to .8 s longer, since new memory is the slowest there is.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    _mallopt({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1})
    one_heap()


def one_heap() -> None:
    """One heap for all threads, where the C library is glibc."""
    _mallopt({M_ARENA_MAX: 1})


def _mallopt(values: dict[int, int]) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            for name, value in values.items():
                libc.mallopt(name, value)


def leave(code: int) -> NoReturn:
    """Exit with ``code``; only for a process that called ``prepare``."""
    _own.code = code
    sys.exit(code)


def _end() -> None:
    """End here: all that others registered is done, and taking torch apart object by object would take a second."""
    if _own.code is not None:  # otherwise an exception ends the process, and the interpreter tells it
        with contextlib.suppress(OSError):  # it tells this too
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # as it is where it was closed before the start
                    stream.flush()
            os._exit(_own.code)
    gc.unfreeze()
