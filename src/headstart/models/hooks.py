"""Hooks that are there for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def attached(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Inside, these hooks are called; afterwards they are gone, whatever happened."""
    with ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield
