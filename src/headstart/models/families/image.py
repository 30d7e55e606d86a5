"""Vision networks of transformers: what the family's own image-classification head sees are the features."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from headstart.core import manifest
from headstart.data.modalities.image import ImageSpec
from headstart.models import surgery
from headstart.models.families import processor
from headstart.models.wanted import Wanted, resized

if TYPE_CHECKING:
    from headstart.models.backbone import Backbone

CLASSIFIES = "ForImageClassification"
HEADS: tuple[str, ...] = ()


def networks(config: Any, pooling: str) -> list[Any]:
    """The classes to look the configuration up in, the wanted one first."""
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    return [MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING]


def prepare(config: Any, pooling: str) -> None:
    """Nothing to change in the configuration."""


def spec(stored: dict[str, Any], folder: Path, config: Any, wanted: Wanted) -> ImageSpec:
    """The spec of ``preprocessor_config.json``, for the wanted size and channels."""
    return resized(processor.read(stored, config), wanted)


def adapt(module: nn.Module, config: Any, missing: list[str], pooling: str, channels: int) -> None:
    """Let the network take the wanted number of channels."""
    surgery.adapt_channels(module, channels)


def intake(module: nn.Module, config: Any, spec: ImageSpec, pooling: str) -> None:
    """The modality's own."""


def call(module: nn.Module, config: Any, spec: ImageSpec) -> dict[str, Any]:
    """Position embeddings are interpolated where the picture has another size than the network was built for."""
    size = getattr(config, "image_size", None)
    if isinstance(size, (list, tuple)):
        size = size[0]
    takes = "interpolate_pos_encoding" in inspect.signature(module.forward).parameters
    return {"interpolate_pos_encoding": True} if takes and size is not None and (size, size) != spec.size else {}


def write(backbone: Backbone, config: dict[str, Any], folder: Path) -> str:
    """Write the processor's file; the class that opens the folder."""
    spec: ImageSpec = backbone.spec
    if "num_channels" in config:
        config["num_channels"] = spec.channels
    manifest.write_json(folder / "preprocessor_config.json", processor.write(spec))
    return "AutoModelForImageClassification"
