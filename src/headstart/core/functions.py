"""What a function of the user's own does, told by its code: equal names alone tell too little.

What is told is the same in every process of one Python version. Code of installed libraries is not looked into, their
objects are told by their repr and the functions that they hold.
"""

from __future__ import annotations

import functools
import hashlib
import re
import site
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
HELD = (*PLAIN, tuple, list, dict, set, frozenset, np.ndarray, types.FunctionType)  # what is told of a module's names

_before: ContextVar[dict[int, str] | None] = ContextVar("digests before anything was called", default=None)


def digest(function: Any) -> str:
    """SHA-256 over code, constants, defaults, what it closes over, and what it takes from modules of the user's own; of
    an object that can be called its class's code and its attributes too."""
    known = _before.get()
    if known is not None and id(function) in known:
        return known[id(function)]
    found = hashlib.sha256()
    try:
        for part in _told(function, set()):
            found.update(part.encode("utf-8", "backslashreplace") + b"\0")
    except Exception:  # whatever an object raises that is looked at: what was told until then has to do
        found.update(b"and more")
    if known is not None:
        known[id(function)] = found.hexdigest()
    return found.hexdigest()


@contextmanager
def as_they_were() -> Iterator[None]:
    """Inside, a function keeps the digest that it had at first, whatever its calls leave behind in it."""
    token = _before.set({})
    try:
        yield
    finally:
        _before.reset(token)


def inside(item: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The functions in dataclasses, mappings and lists, each with its place: ``plan.1.augment``."""
    if is_dataclass(item) and not isinstance(item, type) and not callable(item):
        parts = [(part.name, getattr(item, part.name)) for part in fields(item)]
    elif isinstance(item, Mapping):
        parts = [(str(key), value) for key, value in item.items()]
    elif isinstance(item, (list, tuple)):
        parts = [(str(index), value) for index, value in enumerate(item)]
    else:
        parts = []
        if callable(item):
            yield place, item
    for name, value in parts:
        yield from inside(value, f"{place}.{name}" if place else name)


def _told(value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, PLAIN):
        yield repr(value)
        return
    if id(value) in seen:  # a function that calls itself, a list that holds itself
        yield "again"
        return
    seen.add(id(value))
    yield type(value).__qualname__
    if isinstance(value, types.CodeType):
        yield value.co_code.hex()
        yield from (*value.co_names, *value.co_varnames, *value.co_freevars)
        yield from _all(value.co_consts, seen)
    elif isinstance(value, types.FunctionType):
        yield from _function(value, seen)
    elif isinstance(value, types.MethodType):
        yield from _all([value.__func__, value.__self__], seen)
    elif isinstance(value, functools.partial):
        yield from _all([value.func, value.args, value.keywords], seen)
    elif isinstance(value, dict):
        yield from _all([part for pair in value.items() for part in pair], seen)
    elif isinstance(value, (set, frozenset)):
        yield from sorted("\0".join(_told(part, set(seen))) for part in value)
    elif isinstance(value, (list, tuple)):
        yield from _all(value, seen)
    elif isinstance(value, np.ndarray):
        yield from _array(value, seen)
    elif hasattr(value, "detach") and hasattr(value, "numpy"):
        yield from _array(value.detach().cpu().numpy(), seen)
    elif isinstance(value, type):
        yield f"{value.__module__}.{value.__qualname__}"
        yield from _class(value, seen)
    elif isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
        yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    else:
        yield type(value).__module__
        yield from _class(type(value), seen)
        yield from _attributes(value, seen)


def _function(value: types.FunctionType, seen: set[int]) -> Iterator[str]:
    yield from _all([value.__code__, value.__defaults__, value.__kwdefaults__], seen)
    yield from _all([cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)], seen)
    asked = _names(value.__code__)
    for name in sorted(asked & value.__globals__.keys()):
        held = value.__globals__[name]
        if isinstance(held, HELD) or (isinstance(held, type) and _is_own(held.__module__)):
            yield name
            yield from _told(held, seen)
        elif isinstance(held, types.ModuleType) and _is_own(held.__name__):
            taken = {part: vars(held).get(part) for part in sorted(asked & vars(held).keys())}
            yield from _told({part: each for part, each in taken.items() if isinstance(each, HELD)}, seen)


def _array(value: np.ndarray, seen: set[int]) -> Iterator[str]:
    yield from (str(value.dtype), str(value.shape))
    if value.dtype.hasobject:  # whose bytes are places in memory
        yield from _all(value.ravel().tolist(), seen)
    else:
        yield hashlib.sha256(value.tobytes()).hexdigest()


def _class(value: type, seen: set[int]) -> Iterator[str]:
    """The functions of a class of the user's own, and of those of its bases that are."""
    for each in value.__mro__:
        for name, held in sorted(vars(each).items()) if _is_own(each.__module__) else ():
            functions = (getattr(held, "__func__", held), *(getattr(held, part, None) for part in ("fget", "fset")))
            for function in functions:
                if isinstance(function, types.FunctionType):
                    yield name
                    yield from _told(function, seen)


def _attributes(value: Any, seen: set[int]) -> Iterator[str]:
    """What an object holds; one of a library is told by its repr, without what calls leave behind, and by functions."""
    held = getattr(value, "__dict__", {})
    if _is_own(type(value).__module__) or type(value).__repr__ is object.__repr__:
        yield from _told(held, seen)
        return
    yield re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    for _, function in inside(held):
        yield from _told(function, seen)


def _all(values: Any, seen: set[int]) -> Iterator[str]:
    for value in values:
        yield from _told(value, seen)


def _names(code: types.CodeType) -> set[str]:
    """Names that it and what is defined inside take from modules."""
    within = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_names, within))


@functools.cache
def _libraries() -> tuple[Path, ...]:
    places = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    return tuple({Path(place).resolve() for place in places} - {Path(sysconfig.get_path("data")).resolve()})


def _is_own(module: str) -> bool:
    """Whether a module is the user's: neither built in nor installed."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module == "__main__" or module not in sys.modules
    place = Path(file).resolve()
    return not any(place.is_relative_to(each) for each in _libraries())


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # not yet
        return False
