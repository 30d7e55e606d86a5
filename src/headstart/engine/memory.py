"""When memory runs out: halve the micro-batch, keep the effective batch, say so.

There is no separate search for a batch size: it would measure an empty machine. The step itself is repeated with
smaller parts, from the same weights, buffers and random state, so that the result is the one of a run that had started
with them.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from headstart.core.errors import TrainingError
from headstart.core.events import Notice

Outcome = TypeVar("Outcome")

_MESSAGES = (  # of RuntimeError, lower case; only texts that mean memory and nothing else
    "out of memory",  # CUDA, HIP, XPU, MPS: "MPS backend out of memory", "CUDA error: out of memory"
    "can't allocate memory",  # CPU: "DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    "defaultcpuallocator: not enough memory",  # the same on Windows
    "cannot allocate memory",  # ENOMEM, such as of a memory map
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "invalid buffer size",  # MPS, a single tensor larger than a buffer may be
    "std::bad_alloc",
)


def is_exhausted(error: BaseException) -> bool:
    """Whether this error (or its cause) says that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, (RuntimeError, OSError)) and any(text in str(error).lower() for text in _MESSAGES):
        return True
    return error.__cause__ is not None and is_exhausted(error.__cause__)


def split(batch: int, micro: int) -> list[slice]:
    """A batch of ``batch`` rows in the fewest parts of at most ``micro`` rows, sizes as equal as can be.

    (9 rows by 4 are 3 + 3 + 3, not 4 + 4 + 1: BatchNorm cannot train on a part of one row.)
    """
    parts = max(1, -(-batch // micro))
    edges = [index * batch // parts for index in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def halving(
    attempt: Callable[[int], Outcome],
    micro: int,
    *,
    rewind: Callable[[], None] = lambda: None,
    on_halved: Callable[[int], None] = lambda micro: None,
    where: str = "training",
) -> tuple[Outcome, int]:
    """Call ``attempt(micro)``; each time memory runs out, ``rewind()`` and call it with half as many rows.

    At most log2(micro) repeats; ``on_halved`` is told the new micro-batch.

    Returns:
        The outcome, and the micro-batch that worked: keep it for what follows.

    Raises:
        TrainingError: even one row does not fit.
    """
    while True:
        try:
            return attempt(micro), micro
        except Exception as error:
            if not is_exhausted(error):
                raise
            if micro <= 1:
                why = (str(error).splitlines() or [type(error).__name__])[0]
                raise TrainingError(
                    f"memory is exhausted by a single row ({why})",
                    where=where,
                    remedy="thaw fewer blocks, smaller inputs (image_size, max_length, seconds) or another backbone",
                ) from error
        # Outside the except clause: the traceback, whose frames hold the failed attempt's tensors, is gone.
        micro //= 2
        release()
        rewind()
        on_halved(micro)


def told(micro: int) -> Notice:
    """What the user is told of a smaller part."""
    message = f"memory was exhausted: parts of {micro} rows from now on; what is computed stays the same"
    return Notice("warning", "memory", message)


def release() -> None:
    """Give memory of dropped tensors back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def rewinder(module: nn.Module) -> Callable[[], None]:
    """Remember what a failed forward and backward pass leave changed; the function returned brings it back.

    That is: buffers of modules in training mode (BatchNorm's running statistics), gradients (dropped) and the random
    state of CPU and device.
    """
    training = [each for each in module.modules() if each.training]
    buffers = [(each, each.detach().clone()) for part in training for each in part.buffers(recurse=False)]
    random = rng_state()

    def rewind() -> None:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter in module.parameters():
            parameter.grad = None
        set_rng_state(random)

    return rewind


def rng_state() -> dict[str, torch.Tensor]:
    """Random state of torch, by device."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor]) -> None:
    """Put back what ``rng_state`` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])
