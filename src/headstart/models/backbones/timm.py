"""Networks of timm, by name: ``timm/resnet18`` or, with the weights' tag, ``timm/resnet18.a1_in1k``.

Features are what the classifier saw (``pre_logits``). Preprocessing is the weights' own ``pretrained_cfg``. timm's
config folders, local or on the Hub, are read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from headstart.core import manifest
from headstart.core.errors import BackboneError
from headstart.core.registry import suggest
from headstart.data.modalities.image import RESAMPLING, ImageSpec
from headstart.models import download, lean, surgery, weights
from headstart.models.backbone import Backbone, Origin, SourceHead
from headstart.models.wanted import Wanted, resized


def load(name: str, wanted: Wanted) -> Backbone:
    """The network ``name`` with pretrained, given or random weights."""
    timm = lean.library("timm")

    arch = name.partition(".")[0]
    if not timm.is_model(arch):
        raise BackboneError(
            f"timm has no network '{arch}'{suggest(arch, timm.list_models())}",
            where="backbone",
            remedy=f"`headstart models timm/{arch[:4]}` searches",
        )
    tags = [entry for entry in timm.list_pretrained(f"{arch}.*") if entry.startswith(f"{arch}.")]
    if "." in name and name not in tags:
        raise BackboneError(f"timm has no weights '{name}'", where="backbone", remedy=f"known: {', '.join(tags)}")
    published = timm.get_pretrained_cfg(name)
    file, kind = _file(name, published, wanted)
    architecture: dict[str, Any] = {
        "library": "timm",
        "name": name,
        "model_args": {},
        "image_size": wanted.image_size,
        "channels": wanted.channels,
        "num_classes": None,
    }
    return _assemble(
        architecture, {}, file, f"timm/{name}", kind, str(getattr(published, "license", None) or ""), wanted
    )


def load_config(config: Mapping[str, Any], file: Path | None, uri: str, wanted: Wanted) -> Backbone:
    """A network described by timm's ``config.json``, with the weights beside it."""
    timm = lean.library("timm")

    name = str(config.get("architecture", ""))
    if not timm.is_model(name):
        raise BackboneError(f"timm has no network '{name}'", where=uri)
    cfg = dict(config.get("pretrained_cfg") or {})
    names = config.get("label_names") or cfg.get("label_names")
    overlay = {key: value for key, value in cfg.items() if key not in SOURCES} | {"label_names": names}
    architecture = {
        "library": "timm",
        "name": name,
        "model_args": _plain_args(config.get("model_args") or {}, uri),
        "image_size": wanted.image_size,
        "channels": wanted.channels,
        "num_classes": config.get("num_classes"),
    }
    kind = "random" if file is None else "pretrained"
    if wanted.weights is not None:
        file, kind = wanted.weights, f"file:{wanted.weights.name}"
    return _assemble(architecture, overlay, file, uri, kind, str(cfg.get("license") or ""), wanted)


def rebuild(architecture: Mapping[str, Any], spec: ImageSpec, origin: Origin) -> Backbone:
    """The same network with random weights, from what ``load`` recorded."""
    plain = {**architecture, "model_args": _plain_args(architecture["model_args"], origin.uri)}
    module = _create(plain, {}, None)
    classifier, _ = _bare(module)
    return Backbone(module, spec=spec, origin=origin, architecture=architecture, classifier=classifier)


def write_native(model: Any, folder: Path) -> str:
    """Write timm's ``config.json`` beside the weights; returns the line that opens the folder."""
    backbone = model.backbone
    architecture, spec, module = backbone.architecture, backbone.spec, backbone.module
    args = dict(architecture["model_args"])
    if architecture["channels"] != 3:
        args["in_chans"] = architecture["channels"]
    if architecture["image_size"] is not None and _sized(module):
        args["img_size"] = architecture["image_size"]
    modes = {"center": "center", "squash": "squash", "pad": "border"}
    cfg = {
        "tag": "headstart",
        "custom_load": False,
        "input_size": list(spec.input_shape),
        "fixed_input_size": bool(module.pretrained_cfg.get("fixed_input_size", False)),
        "interpolation": spec.interpolation,
        "crop_pct": min(spec.size) / spec.resize,
        "crop_mode": modes[spec.crop],
        "mean": list(spec.mean),
        "std": list(spec.std),
        "num_classes": len(model.classes),
        "first_conv": module.pretrained_cfg.get("first_conv"),
        "classifier": backbone.classifier,
    }
    config = {
        "architecture": architecture["name"].partition(".")[0],
        "num_classes": len(model.classes),
        "num_features": backbone.feature_dim,
        "label_names": list(model.classes),
        **({"model_args": args} if args else {}),
        "pretrained_cfg": cfg,
    }
    manifest.write_json(folder / "config.json", config)
    return 'timm.create_model("local-dir:path/to/this/folder", pretrained=True)'


SOURCES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "custom_load")


def _assemble(
    architecture: dict[str, Any],
    overlay: dict[str, Any],
    file: Path | None,
    uri: str,
    kind: str,
    licence: str,
    wanted: Wanted,
) -> Backbone:
    """Build, fill with the file's weights, take the classifier off, and wrap."""
    state = None if file is None else weights.read(file)
    module = surgery.seeded(wanted.seed, lambda: _create(architecture, overlay, state, where=str(file)))
    architecture["num_classes"] = module.num_classes
    spec = _spec(module)
    classifier, linear = _bare(module)
    head: SourceHead | None = None
    if linear is not None and state is not None and _has_classifier(state, module):
        head = weights.head_of(linear, _labels(module))
    return Backbone(
        module,
        spec=resized(spec, wanted),
        origin=Origin(uri, "timm", kind, licence=licence, sha256=weights.sha(file)),
        architecture=architecture,
        source_head=head,
        classifier=classifier,
    )


