"""Networks of transformers: a Hub id (``google/vit-base-patch16-224``) or a ``save_pretrained`` folder.

Features of pictures are what the family's own image-classification head sees: the class token (ViT, DeiT), class token
and mean patch (DINOv2, twice as wide), the pooled maps or tokens (ConvNeXt, Swin, ResNet, BEiT …). A family without
such a head gives its ``pooler_output``, else its mean token. What is particular about texts and sounds stands in
``families/``. Weights are always fp32, whatever the checkpoint's type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from headstart.core import manifest, registry
from headstart.core.errors import BackboneError
from headstart.models import download, lean, surgery, weights
from headstart.models.backbone import Backbone, Origin
from headstart.models.families import text
from headstart.models.wanted import Wanted

FAMILIES = "headstart.models.families"

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def load(name: str, wanted: Wanted) -> Backbone:
    """The Hub's model ``owner/name`` (optionally ``@revision``)."""
    repo, _, revision = name.partition("@")
    at = {"revision": revision or None, "offline": wanted.offline}
    config = download.hub_file(repo, "config.json", **at)  # type: ignore[arg-type]
    if config is None:
        raise BackboneError(f"the Hub's '{repo}' has no config.json: not a model that can be read", where="backbone")
    for file in (
        "preprocessor_config.json",
        *(text.FILES if modality_of(_config(_json(config), name)) == "text" else ()),
    ):
        download.hub_file(repo, file, **at)  # type: ignore[arg-type]
    if wanted.pretrained and wanted.weights is None:
        if not any(download.hub_file(repo, file, **at) for file in WEIGHT_FILES):  # type: ignore[arg-type]
            raise BackboneError(f"the Hub's '{repo}' has no weights in a format that can be read", where="backbone")
        _shards(repo, config.parent, at)
    return load_folder(config.parent, wanted, uri=name, revision=revision or config.parent.name)


def load_folder(folder: Path, wanted: Wanted, *, uri: str, revision: str = "") -> Backbone:
    """A folder that ``save_pretrained`` wrote; a folder with timm's config is read by timm."""
    stored = _json(folder / "config.json")
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if not wanted.pretrained:
        file = None
    if "architecture" in stored and "model_type" not in stored:
        from headstart.models.backbones import timm

        return timm.load_config(stored, file, uri, wanted)
    if wanted.pretrained and wanted.weights is None and file is None:
        raise BackboneError("the folder has no weights", where=uri, remedy=f"one of: {', '.join(WEIGHT_FILES)}")
    config = _config(stored, uri)
    modality = modality_of(config)
    family = registry.find(FAMILIES, modality)
    pooling = wanted.pooling or _usual_pooling(modality, stored)
    family.prepare(config, pooling)
    with _quiet(), lean.without_compiler():
        module, kind, missing = _filled(config, family, pooling, folder, file, wanted, uri)
    new = kind == "random" or any(name.rpartition(".")[0] == _classifier(module, family) for name in missing)
    classifier, linear = _bare(module, family)
    known = linear is not None and not new
    labels = tuple(str(config.id2label[index]) for index in sorted(config.id2label)) if config.id2label else ()
    named = not all(label.startswith("LABEL_") for label in labels)
    spec = family.spec(_json(folder / "preprocessor_config.json"), folder, config, wanted)
    made = Backbone(
        module,
        spec=spec,
        origin=Origin(
            uri, "transformers", kind, revision, str(stored.get("license") or ""), weights.sha(wanted.weights)
        ),
        architecture={
            "library": "transformers",
            "name": config.model_type,
            "config": _plain(config),
            "channels": wanted.channels,
            "pooling": pooling,
        },
        source_head=weights.head_of(linear, labels if named else ()) if known and linear is not None else None,
        classifier=classifier,
        call=family.call(module, config, spec),
        intake=family.intake(module, config, spec, pooling),
        front_end=_front_end(module),
    )
    made.checkpoint = folder if kind == "pretrained" else None
    return made


def rebuild(architecture: Mapping[str, Any], spec: Any, origin: Origin) -> Backbone:
    """The same network with random weights, from what ``load`` recorded."""
    config = _config(architecture["config"], origin.uri)
    family, pooling = registry.find(FAMILIES, spec.modality), str(architecture.get("pooling", ""))
    with _quiet(), lean.without_compiler():
        module = _class(config, family, pooling)(config).float()
    family.adapt(module, config, [], pooling, architecture["channels"])
    classifier, _ = _bare(module, family)
    return Backbone(
        module,
        spec=spec,
        origin=origin,
        architecture=architecture,
        classifier=classifier,
        call=family.call(module, config, spec),
        intake=family.intake(module, config, spec, pooling),
        front_end=_front_end(module),
    )


def config_of(backbone: Backbone) -> Any:
    """The configuration of a backbone's network."""
    return _config(backbone.architecture["config"], backbone.origin.uri)


def for_masked_words(backbone: Backbone, config: Any) -> nn.Module:
    """The family's network that restores masked words, as the backbone's checkpoint holds it, else drawn anew."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    cls: Any = MODEL_FOR_MASKED_LM_MAPPING[type(config)]
    with _quiet():
        if backbone.checkpoint is None:
            return cls(config)
        return cls.from_pretrained(backbone.checkpoint, config=config, dtype=torch.float32, local_files_only=True)


def modality_of(config: Any) -> str:
    """Which modality a configuration's network reads."""
    from transformers import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    if type(config) in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING:
        return "audio"
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return "text"
    return "image"


