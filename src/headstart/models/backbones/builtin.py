"""Backbones that ship with the package: nothing to download.

``builtin/tiny`` is a small convolutional network with seeded random weights: it stands in until properly pretrained
ones exist, and serves tests and offline demos. It is not pretrained and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from headstart.core.errors import BackboneError
from headstart.core.registry import suggest
from headstart.data.modalities.image import ImageSpec
from headstart.models import surgery, weights
from headstart.models.backbone import Backbone, Origin
from headstart.models.wanted import Wanted, resized

WIDTHS = {"tiny": (16, 32, 64, 128)}


def load(name: str, wanted: Wanted) -> Backbone:
    """The built-in network ``name``, from a weights file or with its own seeded random weights."""
    if name not in WIDTHS:
        raise BackboneError(
            f"no built-in backbone '{name}'{suggest(name, WIDTHS)}", remedy=f"known: {', '.join(WIDTHS)}"
        )
    module = surgery.seeded(wanted.seed, lambda: TinyNet(WIDTHS[name]))
    if wanted.weights is not None:
        weights.install(module, weights.read(wanted.weights), classifier="head", where=str(wanted.weights))
    surgery.adapt_channels(module, wanted.channels)
    kind = "random" if wanted.weights is None else f"file:{wanted.weights.name}"
    spec = ImageSpec(size=(96, 96), resize=104, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Backbone(
        module,
        spec=resized(spec, wanted),
        origin=Origin(f"builtin/{name}", "builtin", kind, licence="Apache-2.0", sha256=weights.sha(wanted.weights)),
        architecture={"library": "builtin", "name": name, "channels": wanted.channels},
    )


def rebuild(architecture: Mapping[str, Any], spec: ImageSpec, origin: Origin) -> Backbone:
    """The same network with random weights, from what ``load`` recorded."""
    module = TinyNet(WIDTHS[architecture["name"]])
    surgery.adapt_channels(module, architecture["channels"])
    return Backbone(module, spec=spec, origin=origin, architecture=architecture)


class TinyNet(nn.Module):
    """Stem and residual stages, halving the picture each time: (B, 3, H, W) -> (B, 128)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = _conv(3, widths[0], stride=2)
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.blocks = nn.Sequential(*(Residual(before, width) for before, width in pairs))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.stem(images)).mean(dim=(2, 3))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a strided shortcut (He et al. 2016)."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.first = _conv(before, width, stride=2)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(self.second(self.first(maps)) + self.shortcut(maps))


def _conv(before: int, width: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
