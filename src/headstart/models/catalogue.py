"""The list of backbones that can be named, without touching the network."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator
from pathlib import Path

from headstart.core import registry
from headstart.core.errors import BackboneError
from headstart.models import lean, shipped
from headstart.models.wanted import Entry


def catalogue(pattern: str = "") -> list[Entry]:
    """Backbones whose name matches ``pattern``: a part of the name, or a glob such as ``timm/vit_*_dino*``.

    A pattern that names its library (``torchvision/…``, ``builtin/…``) avoids importing the others; of the Hub only the
    standard networks of texts and sounds are listed.
    """
    prefix = pattern.partition("/")[0] if "/" in pattern else ""
    sources = {"builtin": _builtin, "hub": _hub, "torchvision": _torchvision, "timm": _timm}
    chosen = [sources[prefix]] if prefix in sources else list(sources.values())
    return [entry for source in chosen for entry in source() if _matches(entry.name, pattern)]


def missing(pattern: str) -> BackboneError:
    """What is said where no name matches ``pattern``: with the nearest one, also by its name without the library."""
    names = [entry.name for entry in catalogue()]
    near = registry.suggest(pattern, names)
    if not near:
        bare = {name.partition("/")[2].partition(".")[0]: name for name in reversed(names)}
        close = difflib.get_close_matches(pattern.rpartition("/")[2], list(bare), n=1)
        near = f", did you mean '{bare[close[0]]}'?" if close else ""
    remedy = "`headstart models` lists all; a part of a name, or a pattern such as 'timm/resnet*', narrows them down"
    return BackboneError(f"no backbone is called '{pattern}'{near}", where="models", remedy=remedy)


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return fnmatch.fnmatch(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


def _builtin() -> Iterator[Entry]:
    """What ships with the package, and how it came to be; the tiny network is there for tests."""
    from headstart.models.backbones.builtin import WIDTHS, TinyNet

    for card in map(shipped.card, shipped.names()):
        yield Entry(card.uri, "builtin", card.name, card.parameters, True, card.about())
    for name, widths in WIDTHS.items():
        count = sum(parameter.numel() for parameter in TinyNet(widths).parameters())
        yield Entry(f"builtin/{name}", "builtin", "", count, True)


def _hub() -> Iterator[Entry]:
    """The standard networks of texts and sounds; any other on the Hub that transformers reads can be named too."""
    from headstart.models.download import hub_cached
    from headstart.models.loading import HUB_STANDARDS

    for modality, names in HUB_STANDARDS.items():
        for name in names:
            here = hub_cached(name, "model.safetensors") is not None
            yield Entry(name, "transformers", modality, None, here)


def _torchvision() -> Iterator[Entry]:
    models = lean.library("torchvision.models")

    from headstart.models.download import checkpoint

    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            here = checkpoint(weights.url).is_file()
            params = weights.meta.get("num_params")
            yield Entry(f"torchvision/{name}.{weights.name}", "torchvision", weights.name, params, here)


def _timm() -> Iterator[Entry]:
    """Networks with weights; timm counts parameters only by building, so they are left open."""
    timm = lean.library("timm")
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    for name in timm.list_pretrained():
        folder = cache / f"models--timm--{name}"
        here = any(folder.glob("snapshots/*/model.safetensors"))
        yield Entry(f"timm/{name}", "timm", name.partition(".")[2], None, here)