def _usual_pooling(modality: str, stored: Mapping[str, Any]) -> str:
    """Of texts, the network's own where its classifier is trained, else the mean over tokens; of sounds the mean."""
    trained = any(str(name).endswith("ForSequenceClassification") for name in stored.get("architectures") or ())
    return {"text": "native" if trained else "mean", "audio": "mean"}.get(modality, "")


def write_native(model: Any, folder: Path) -> str:
    """Write transformers' files beside the weights; returns the line that opens the folder ("" where it cannot)."""
    backbone = model.backbone
    if backbone.call:
        return ""  # the network must be told to interpolate its positions: from_pretrained alone would not
    config = dict(backbone.architecture["config"])
    names = {str(index): name for index, name in enumerate(model.classes)}
    config |= {
        "architectures": [type(backbone.module).__name__],
        "id2label": names,
        "label2id": {name: int(index) for index, name in names.items()},
        "torch_dtype": "float32",
        "problem_type": "multi_label_classification" if model.several else "single_label_classification",
    }
    config.pop("num_labels", None)
    opener = registry.find(FAMILIES, backbone.modality).write(backbone, config, folder)
    manifest.write_json(folder / "config.json", config)
    return f'transformers.{opener}.from_pretrained("path/to/this/folder")'


def _config(stored: Mapping[str, Any], where: str) -> Any:
    """A configuration from plain values: private keys and keys that name code are never passed on."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = str(stored.get("model_type", ""))
    if kind not in CONFIG_MAPPING_NAMES:
        raise BackboneError(f"transformers has no architecture '{kind}'", where=where)
    refused = ("auto_map", "quantization_config", "model_type", "trust_remote_code", "architectures")
    clean = {
        key: value
        for key, value in stored.items()
        if not key.startswith("_") and "attn_implementation" not in key and key not in refused
    }
    try:
        config = AutoConfig.for_model(kind, **clean)
    except (TypeError, ValueError, AttributeError) as error:
        raise BackboneError(f"the config of '{kind}' cannot be read ({error})", where=where) from error
    return config


def _class(config: Any, family: ModuleType, pooling: str) -> Any:
    """The family's network for classification, else its plain one."""
    for mapping in family.networks(config, pooling):
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, (tuple, list)) else found
    raise BackboneError(f"transformers has no network of '{config.model_type}' that can be used", where="backbone")


def _filled(
    config: Any, family: ModuleType, pooling: str, folder: Path, file: Path | None, wanted: Wanted, uri: str
) -> tuple[Any, str, list[str]]:
    """The network with its classifier in fp32: given, pretrained or random weights; and the names they lacked."""
    cls = _class(config, family, pooling)
    if wanted.weights is None and file is None:
        module = surgery.seeded(wanted.seed, lambda: cls(config).float())
        family.adapt(module, config, [name for name, _ in module.named_parameters()], pooling, wanted.channels)
        return module, "random", []
    common = {"config": config, "dtype": torch.float32, "output_loading_info": True, "local_files_only": True}
    try:
        if wanted.weights is not None:
            state = weights.read(wanted.weights)
            config.num_labels = next((len(v) for k, v in state.items() if "classifier" in k and v.dim() == 2), 2)
            module, info = cls.from_pretrained(None, state_dict=state, **common)
            kind = f"file:{wanted.weights.name}"
        else:
            if file is not None and file.suffix == ".safetensors":
                weights.check_header(file)
            module, info = cls.from_pretrained(folder, **common)
            kind = "pretrained"
    except (RuntimeError, OSError, ValueError) as error:
        raise BackboneError(f"the weights do not fit '{config.model_type}': {str(error)[:300]}", where=uri) from error
    missing = sorted(info["missing_keys"])
    classifier = _classifier(module, family)
    allowed = (*family.HEADS, f"{classifier}.") if classifier else family.HEADS
    prefix = f"{getattr(module, 'base_model_prefix', '')}."
    lost = [name for name in missing if not name.removeprefix(prefix).startswith(allowed)] if allowed else missing
    if lost:
        raise BackboneError(
            f"the weights lack {len(lost)} of the network's tensors ({', '.join(lost[:3])} …)",
            where=uri,
            remedy=f"are they of a {config.model_type}?",
        )
    family.adapt(module, config, missing, pooling, wanted.channels)
    weights.check_finite(module.state_dict(), uri)
    return module, kind, missing


def _classifier(module: Any, family: ModuleType) -> str:
    """Name of the last layer of a network that classifies, else nothing."""
    classifies = type(module).__name__.endswith((family.CLASSIFIES, "ForAudioClassification"))
    return surgery.last_linear(module) if classifies else ""


def _front_end(module: Any) -> str:
    """Name of the convolutions of wav2vec2 and its relatives, for which transformers too offers to freeze them."""
    return f"{module.base_model_prefix}.feature_extractor" if hasattr(module, "freeze_feature_encoder") else ""


def _bare(module: Any, family: ModuleType) -> tuple[str, nn.Linear | None]:
    name = _classifier(module, family)
    return name, surgery.take_off(module, name) if name else None


def _plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON values, without what the loader refuses."""
    stored = json.loads(config.to_json_string(use_diff=True))
    return {key: value for key, value in stored.items() if key not in ("transformers_version", "dtype", "torch_dtype")}


def _shards(repo: str, folder: Path, at: Mapping[str, Any]) -> None:
    """Fetch the parts of weights that are split over several files."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        for file in sorted(set(_json(index).get("weight_map", {}).values())):
            if Path(file).name != file:
                raise BackboneError(f"the index names a file outside its folder: {file}", where=repo)
            download.hub_file(repo, file, **at)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = manifest.read_json(path)
    return value if isinstance(value, dict) else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' loading reports: what they say is checked here and raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
