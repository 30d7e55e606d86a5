"""A model's folder: written as a whole, sealed with a manifest, rebuilt without running code from it.

``model.safetensors`` (weights), ``headstart.json`` (what to rebuild), ``labels.json``, ``preprocess.json``,
``golden.npz`` (a few inputs with their logits), ``README.md``, and ``manifest.json``, written last. Where head and
pooling are native to the library, weights carry the library's own names and its config lies beside them, so that timm
or transformers open the folder too.

Shapes: B rows, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
import importlib
import math
import os
import re
import shutil
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import headstart
from headstart.core import arrays, manifest, registry
from headstart.core.errors import ArtefactError, BackboneError, HeadstartError, TrainingError
from headstart.core.storage import placed
from headstart.models import heads, proof, resume, weights
from headstart.models.backbone import Backbone, Origin
from headstart.models.card import card
from headstart.models.model import Model

FORMAT = 1
FILES = ("model.safetensors", "headstart.json", "labels.json", "preprocess.json", "golden.npz")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "headstart": str,
    "libraries": dict,
    "architecture": dict,
    "origin": dict,
    "blocks": list,
    "trailing": (list, type(None)),
    "stand_in_rows": (int, type(None)),
    "feature_dim": int,
    "classifier": str,
    "naming": str,
    "head": dict,
    "bn": str,
    "temperature": (int, float),
    "task": str,
    "threshold": (int, float),
}
SINGLE = {"task": "classify", "threshold": 0.5}  # what folders mean that were written before there were several labels
ARCHITECTURE_FIELDS = {  # of all libraries
    *("library", "name", "channels", "image_size"),
    *("model_args", "num_classes", "transform_input", "config", "pooling"),
}
HEAD_FIELDS = {"kind", "feature_dim", "num_classes", "hidden", "dropout"}
MODALITIES = "headstart.data.modalities"
LIBRARIES = ("torchvision", "timm", "transformers", "builtin", "own")
GOLDEN_BYTES = 2**28  # to which golden.npz may unpack: four pictures of 4,096 pixels a side fit
GOLDEN_TOLERANCE = 1e-3  # of the largest logit: other machines round differently


def save(model: Model, folder: Path, *, examples: Tensor | None = None, notes: str = "") -> Path:
    """Write ``model`` to ``folder``, replacing a model that is there.

    Args:
        examples: a few real inputs, uint8 (B, C, H, W), kept with their logits to check every later load.
        notes: Markdown appended to the README (results, data).

    Raises:
        ArtefactError: ``folder`` holds something that is not a model of ours.
    """
    if not 0 < model.temperature < math.inf:
        raise TrainingError(f"not written: the temperature is {model.temperature}", where=str(folder))
    if folder.exists() and any(folder.iterdir()) and not (folder / "headstart.json").is_file():
        raise ArtefactError("the folder is not empty and holds no model; nothing was written", where=str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed while it wrote
    draft = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    draft.mkdir()
    try:
        _write(model, draft, examples, notes)
        manifest.seal(draft)
        _swap(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def load(folder: Path, *, allow_module: bool | nn.Module = False) -> Model:
    """Read a model that ``save`` wrote, in eval mode; neither network nor the original weights are needed.

    Args:
        allow_module: consent to import the user's own module that the folder names (True), or that module itself.

    Raises:
        ArtefactError: damaged, incomplete, of a newer format, or its logits are not those it was saved with.
    """
    folder = Path(folder)
    manifest.check(folder, *FILES)
    facts = read_facts(folder)
    labels = manifest.read_json(folder / "labels.json")
    spec = _spec(manifest.read_json(folder / "preprocess.json"), folder)
    backbone = _rebuild(facts, spec, allow_module, folder)
    classes = labels.get("classes") if isinstance(labels, dict) else None
    if not isinstance(classes, list) or len(classes) != facts["head"]["num_classes"]:
        raise ArtefactError("labels.json and the head do not agree on the classes", where=str(folder))
    if facts["head"]["feature_dim"] != backbone.feature_dim:
        raise ArtefactError("the weights do not fit the description: the head reads other features", where=str(folder))
    head = heads.create(**facts["head"])
    kept = {name: facts[name] for name in ("bn", "temperature", "task", "threshold")}
    model = Model(backbone, head, classes, **kept)
    _load_weights(model, folder, facts["naming"])
    model.eval()
    _check_golden(model, folder)
    return model


def read_facts(folder: Path) -> dict[str, Any]:
    """``headstart.json``, checked: unknown keys, wrong types and newer formats are refused."""
    where = str(folder / "headstart.json")
    facts = manifest.read_json(folder / "headstart.json")
    if not isinstance(facts, dict):
        raise ArtefactError("not a model description", where=where)
    if isinstance(facts.get("format"), int) and facts["format"] > FORMAT:
        raise ArtefactError(
            f"written by a newer Headstart ({facts.get('headstart', '?')})", where=where, remedy="upgrade headstart"
        )
    facts = {**SINGLE, **facts}
    if isinstance(facts.get("origin"), dict):
        facts["origin"] = {"data": "", **facts["origin"]}  # older folders do not say it
    unknown, missing = sorted(set(facts) - set(FIELDS)), sorted(set(FIELDS) - set(facts))
    wrong = [key for key, kind in FIELDS.items() if key in facts and not isinstance(facts[key], kind)]
    if unknown or missing or wrong:
        raise ArtefactError(f"unknown keys {unknown}, missing {missing}, of a wrong type {wrong}", where=where)
    strange = _strange_parts(facts)
    if strange:
        raise ArtefactError("; ".join(strange), where=where)
    return facts


def _strange_parts(facts: dict[str, Any]) -> list[str]:
    """What in the parts of a description cannot be: checked before anything is built from it."""
    architecture, head = facts["architecture"], facts["head"]
    known = {"origin": {field.name for field in fields(Origin)}, "head": HEAD_FIELDS}
    found = [
        f"unknown or missing: {part}.{key}" for part, keys in known.items() for key in sorted(set(facts[part]) ^ keys)
    ]
    found += [f"origin.{key} is not a text" for key, value in facts["origin"].items() if not isinstance(value, str)]
    found += [f"unknown: architecture.{key}" for key in sorted(set(architecture) - ARCHITECTURE_FIELDS)]
    if architecture.get("library") not in LIBRARIES:
        found.append(f"unknown library {architecture.get('library')!r}")
    if not re.fullmatch(r"[\w./-]{0,200}", str(architecture.get("name", ""))):
        found.append("the architecture's name is not a name")
    limits = {"feature_dim": 1_000_000, "num_classes": 1_000_000, "hidden": 65_536}
    sizes = {f"head.{key}": (head.get(key), limit) for key, limit in limits.items()}
    sizes["architecture.channels"] = (architecture.get("channels"), 4096)
    sizes["architecture.image_size"] = (architecture.get("image_size") or 8, 8192)
    found += [f"{key} is not a size" for key, (n, limit) in sizes.items() if type(n) is not int or not 0 < n <= limit]
    if (
        head.get("kind") not in heads.KINDS
        or type(head.get("dropout")) not in (int, float)
        or not 0 <= head["dropout"] < 1
    ):
        found.append("the head is not one of ours")
    if facts["bn"] not in ("frozen_eval", "train", "eval") or facts["naming"] not in ("native", "headstart"):
        found.append("unknown bn or naming")
    if (
        facts["task"] not in registry.names("headstart.tasks")
        or type(facts["threshold"]) is bool
        or not 0 < facts["threshold"] < 1
    ):
        found.append("unknown task, or a threshold that is no probability")
    if type(facts["temperature"]) is bool or not 0 < facts["temperature"] < math.inf:
        found.append("the temperature is not a positive number")
    if not all(isinstance(name, str) for name in [*facts["blocks"], *(facts["trailing"] or ())]):
        found.append("blocks and trailing are lists of names")
    return found


def native_names(model: Model) -> bool:
    """Whether the library's own network with a linear classifier is this model exactly."""
    return bool(model.backbone.classifier) and isinstance(model.head, heads.Linear)


