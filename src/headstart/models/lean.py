"""Imports without what they bring along and do not need.

Of the second that importing torchvision takes after torch, nearly all goes into torch's compiler (``torch._dynamo``,
with sympy and triton: 900 modules), of which one function of torchvision's detection operators wants to ask something
when it is called.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

ASKED, QUESTION = "torch._dynamo.utils", "is_compile_supported"


class _Later(ModuleType):
    """Stands for ``torch._dynamo.utils``: its one question is passed on when it is asked, anything else gets it now."""

    def __getattr__(self, name: str) -> Any:
        if name == QUESTION:
            return lambda *args, **kwargs: getattr(_real(), QUESTION)(*args, **kwargs)
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(), name)


def torchvision_models() -> Any:
    """``torchvision.models``, imported without torch's compiler, which is loaded as soon as somebody needs it."""
    if ASKED not in sys.modules and "torchvision" not in sys.modules:
        sys.modules[ASKED] = _Later(ASKED)
    try:
        from torchvision import models
    finally:
        _step_aside()
    return models


def _step_aside() -> None:
    if isinstance(sys.modules.get(ASKED), _Later):
        del sys.modules[ASKED]


def _real() -> ModuleType:
    _step_aside()
    return importlib.import_module(ASKED)
