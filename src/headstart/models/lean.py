"""Imports without torch's compiler (``torch._dynamo``, with sympy and triton: 900 modules, .6 to 1.5 s).

torchvision and timm bring it along for one function of detection operators that wants to ask something when it is
called; transformers to tell it to leave functions alone, and for a class that masks of a rare kind are made with. What
it was to be told it is told when it is loaded.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
ASKED, QUESTION = f"{COMPILER}.utils", "is_compile_supported"
MASKS = f"{COMPILER}._trace_wrapped_higher_order_op"  # a module inside it that needs nothing of it


def library(name: str) -> Any:
    """A library, imported without torch's compiler, which is loaded as soon as somebody needs it."""
    with nullcontext() if name in sys.modules else without_compiler():
        return importlib.import_module(name)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, libraries are imported without torch's compiler, which is loaded if they need more of it than we know."""
    with _messenger.lock:
        if not _messenger.users and COMPILER not in sys.modules:
            for name, known in _KNOWN.items():
                sys.modules.setdefault(name, _Later(name, known))
            if _messenger not in sys.meta_path:
                sys.meta_path.insert(0, _messenger)
        _messenger.users += 1
    try:
        yield
    finally:
        with _messenger.lock:
            _messenger.users -= 1
            if not _messenger.users:
                _step_aside()


class _Later(ModuleType):
    """Stands for a module: what is ``known`` is answered, anything else gets the real one now."""

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.known = known
        self.__spec__ = ModuleSpec(name, None, is_package=name == COMPILER)
        if name == COMPILER:  # a package: where the modules inside it are
            self.__path__ = [str(Path(importlib.import_module("torch").__file__ or "").with_name("_dynamo"))]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__, self) is self and name in self.known:
            return self.known[name]
        return getattr(_real(self.__name__), name)


class _Messenger:
    """Stands at the compiler's door: what it was to be told it is told when it comes, and before that nobody gets a
    module inside it but ``MASKS``."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[Any], Any]] = []  # for the real compiler
        self.lock, self.users = threading.RLock(), 0  # of those inside ``without_compiler``

    def disable(self, fn: Any = None, *args: Any, **options: Any) -> Any:
        """A function that is left alone as soon as there is somebody to leave it alone."""
        if fn is None:
            return lambda fn: self.disable(fn, *args, **options)
        if not inspect.isfunction(fn):
            return _real(COMPILER).disable(fn, *args, **options)
        left: list[Any] = []
        self._tell(lambda compiler: left.append(compiler.disable(fn, *args, **options)))

        @functools.wraps(fn)
        def alone(*args: Any, **options: Any) -> Any:
            return (left[0] if left else fn)(*args, **options)

        return alone

    def allow_in_graph(self, fn: Any) -> Any:
        if not callable(fn):  # several, or a mistake
            return _real(COMPILER).allow_in_graph(fn)
        self._tell(lambda compiler: compiler.allow_in_graph(fn))
        return fn

    def assume_constant_result(self, fn: Any) -> Any:
        self._tell(lambda compiler: compiler.assume_constant_result(fn))
        return fn

    def _tell(self, told: Callable[[Any], Any]) -> None:
        compiler = sys.modules.get(COMPILER)
        if compiler is None or isinstance(compiler, _Later):
            self.waiting.append(told)
        else:
            told(compiler)

    def find_spec(self, name: str, path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """The compiler's, which tells it all that waits; of a module inside it, that of one that is there by then."""
        if name.startswith(f"{COMPILER}.") and name != MASKS and isinstance(sys.modules.get(COMPILER), _Later):
            _real(COMPILER)
            there = sys.modules.get(name)
            return None if there is None else _Given(there).spec
        spec = PathFinder.find_spec(name, path) if name == COMPILER else None
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def loaded(module: ModuleType) -> None:
                load(module)
                if MASKS in sys.modules:  # importlib makes it an attribute only of what was there
                    setattr(module, MASKS.rpartition(".")[2], sys.modules[MASKS])
                while self.waiting:
                    self.waiting.pop(0)(module)

            spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


class _Given(Loader):
    """Hands over a module that is there already; importlib would ask the module's own spec, and execute it again."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.before = module, module.__spec__
        self.spec = module.__spec__ = copy.copy(module.__spec__) or ModuleSpec(module.__name__, self)
        self.spec.loader = self

    def create_module(self, _spec: Any) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.before


_messenger = _Messenger()
_KNOWN: dict[str, dict[str, Any]] = {
    COMPILER: {name: getattr(_messenger, name) for name in ("disable", "allow_in_graph", "assume_constant_result")},
    ASKED: {QUESTION: lambda *args, **kwargs: getattr(_real(ASKED), QUESTION)(*args, **kwargs)},
}


def _step_aside() -> None:
    for name in _KNOWN:
        if isinstance(sys.modules.get(name), _Later):
            sys.modules.pop(name, None)


def _real(name: str) -> ModuleType:
    with _messenger.lock:
        _step_aside()  # all: the compiler imports its own modules
    return importlib.import_module(name)