def state(model: Model) -> dict[str, Tensor]:
    """All weights by the names they are saved under, each with its own memory."""
    if not native_names(model):
        found = model.state_dict()
    else:
        name = model.backbone.classifier
        found = model.backbone.module.state_dict()
        found |= {f"{name}.weight": model.head.last.weight, f"{name}.bias": model.head.last.bias}
    return {key: value.detach().cpu().clone().contiguous() for key, value in found.items()}


def _write(model: Model, draft: Path, examples: Tensor | None, notes: str) -> None:
    native = native_names(model)
    weights.write(draft / "model.safetensors", state(model), metadata={"format": "pt"})
    manifest.write_json(draft / "headstart.json", _facts(model, native))
    manifest.write_json(draft / "labels.json", {"classes": list(model.classes)})
    seen = {"modality": model.backbone.modality, "spec": model.backbone.spec.to_json()}
    manifest.write_json(draft / "preprocess.json", seen)
    inputs = torch.from_numpy(model.backbone.spec.noise(2)) if examples is None else examples.cpu()
    logits = _reference(model, inputs)
    with placed(draft / "golden.npz"):
        np.savez_compressed(draft / "golden.npz", inputs=inputs.numpy(), logits=logits.numpy())
    library = importlib.import_module(f"headstart.models.backbones.{model.backbone.architecture['library']}")
    opened_by = library.write_native(model, draft) if native and hasattr(library, "write_native") else ""
    manifest.write_text(draft / "README.md", card(model, opened_by, notes))