def _create(
    architecture: Mapping[str, Any], overlay: dict[str, Any], state: dict[str, Tensor] | None, where: str = ""
) -> Any:
    """timm's own construction and loading (position embeddings and first convolution adapted by timm itself)."""
    timm = lean.library("timm")

    options: dict[str, Any] = dict(architecture["model_args"])
    options |= {"num_classes": architecture["num_classes"]}
    if architecture["channels"] != 3:
        options["in_chans"] = architecture["channels"]
    cfg = dict(overlay)
    if state is not None:
        cfg |= {"state_dict": state, "custom_load": False}
        options["num_classes"] = _classes_in(state, architecture["name"]) or options["num_classes"]
    name, pretrained = architecture["name"], state is not None
    try:
        try:
            size = architecture["image_size"]
            module: Any = timm.create_model(
                name, pretrained, pretrained_cfg_overlay=cfg or None, **options, **({"img_size": size} if size else {})
            )
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            module = timm.create_model(name, pretrained, pretrained_cfg_overlay=cfg or None, **options)
    except (RuntimeError, KeyError) as error:
        if state is None:
            raise BackboneError(f"timm cannot build '{name}': {error}", where="backbone") from error
        classes = _classes_in(state, name)
        raise BackboneError(
            f"the weights do not fit timm's '{name}': {_first_lines(str(error))}"
            + (f"; the file's classifier has {classes} classes" if classes else ""),
            where=where,
            remedy="name the architecture the file was made from (`headstart models timm/` lists them)",
        ) from error
    module.pretrained_cfg.pop("state_dict", None)
    return module


def _bare(module: Any) -> tuple[str, nn.Linear | None]:
    """Take the classifier off: its name and layer, or ("", None) where it is not one linear layer."""
    name = module.pretrained_cfg.get("classifier")
    if isinstance(name, str) and isinstance(dict(module.named_modules()).get(name), nn.Linear):
        return name, surgery.take_off(module, name)
    module.reset_classifier(0)
    return "", None


def _has_classifier(state: Mapping[str, Tensor], module: Any) -> bool:
    return f"{module.pretrained_cfg['classifier']}.weight" in state or _classes_in(state, "") is not None


def _classes_in(state: Mapping[str, Tensor], name: str) -> int | None:
    """Rows of the classifier in a state dict, by timm's name for it; None where there is none."""
    timm = lean.library("timm")

    cfg = timm.get_pretrained_cfg(name) if name else None
    names = [cfg.classifier] if cfg is not None and isinstance(cfg.classifier, str) else []
    for classifier in [*names, "fc", "classifier", "head", "head.fc"]:
        weight = state.get(f"{classifier}.weight")
        if weight is not None and weight.dim() == 2:
            offset = (cfg.label_offset or 0) if cfg is not None else 0
            return len(weight) - offset if len(weight) > 1 else None
    return None


def _file(name: str, published: Any, wanted: Wanted) -> tuple[Path | None, str]:
    """The weights file to read (fetched when it is not here), and what to call it."""
    if wanted.weights is not None:
        return wanted.weights, f"file:{wanted.weights.name}"
    if not wanted.pretrained:
        return None, "random"
    if published is None or not published.has_weights:
        raise BackboneError(f"timm publishes no weights for '{name}'", where="backbone", remedy="pass pretrained=false")
    kind = f"pretrained:{published.tag}" if published.tag else "pretrained"
    if published.hf_hub_id:
        repo, _, revision = published.hf_hub_id.partition("@")
        for file in dict.fromkeys(["model.safetensors", published.hf_hub_filename or "pytorch_model.bin"]):
            found = download.hub_file(repo, file, revision=revision or None, offline=wanted.offline)
            if found is not None:
                return found, kind
        raise BackboneError(f"the Hub's '{repo}' holds no weights that timm reads", where="backbone")
    place = download.checkpoint(published.url)
    if not place.is_file():
        download.fetch(published.url, place, name=f"timm/{name}", offline=wanted.offline)
    return place, kind


def _spec(module: Any) -> ImageSpec:
    from timm.data import resolve_data_config

    data = resolve_data_config({}, model=module)
    height, width = data["input_size"][1:]
    modes = {"center": "center", "squash": "squash", "border": "pad"}
    interpolation = data["interpolation"] if data["interpolation"] in RESAMPLING else "bicubic"
    return ImageSpec(
        size=(height, width),
        resize=int(min(height, width) / data["crop_pct"]),
        crop=modes.get(data["crop_mode"], "center"),
        interpolation=interpolation,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _labels(module: Any) -> tuple[str, ...]:
    """Names of the classes the weights know, where timm knows them."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    names = module.pretrained_cfg.get("label_names")
    if names:
        described = module.pretrained_cfg.get("label_descriptions") or {}
        return tuple(str(described.get(name, name)) for name in (names.values() if isinstance(names, dict) else names))
    subset = infer_imagenet_subset(module)
    return tuple(str(name) for name in ImageNetInfo(subset).label_descriptions()) if subset else ()


def _sized(module: Any) -> bool:
    """Whether timm built the network for one image size (it then takes ``img_size``)."""
    return hasattr(getattr(module, "patch_embed", None), "img_size") or bool(
        module.pretrained_cfg.get("fixed_input_size")
    )


def _plain_args(args: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """A config file's ``model_args``: plain values only, and none that name files."""
    refused = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes"}
    try:
        return {key: json.loads(json.dumps(value)) for key, value in args.items() if key not in refused}
    except TypeError as error:
        raise BackboneError(f"model_args of the config are not plain values ({error})", where=uri) from error


def _first_lines(message: str) -> str:
    return " ".join(message.split())[:300]
