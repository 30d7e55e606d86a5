"""SIGINT, SIGTERM and a closed terminal's SIGHUP end a run where nothing is lost: training finishes its step and writes
a checkpoint first.

Outside ``deferred`` the first signal raises at once, as Ctrl-C does: everything written there is written atomically.
Inside it is only noted, and ``check`` raises where the work is in order. A second SIGINT or SIGTERM ends the process at
once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end; no ``except Exception`` may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _Watch:
    noted = 0  # the signal that came, or 0
    deferring = 0  # depth


@contextmanager
def watched() -> Iterator[None]:
    """Take ``SIGNALS`` over while inside; handlers that the embedding program (or ``nohup``) has set stay its own.

    Only the main thread receives signals: in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number, handler in before.items() if handler in defaults]
    for number in ours:
        signal.signal(number, _note)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])
        if ours:
            _Watch.noted = 0


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that comes inside is noted and raises nothing by itself."""
    _Watch.deferring += 1
    try:
        yield
    finally:
        _Watch.deferring -= 1


def noted() -> bool:
    """Whether a signal asked for the end."""
    return bool(_Watch.noted)


def is_deferred() -> bool:
    return bool(_Watch.deferring)


def check() -> None:
    """Raise where the work is in order.

    Raises:
        Interrupted: a signal asked for the end.
    """
    if _Watch.noted:
        raise Interrupted(_Watch.noted)


def _note(number: int, frame: FrameType | None) -> None:
    if _Watch.noted:
        if number not in (signal.SIGINT, signal.SIGTERM):  # a shell and the kernel both tell of a closed terminal
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _Watch.noted = number
    if not _Watch.deferring:
        raise Interrupted(number)
