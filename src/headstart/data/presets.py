"""Augmentations by name: what is no preset of any kind of rows is told before any of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.core import registry
from headstart.core.errors import Problem

MODALITIES = "headstart.data.modalities"


def problems(augment: Any, where: str) -> list[Problem]:
    """What is wrong with the name that a setting gives, alone or as ``preset`` among others; policies know the rest.

    The modalities are imported one by one, until one knows the name.
    """
    name = augment.get("preset") if isinstance(augment, Mapping) else augment
    if not isinstance(name, str) or augment == "auto":
        return []
    known = {"auto": None}
    for kind in registry.names(MODALITIES):
        presets = registry.find(MODALITIES, kind).PRESETS
        if name in presets:
            return []
        known |= dict.fromkeys(presets)
    return [Problem(f"unknown preset '{name}'{registry.suggest(name, known)}", where, f"known: {', '.join(known)}")]
