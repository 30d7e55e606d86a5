"""What a function of the user's own does, told by its code: equal names alone tell too little."""

from __future__ import annotations

import functools
import hashlib
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))


def digest(function: Any) -> str:
    """SHA-256 over code, constants, defaults, what it closes over, and the constants and functions it takes from its
    module; of an object that can be called its class's code and its attributes."""
    found = hashlib.sha256()
    for part in _told(function, set()):
        found.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return found.hexdigest()


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
        yield from _all([value.__code__, value.__defaults__, value.__kwdefaults__], seen)
        yield from _all([cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)], seen)
        for name in sorted(_names(value.__code__) & value.__globals__.keys()):
            held = value.__globals__[name]
            if isinstance(held, (*PLAIN, tuple, types.FunctionType)):
                yield name
                yield from _told(held, seen)
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
        yield from (str(value.dtype), str(value.shape), hashlib.sha256(value.tobytes()).hexdigest())
    elif isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    else:
        yield from _object(value, seen)


def _object(value: Any, seen: set[int]) -> Iterator[str]:
    """Its class's code, and what it is made of: as its own repr tells it, which libraries write without what calls
    leave behind, else by its attributes. Generators of random numbers are known by their type."""
    yield type(value).__module__
    call = getattr(type(value), "__call__", None)  # noqa: B004
    if isinstance(call, types.FunctionType):
        yield from _told(call, seen)
    if type(value).__repr__ is not object.__repr__:
        yield re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    else:
        yield from _told(getattr(value, "__dict__", {}), seen)


def _all(values: Any, seen: set[int]) -> Iterator[str]:
    for value in values:
        yield from _told(value, seen)


def _names(code: types.CodeType) -> set[str]:
    """Names that it and what is defined inside take from the module."""
    inside = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_names, inside))


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # not yet
        return False
