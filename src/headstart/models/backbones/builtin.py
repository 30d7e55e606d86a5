"""Backbones that ship with the package: nothing to download.

``builtin/image``, ``builtin/text`` and ``builtin/audio`` are small and pretrained: a network of timm, one of
transformers, and an encoder of sounds of our own; their cards (``models/shipped.py``) say what on. What is trained from
the first two opens in those libraries. ``builtin/tiny`` is a small convolutional network with seeded random weights:
quick, knows nothing, says so, and is there for tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from headstart.data.modalities.image import ImageSpec
from headstart.models import shipped, surgery, weights
from headstart.models.backbone import Backbone, Origin
from headstart.models.backbones import timm, transformers
from headstart.models.shipped import Card
from headstart.models.wanted import Wanted, resized

if TYPE_CHECKING:  # soundfile is loaded with it
    from headstart.data.modalities.audio import AudioSpec

WIDTHS = {"tiny": (16, 32, 64, 128)}


def load(name: str, wanted: Wanted) -> Backbone:
    """The built-in network ``name``: with its own weights, those of a file, or random ones.

    Raises:
        BackboneError: no such network, or its files are damaged.
    """
    if name in WIDTHS:
        return _tiny(name, wanted)
    card = shipped.card(name)
    kind, file = "random", wanted.weights
    if file is not None:
        kind = f"file:{file.name}"
    elif wanted.pretrained:
        kind, file = "pretrained", card.weights()
    made = MADE[str(card.architecture["library"])](card, wanted, file)
    data = card.data if kind == "pretrained" else ""
    made.origin = Origin(card.uri, "builtin", kind, "", card.licence, weights.sha(file), data)
    return made


def rebuild(architecture: Mapping[str, Any], spec: Any, origin: Origin) -> Backbone:
    """The same network with random weights, from what ``load`` recorded."""
    if spec.modality == "audio":
        return _hearing(architecture, spec, origin)
    module = TinyNet(WIDTHS[architecture["name"]])
    surgery.adapt_channels(module, architecture["channels"])
    return Backbone(module, spec=spec, origin=origin, architecture=architecture)


def _of_timm(card: Card, wanted: Wanted, file: Path | None) -> Backbone:
    """A network of timm: its constructor's settings and its preprocessing are the card's."""
    named = {"architecture": card.architecture["name"], "model_args": card.architecture.get("model_args", {})}
    made = timm.load_config(named, None, card.uri, replace(wanted, weights=None))
    size = int(card.input["size"])
    spec = ImageSpec(
        size=(size, size),
        resize=int(card.input.get("resize", size)),
        crop=card.input.get("crop", "center"),
        interpolation=card.input.get("interpolation", "bicubic"),
        mean=tuple(card.input["mean"]),
        std=tuple(card.input["std"]),
    )
    made.refit(resized(spec, wanted))
    _fill(made.module, file)
    return made


def _of_transformers(card: Card, wanted: Wanted, file: Path | None) -> Backbone:
    """A folder that transformers wrote, as any other such folder is read."""
    length = wanted.max_length or card.input.get("max_length")
    return transformers.load_folder(card.folder, replace(wanted, max_length=length), uri=card.uri)


def _own(card: Card, wanted: Wanted, file: Path | None) -> Backbone:
    """The encoder of sounds, with the constructor's settings of the card."""
    from headstart.data.modalities.audio import AudioSpec

    spec = AudioSpec(**card.input)
    spec = replace(spec, seconds=wanted.seconds or spec.seconds)
    settings = dict(card.architecture["settings"])
    architecture = {"library": "builtin", "name": card.name, "config": settings, "channels": wanted.channels}
    made = surgery.seeded(wanted.seed, lambda: _hearing(architecture, spec, Origin(card.uri, "builtin", "random")))
    _fill(made.module, file)
    return made


MADE = {"timm": _of_timm, "transformers": _of_transformers, "builtin": _own}  # by the card's library


def _hearing(architecture: Mapping[str, Any], spec: AudioSpec, origin: Origin) -> Backbone:
    from headstart.models.logmel import LogMelNet

    module = LogMelNet(**architecture["config"])
    return Backbone(module, spec=spec, origin=origin, architecture=architecture)


def _fill(module: nn.Module, file: Path | None) -> None:
    """Load a file's weights, if any; a first convolution of three channels is made to fit another number of them."""
    if file is None:
        return
    wanted, state = module.state_dict(), weights.read(file)
    for name, value in state.items():
        fits = wanted.get(name, value).shape
        if value.dim() == 4 and value.shape[1] == 3 and fits[1] != 3 and fits[2:] == value.shape[2:]:
            state[name] = surgery.adapted(value, fits[1])
    weights.install(module, state, classifier="", where=str(file))


def _tiny(name: str, wanted: Wanted) -> Backbone:
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
