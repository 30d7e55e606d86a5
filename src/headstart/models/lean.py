"""Imports without torch's compiler (``torch._dynamo``, with sympy and triton: 900 modules, .6 to 1.5 s).

torchvision and timm bring it along for one function of detection operators that wants to ask something when it is
called; transformers to tell it to leave a function alone, which a compiler that nobody has loaded does anyway, and for
a class that masks of a rare kind are made with.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
ASKED, QUESTION = f"{COMPILER}.utils", "is_compile_supported"
MASKS, INDEX = f"{COMPILER}._trace_wrapped_higher_order_op", "TransformGetItemToIndex"


class _Later(ModuleType):
    """Stands for a module: what is ``known`` is answered, anything else gets the real one now."""

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.known = known

    def __getattr__(self, name: str) -> Any:
        if name in self.known:
            return self.known[name]
        if name.startswith("__") and not (name == "__path__" and self.__name__ == COMPILER):  # it has modules inside
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def library(name: str) -> Any:
    """A library, imported without torch's compiler, which is loaded as soon as somebody needs it."""
    with without_compiler():
        return importlib.import_module(name)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, libraries are imported without torch's compiler, which is loaded if they need more of it than we know."""
    for name, known in {} if COMPILER in sys.modules else _KNOWN.items():
        sys.modules.setdefault(name, _Later(name, known))
    try:
        yield
    finally:
        for name in _KNOWN:
            _step_aside(name)


def _same(fn: Callable[..., Any] | None = None, *_args: Any, **_options: Any) -> Any:
    """A decorator that tells the compiler something, of one that is not there."""
    return (lambda fn: fn) if fn is None else fn


def _when_called(module: str, name: str) -> Callable[..., Any]:
    """What ``module`` calls so, looked up when it is called."""
    return lambda *args, **kwargs: getattr(_real(module), name)(*args, **kwargs)


_KNOWN = {
    COMPILER: dict.fromkeys(("disable", "assume_constant_result", "allow_in_graph"), _same),
    MASKS: {INDEX: _when_called(MASKS, INDEX)},
    ASKED: {QUESTION: _when_called(ASKED, QUESTION)},
}


def _step_aside(name: str) -> None:
    if isinstance(sys.modules.get(name), _Later):
        del sys.modules[name]


def _real(name: str) -> ModuleType:
    _step_aside(name)
    return importlib.import_module(name)
