"""From what the user typed to a backbone: which library a name means, and what is taken when nothing is named."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from headstart.core import registry
from headstart.core.errors import BackboneError
from headstart.models.backbone import Backbone
from headstart.models.wanted import Wanted

PREFIXES = ("torchvision", "timm", "builtin")


def load(
    name: str | nn.Module,
    *,
    weights: str | Path | None,
    image_size: int | None,
    channels: int,
    pretrained: bool,
    offline: bool,
    seed: int,
) -> Backbone:
    """See ``backbone.load``."""
    file = None if weights is None else Path(weights).expanduser()
    wanted = Wanted(file, image_size, channels, pretrained, offline, seed)
    library, rest = ("own", name) if isinstance(name, nn.Module) else resolve(str(name))
    return registry.find("headstart.models.backbones", library).load(rest, wanted)


def resolve(name: str) -> tuple[str, str]:
    """Which file of ``backbones/`` reads ``name``, and the name without its prefix.

    Raises:
        BackboneError: the name means nothing we know.
    """
    if Path(name).expanduser().exists():
        return "local", name
    prefix, _, rest = name.partition("/")
    if rest:
        return (prefix, rest) if prefix in PREFIXES else ("transformers", name)
    if "." in name:
        return "own", name
    raise BackboneError(
        f"'{name}' is not a backbone",
        where="backbone",
        remedy=f"did you mean torchvision/{name} or timm/{name}? `headstart models {name}` searches",
    )


def default(offline: bool) -> tuple[str, str]:
    """The best of a short list whose weights are on this machine, else the built-in stand-in."""
    return "builtin/tiny", "no pretrained weights are on this machine; builtin/tiny has random weights"
