"""The user's own network: a dotted name (``my_lab.nets.small``, a class or function), or a module handed over.

Attributes of the module that are used where they exist: ``spec`` (an ImageSpec, TextSpec or AudioSpec, which says what
it reads), ``blocks`` (module names in depth order), ``feature_dim``. Its output is taken as the features, pooled where
it is a map or a sequence; only the classifier of a torchvision, timm or transformers network is taken off. The module
itself is never changed: a copy is.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from headstart.core.errors import ArtefactError, BackboneError, HeadstartError, Problem
from headstart.core.registry import suggest
from headstart.data.modalities.audio import AudioSpec
from headstart.data.modalities.image import ImageSpec
from headstart.data.modalities.text import TextSpec
from headstart.data.texts import vocabulary
from headstart.models import surgery, trial, weights
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
    spec, origin = _wanted(_spec(module, uri), wanted), Origin(uri, "own", kind, sha256=weights.sha(wanted.weights))
    backbone = _wrap(module, spec, origin, architecture)
    if isinstance(spec, TextSpec):  # of what its tables hold too little for, a rare word would be the first to tell
        trial.features(backbone, _widest(spec))
    return backbone


def _widest(spec: TextSpec) -> torch.Tensor:
    """One row of as many tokens as there may be, from the first to the last of the vocabulary, int32 (1, 2, T)."""
    ids = torch.linspace(0, vocabulary.reader(spec.tokenizer).get_vocab_size() - 1, spec.max_length).int()
    return torch.stack([ids, torch.zeros_like(ids)])[None]


def _spec(module: nn.Module, uri: str) -> ImageSpec | TextSpec | AudioSpec:
    """What the module says that it reads; pictures of the usual size where it says nothing.

    Raises:
        BackboneError: its ``spec`` is something else. ConfigError: the tokenizer of a TextSpec cannot be read.
    """
    spec = getattr(module, "spec", None)
    if spec is None:
        return ImageSpec()
    if isinstance(spec, TextSpec):
        vocabulary.reader(spec.tokenizer, spec.max_length)
    if isinstance(spec, (ImageSpec, TextSpec, AudioSpec)):
        return spec
    what = f"its spec is {f'the class {spec.__name__}' if isinstance(spec, type) else f'a {type(spec).__name__}'}"
    remedy = "such as: spec = headstart.AudioSpec(rate=16_000), with its brackets; or a TextSpec or ImageSpec"
    raise BackboneError(what, where=f"{uri}.spec", remedy=remedy)


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
            remedy="in Python, with one of the same architecture: headstart.load(folder, allow_module=the_module); "
            "trained by name (--backbone my_lab.net), it opens on the line too",
        )
    if not allow_module:
        raise ArtefactError(
            f"the model stands on your own code, '{dotted}', which would have to be imported",
            remedy="if you trust the folder, add --allow-module to the line, or allow_module=True in Python",
        )
    module = _make(dotted)
    surgery.adapt_channels(module, architecture["channels"])
    return _wrap(module, spec, origin, architecture)


def _wrap(module: nn.Module, spec: Any, origin: Origin, architecture: Mapping[str, Any]) -> Backbone:
    blocks = getattr(module, "blocks", None)
    named = isinstance(blocks, (tuple, list)) and all(isinstance(name, str) for name in blocks)
    if named and blocks:
        _insist_blocks(module, blocks, origin.uri)
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


def _insist_blocks(module: nn.Module, blocks: Sequence[str], uri: str) -> None:
    """Every name is that of a part of the module."""
    parts = [name for name, _ in module.named_modules() if name]
    unknown = [f"'{name}'{suggest(name, parts)}" for name in blocks if name not in parts]
    if unknown:
        what = f"no part of the module is called {'; '.join(unknown)}"
        raise BackboneError(what, where=f"{uri}.blocks", remedy="print(*dict(module.named_modules())) lists its parts")


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
    """Import the module and call its last name.

    Raises:
        BackboneError: it cannot be imported, or its code fails, with the line in it.
    """
    place, _, attribute = dotted.rpartition(".")
    with _running(f"importing '{place}'"):
        try:
            found = getattr(importlib.import_module(place), attribute, None)
        except ModuleNotFoundError as error:
            if not f"{place}.".startswith(f"{error.name}."):  # it is found, and what it imports is not
                raise
            remedy = f"is its folder on PYTHONPATH? PYTHONPATH=. headstart …, where {place.partition('.')[0]} is here"
            raise BackboneError(f"cannot import '{place}' ({error})", where="backbone", remedy=remedy) from error
    if not callable(found):
        raise BackboneError(
            f"'{place}' has no class or function '{attribute}'",
            where="backbone",
            remedy="name what returns the network, such as my_lab.nets.small",
        )
    with _running(f"'{dotted}()'"):
        module = found()
    if not isinstance(module, nn.Module):
        raise BackboneError(f"'{dotted}' returns a {type(module).__name__}, not a torch module", where="backbone")
    return module


@contextlib.contextmanager
def _running(what: str) -> Iterator[None]:
    """The user's code runs inside: its mistakes are told with its own line."""
    try:
        yield
    except HeadstartError as error:
        where = trial.place(error)
        raise BackboneError(
            error.summary,
            problems=[Problem(each.what, each.where or where, each.remedy) for each in error.problems],
        ) from error
    except Exception as error:
        where = trial.place(error) or "backbone"
        raise BackboneError(f"{what} fails ({trial.told(error)})", where=where) from error
