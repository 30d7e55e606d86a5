"""Image processor configs of transformers (``preprocessor_config.json``), read as and written from a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.data.modalities.image import ImageSpec

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers


def read(processor: Mapping[str, Any], config: Any) -> ImageSpec:
    """An image processor's config as a spec; where there is none, the size of the config and mean = std = 0.5."""
    size, crop = _edge(processor.get("size")), _edge(processor.get("crop_size"))
    built = getattr(config, "image_size", None)
    edge = crop or size or (built if isinstance(built, int) else None) or 224
    resize, mode = size or edge, "squash"
    if processor.get("crop_pct") and edge < 384:  # ConvNeXt: the margin is given as a share
        resize, mode = int(edge / processor["crop_pct"]), "center"
    elif (crop and processor.get("do_center_crop", True)) or (_keeps_shape(processor) and "crop_pct" not in processor):
        mode = "center"
    mean, std = tuple(processor.get("image_mean") or (0.5,) * 3), tuple(processor.get("image_std") or (0.5,) * 3)
    if processor.get("do_normalize") is False:
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    factor = 255 * float(processor.get("rescale_factor") or 1 / 255)
    return ImageSpec(
        size=(edge, edge),
        resize=max(resize, edge),
        crop=mode,
        interpolation=RESAMPLE.get(int(processor.get("resample", 2)), "bilinear"),
        mean=tuple(value / factor for value in mean),
        std=tuple(value / factor for value in std),
    )


def _keeps_shape(processor: Mapping[str, Any]) -> bool:
    size = processor.get("size")
    return isinstance(size, Mapping) and "shortest_edge" in size


def _edge(value: Any) -> int | None:
    """The edge in pixels of a processor's ``size`` (a number, or a dict with height or shortest_edge)."""
    if isinstance(value, Mapping):
        value = value.get("height") or value.get("shortest_edge")
    return int(value) if value else None


def write(spec: ImageSpec) -> dict[str, Any]:
    """The spec in the words of transformers' processors."""
    numbers = {name: number for number, name in RESAMPLE.items()}
    common = {
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "resample": numbers.get(spec.interpolation, 2),
    }
    height, width = spec.size
    if spec.crop == "squash":
        return common | {"image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width}}
    return common | {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": spec.resize},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_convert_rgb": spec.channels == 3,
    }
