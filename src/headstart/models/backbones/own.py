"""The user's own network: a dotted name (``my_lab.nets.small``, a class or function), or a module handed over.

Attributes of the module that are used where they exist: ``spec`` (an ImageSpec, TextSpec or AudioSpec, which says what
it reads), ``blocks`` (module names in depth order), ``feature_dim``. Its output is taken as the features, pooled where
it is a map or a sequence; only the classifier of a torchvision, timm or transformers network is taken off. The module
itself is never changed: a copy is.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from headstart.core.errors import ArtefactError, BackboneError
from headstart.data.modalities.audio import AudioSpec
from headstart.data.modalities.image import ImageSpec
from headstart.data.modalities.text import TextSpec
from headstart.models import surgery, weights
from headstart.models.backbone import Backbone, Origin
from headstart.models.wanted import Wanted, resized


def load(name: str | nn.Module, wanted: Wanted) -> Backbone:
    """The module called ``name``, or the module itself."""
    if isinstance(name, nn.Module):
        module, uri, dotted, kind = copy.deepcopy(name), f"object:{type(name).__name__}", "", "given"
    else:
        module, uri, dotted, kind = surgery.seeded(wanted.seed, lambda: _make(name)), name, name, "random"
    if wanted.weights is not None:
        weights.install(module, weights.read(wanted.weights), classifier="", where=str(wanted.weights))
        kind = f"file:{wanted.weights.name}"
    elif dotted and wanted.pretrained:
        kind = "its own"  # what its constructor put in: the user's code may have loaded anything
    surgery.adapt_channels(module, wanted.channels)
    architecture = {"library": "own", "name": dotted, "channels": wanted.channels}
    spec = getattr(module, "spec", None)
    known = isinstance(spec, (ImageSpec, TextSpec, AudioSpec))
    return _wrap(
        module,
        _wanted(spec if known else ImageSpec(), wanted),
        Origin(uri, "own", kind, sha256=weights.sha(wanted.weights)),
        architecture,
    )


def _wanted(spec: Any, wanted: Wanted) -> Any:
    """The module's spec with what the user asked for."""
    if isinstance(spec, ImageSpec):
        return resized(spec, wanted)
    if isinstance(spec, TextSpec):
        return replace(spec, max_length=wanted.max_length or spec.max_length)
    return replace(spec, seconds=wanted.seconds or spec.seconds)


def rebuild(architecture: Mapping[str, Any], spec: Any, origin: Origin, allow_module: bool | nn.Module) -> Backbone:
    """The module that a saved model names; importing it needs the user's consent.

    Raises:
        ArtefactError: no consent was given, or the module was handed over as an object and must be given again.
    """
    dotted = str(architecture["name"])
    if isinstance(allow_module, nn.Module):
        module = copy.deepcopy(allow_module)
        surgery.adapt_channels(module, architecture["channels"])
        return _wrap(module, spec, origin, architecture)
    if not dotted:
        raise ArtefactError(
            f"the model stands on a module that was given as an object ({origin.uri})",
            remedy="pass one of the same architecture: load(folder, allow_module=the_module)",
        )
    if not allow_module:
        raise ArtefactError(
            f"the model stands on your own code, '{dotted}', which would have to be imported",
            remedy="allow it, if you trust the folder: load(folder, allow_module=True)",
        )
    module = _make(dotted)
    surgery.adapt_channels(module, architecture["channels"])
    return _wrap(module, spec, origin, architecture)


def _wrap(module: nn.Module, spec: Any, origin: Origin, architecture: Mapping[str, Any]) -> Backbone:
    blocks = getattr(module, "blocks", None)
    named = isinstance(blocks, (tuple, list)) and all(isinstance(name, str) for name in blocks)
    dim = getattr(module, "feature_dim", None)
    classifier = _classifier(module)
    linear = surgery.take_off(module, classifier) if classifier else None
    return Backbone(
        module,
        spec=spec,
        origin=origin,
        architecture=architecture,
        blocks=tuple(blocks) if named and blocks else None,
        feature_dim=dim if isinstance(dim, int) else None,
        source_head=None if linear is None else weights.head_of(linear, ()),
        classifier=classifier,
    )


def _classifier(module: nn.Module) -> str:
    """Name of the classifier of a known library's network; "" for everybody else's, whose output counts."""
    library = type(module).__module__.partition(".")[0]
    if library == "timm":
        name = getattr(module, "pretrained_cfg", {}).get("classifier")
        known = isinstance(name, str) and isinstance(dict(module.named_modules()).get(name), nn.Linear)
        return str(name) if known else ""
    ends_in_logits = library == "torchvision" or type(module).__name__.endswith("ForImageClassification")
    if library in ("torchvision", "transformers") and ends_in_logits and type(module).__name__ != "SqueezeNet":
        return surgery.last_linear(module)
    return ""


def _make(dotted: str) -> nn.Module:
    """Import the module and call its last name."""
    place, _, attribute = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(place), attribute, None)
    except ImportError as error:
        raise BackboneError(
            f"cannot import '{place}' ({error})", where="backbone", remedy="is its folder on PYTHONPATH?"
        ) from error
    if not callable(found):
        raise BackboneError(
            f"'{place}' has no class or function '{attribute}'",
            where="backbone",
            remedy="name what returns the network, such as my_lab.nets.small",
        )
    module = found()
    if not isinstance(module, nn.Module):
        raise BackboneError(f"'{dotted}' returns a {type(module).__name__}, not a torch module", where="backbone")
    return module