def _reference(model: Model, inputs: Tensor) -> Tensor:
    """Logits (B, K) in fp32 on the CPU, as every later load computes them; the model stays where and as it is."""
    plain = all((value.device.type, value.dtype) == ("cpu", torch.float32) for value in model.parameters())
    exact = model if plain else copy.deepcopy(model).cpu().float()
    with resume.evaluating(exact), torch.no_grad(), torch.autocast("cpu", enabled=False):
        return exact(inputs).float()


def _facts(model: Model, native: bool) -> dict[str, Any]:
    backbone = model.backbone
    packages = ("torch", "torchvision", "timm", "transformers")
    return {
        "format": FORMAT,
        "headstart": headstart.__version__,
        "libraries": {name: version(name) for name in packages},
        "architecture": backbone.architecture,
        "origin": vars(backbone.origin),
        "blocks": list(backbone.blocks),
        "trailing": None if backbone.measured is None else sorted(backbone.measured.trailing),
        "stand_in_rows": backbone.stand_in_rows,
        "feature_dim": backbone.feature_dim,
        "classifier": backbone.classifier,
        "naming": "native" if native else "headstart",
        "head": model.head.settings(),
        "bn": model.bn,
        "temperature": float(model.temperature),
        "task": model.task,
        "threshold": float(model.threshold),
    }


def _swap(draft: Path, folder: Path) -> None:
    """Put ``draft`` in the place of ``folder``; the old model goes only after the new one stands."""
    old = folder.with_name(f".{folder.name}.tmp-old-{os.getpid()}")
    if folder.exists():
        os.replace(folder, old)
    os.replace(draft, folder)
    shutil.rmtree(old, ignore_errors=True)


def _spec(stored: Any, folder: Path) -> Any:
    try:
        if stored["modality"] not in registry.names(MODALITIES):
            raise ValueError(f"unknown modality {stored['modality']!r}")
        return registry.find(MODALITIES, stored["modality"]).Spec.from_json(stored["spec"])
    except (TypeError, KeyError, ValueError, AttributeError, HeadstartError) as error:
        place = str(folder / "preprocess.json")
        raise ArtefactError(f"not a preprocessing description ({error})", where=place) from error


def _rebuild(facts: dict[str, Any], spec: Any, allow_module: bool | nn.Module, folder: Path) -> Backbone:
    architecture = facts["architecture"]
    library = importlib.import_module(f"headstart.models.backbones.{architecture['library']}")
    own = architecture["library"] == "own"
    consent = (allow_module,) if own else ()
    try:
        rebuilt = library.rebuild(architecture, spec, Origin(**facts["origin"]), *consent)
    except (BackboneError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError) as error:
        if own and isinstance(error, BackboneError):  # the user's code, and not the folder
            raise
        where = str(folder / "headstart.json")
        raise ArtefactError(f"the network cannot be rebuilt ({type(error).__name__}: {error})", where=where) from error
    known = dict(rebuilt.module.named_modules())
    if not facts["blocks"] or not all(name in known for name in facts["blocks"]):
        raise ArtefactError("its blocks are not in the rebuilt network", where=str(folder / "headstart.json"))
    rebuilt.blocks = tuple(facts["blocks"])
    rebuilt.measured = None if facts["trailing"] is None else proof.Outside(frozenset(facts["trailing"]))
    rebuilt.stand_in_rows = facts["stand_in_rows"]
    return rebuilt


def _load_weights(model: Model, folder: Path, naming: str) -> None:
    file = folder / "model.safetensors"
    found = weights.read(file)
    backbone = model.backbone
    try:
        if naming == "native":
            head = {kind: found.pop(f"{backbone.classifier}.{kind}") for kind in ("weight", "bias")}
            model.head.last.load_state_dict(head)
            backbone.module.load_state_dict(found)
        else:
            model.load_state_dict(found)
    except (RuntimeError, KeyError) as error:
        raise ArtefactError(f"the weights do not fit the description: {str(error)[:300]}", where=str(file)) from error


def _check_golden(model: Model, folder: Path) -> None:
    stored = arrays.read(folder / "golden.npz", limit=GOLDEN_BYTES)
    try:
        inputs, logits = torch.from_numpy(stored["inputs"]), torch.from_numpy(stored["logits"])
        with torch.no_grad():
            gap = (model(inputs) - logits).abs().max().item()
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ArtefactError(f"does not fit the model ({error})", where=str(folder / "golden.npz")) from error
    if not gap <= GOLDEN_TOLERANCE * max(1.0, logits.abs().max().item()):
        raise ArtefactError(
            f"the rebuilt model answers differently from the saved one (by {gap:.2g})",
            where=str(folder),
            remedy="use the library versions that headstart.json names, and for your own network the code of then",
        )
