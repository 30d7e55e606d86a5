"""Classification networks of torchvision, by name: ``torchvision/resnet18``, ``torchvision/resnet50.IMAGENET1K_V1``.

Features are what the last linear layer saw (SqueezeNet has none: its pooled maps). Preprocessing is that of the
weights' own transforms. Weights lie where torch.hub keeps them: ``$TORCH_HOME/hub/checkpoints``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from headstart.core.errors import BackboneError
from headstart.core.registry import suggest
from headstart.data.modalities.image import ImageSpec
from headstart.models import download, lean, surgery, weights
from headstart.models.backbone import Backbone, Origin, SourceHead
from headstart.models.wanted import Wanted, resized


def load(name: str, wanted: Wanted) -> Backbone:
    """The network ``name`` (with an optional ``.WEIGHTS`` tag) with pretrained, given or random weights."""
    arch, _, tag = name.partition(".")
    module = surgery.seeded(wanted.seed, lambda: _create(arch, wanted.image_size))
    published = _published(arch, tag)
    file, kind = _file(name, published, wanted)
    classifier = _bare(module)
    head = None if file is None else _install(module, file, published, classifier)
    surgery.adapt_channels(module, wanted.channels)
    size = {"image_size": wanted.image_size, "channels": wanted.channels, "transform_input": file is not None}
    return Backbone(
        module,
        spec=resized(_spec(published if wanted.weights is None else _first(arch)), wanted),
        origin=Origin(f"torchvision/{name}", "torchvision", kind, sha256=weights.sha(file)),
        architecture={"library": "torchvision", "name": arch, **size},
        source_head=head,
        classifier=classifier,
    )


def rebuild(architecture: Mapping[str, Any], spec: ImageSpec, origin: Origin) -> Backbone:
    """The same network with random weights, from what ``load`` recorded."""
    module = _create(architecture["name"], architecture["image_size"])
    classifier = _bare(module)
    surgery.adapt_channels(module, architecture["channels"])
    _set_input_transform(module, bool(architecture["transform_input"]))
    return Backbone(module, spec=spec, origin=origin, architecture=architecture, classifier=classifier)


def _create(arch: str, image_size: int | None) -> nn.Module:
    """The untrained network with its classifier; auxiliary classifiers are left out."""
    models = lean.library("torchvision.models")

    known = models.list_models(module=models)
    if arch not in known:
        raise BackboneError(
            f"torchvision has no classification network '{arch}'{suggest(arch, known)}",
            remedy="`headstart models torchvision/` lists them",
        )
    options: dict[str, Any] = {}
    if image_size is not None and arch.startswith("vit_"):
        options["image_size"] = image_size
    if image_size is not None and arch.startswith("maxvit"):
        options["input_size"] = (image_size, image_size)
    if arch in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    return models.get_model(arch, weights=None, **options)


def _bare(module: nn.Module) -> str:
    """Take the classifier off and return its name; "" where it is not linear (SqueezeNet: a convolution)."""
    if type(module).__name__ == "SqueezeNet":
        module.classifier = nn.AdaptiveAvgPool2d(1)
        return ""
    name = surgery.last_linear(module)
    surgery.take_off(module, name)
    return name


def _set_input_transform(module: Any, flag: bool) -> None:
    """GoogLeNet's and Inception's published weights want inputs scaled to -1..1, which they do themselves."""
    if hasattr(module, "transform_input"):
        module.transform_input = flag


def _install(module: nn.Module, file: Path, published: Any, classifier: str) -> SourceHead | None:
    """Put a weights file into the network and return the classifier that was in it."""
    state = weights.read(file)
    state = {name: value for name, value in state.items() if not name.lower().startswith(("aux", "module.aux"))}
    _set_input_transform(module, True)
    if not classifier:
        state = {name: value for name, value in state.items() if "classifier." not in name}
    if "encoder.pos_embedding" in state:
        state = _positions(module, state)
    labels = tuple(published.meta.get("categories", ())) if published is not None else ()
    return weights.install(module, state, classifier=classifier, where=str(file), labels=labels)


def _positions(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Position embeddings of a vision transformer, interpolated to the network's own image size."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    if state["encoder.pos_embedding"].shape == module.get_parameter("encoder.pos_embedding").shape:
        return state
    size, patch = module.image_size, module.patch_size
    return dict(interpolate_embeddings(size, patch, state))  # type: ignore[arg-type]


def _published(arch: str, tag: str) -> Any:
    """The weights entry to use (torchvision's default where no tag is given); None where it publishes none."""
    models = lean.library("torchvision.models")

    found = {entry.name: entry for entry in models.get_model_weights(arch)}
    if tag and tag not in found:
        raise BackboneError(f"torchvision/{arch} has no weights '{tag}'", remedy=f"known: {', '.join(found)}")
    return found[tag] if tag else getattr(models.get_model_weights(arch), "DEFAULT", None)


def _first(arch: str) -> Any:
    """The oldest recipe: most weight files in circulation were trained with it."""
    models = lean.library("torchvision.models")

    return next(iter(models.get_model_weights(arch)), None)


def _file(name: str, published: Any, wanted: Wanted) -> tuple[Path | None, str]:
    """The weights file to read (fetched when it is not here), and what to call it."""
    if wanted.weights is not None:
        return wanted.weights, f"file:{wanted.weights.name}"
    if not wanted.pretrained:
        return None, "random"
    if published is None:
        raise BackboneError(f"torchvision publishes no weights for '{name}'", remedy="pass pretrained=false")
    place = download.checkpoint(published.url)
    if not place.is_file():
        download.fetch(published.url, place, name=f"torchvision/{name}", offline=wanted.offline)
    return place, f"pretrained:{published.name}"


def _spec(published: Any) -> ImageSpec:
    if published is None:
        return ImageSpec()
    preset = published.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    return ImageSpec(
        size=(crop, crop),
        resize=max(crop, resize),
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
