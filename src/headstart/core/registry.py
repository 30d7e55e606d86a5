"""A folder of alternatives is its own registry: the file name is the name the user types."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from types import ModuleType

from headstart.core.errors import ConfigError


@cache
def names(package: str) -> tuple[str, ...]:
    """The alternatives in ``package`` (such as ``headstart.stages.methods``), found once, without importing them."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return tuple(sorted(module.name for module in found if module.name != "base"))


def find(package: str, name: str, *, where: str = "") -> ModuleType:
    """The module called ``name`` in ``package``; a dotted name is the user's own module, imported as it is.

    Raises:
        ConfigError: no such alternative; the message suggests the nearest.
    """
    if "." in name:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"cannot import '{name}' ({error})", where=where, remedy="is its folder on PYTHONPATH?"
            ) from error
    known = names(package)
    if name not in known:
        kind = package.rpartition(".")[2]
        raise ConfigError(
            f"unknown name '{name}' among the {kind}{suggest(name, known)}",
            where=where,
            remedy=f"known: {', '.join(known)}",
        )
    return importlib.import_module(f"{package}.{name}")


def suggest(word: str, choices: Iterable[str]) -> str:
    """``", did you mean 'blocks'?"`` for the nearest choice, or nothing."""
    close = difflib.get_close_matches(str(word), list(choices), n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""
