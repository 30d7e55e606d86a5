"""From what the user typed to a backbone: which library a name means, and what is taken when nothing is named."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from headstart.core import registry
from headstart.core.errors import BackboneError, Unreachable
from headstart.models import download, published, shipped
from headstart.models.backbone import Backbone
from headstart.models.wanted import Wanted

PREFIXES = ("torchvision", "timm", "builtin")


@dataclass(frozen=True)
class Standard:
    """A backbone that is taken when the user names none: its weights file, and what is published about it."""

    name: str
    file: str  # in torch.hub's folder, or in the Hub repository of the name for timm
    facts: str

    @property
    def url(self) -> str:
        return f"https://download.pytorch.org/models/{self.file}"

    def is_here(self) -> bool:
        """Whether the weights are on this machine."""
        if self.name.startswith("timm/"):
            return download.hub_cached(self.name, self.file) is not None
        return (Path(torch.hub.get_dir()) / "checkpoints" / self.file).is_file()


# Best first: published ImageNet accuracy, among networks that a laptop fine-tunes in minutes.
STANDARDS = (
    Standard("torchvision/convnext_tiny", "convnext_tiny-983f1562.pth", "29 M parameters, ImageNet-1k, 82.5 % top-1"),
    Standard("timm/resnet50.a1_in1k", "model.safetensors", "26 M parameters, ImageNet-1k, about 80 % top-1"),
    Standard(
        "torchvision/efficientnet_b0",
        "efficientnet_b0_rwightman-7f5810bc.pth",
        "5 M parameters, ImageNet-1k, 77.7 % top-1",
    ),
    Standard(
        "torchvision/mobilenet_v3_large",
        "mobilenet_v3_large-5c1a4163.pth",
        "5 M parameters, ImageNet-1k, 75.3 % top-1",
    ),
    Standard("torchvision/mobilenet_v2", "mobilenet_v2-7ebf99e0.pth", "4 M parameters, ImageNet-1k, 72.2 % top-1"),
    Standard("timm/resnet18.a1_in1k", "model.safetensors", "12 M parameters, ImageNet-1k, about 71 % top-1"),
    Standard("torchvision/resnet18", "resnet18-f37072fd.pth", "12 M parameters, ImageNet-1k, 69.8 % top-1"),
)
# Of texts and sounds: on the Hub, small enough for a laptop.
HUB_STANDARDS = {
    "text": ("sentence-transformers/all-MiniLM-L6-v2", "distilbert/distilbert-base-multilingual-cased"),
    "audio": ("facebook/wav2vec2-base", "MIT/ast-finetuned-audioset-10-10-0.4593"),
}
HINT = "name another with --backbone (`headstart models` lists them)"
TO_FETCH = STANDARDS[2]  # where none is here: 20 MB, a good start for its size


def load(name: str | nn.Module, wanted: Wanted) -> Backbone:
    """See ``backbone.load``."""
    if isinstance(name, str) and not name.strip():
        raise BackboneError("its name is blank", where="backbone", remedy=HINT)
    if not isinstance(name, (nn.Module, str, Path)):
        what = f"it is {f'the class {name.__name__}' if isinstance(name, type) else f'a {type(name).__name__}'}"
        remedy = "give a name, or a torch module: backbone=Net(), not backbone=Net"
        raise BackboneError(what, where="backbone", remedy=remedy)
    if wanted.channels < 1 or (wanted.image_size is not None and wanted.image_size < 8):
        what = f"no network takes {wanted.channels} channels of {wanted.image_size} pixels"
        raise BackboneError(what, where="backbone")
    if wanted.weights is not None and not wanted.weights.is_file():
        raise BackboneError("no such weights file", where=str(wanted.weights))
    library, rest = ("own", name) if isinstance(name, nn.Module) else resolve(str(name))
    try:
        ours = published.model_of(str(rest), offline=wanted.offline) if library == "transformers" else None
        if ours is not None:
            library, rest = "local", str(ours)
        return registry.find("headstart.models.backbones", library).load(rest, wanted)
    except (BackboneError, Unreachable) as error:
        near = suggest_prefix(str(rest)) if library == "transformers" else ""
        if not near:
            raise
        first, *others = error.problems
        told = replace(first, remedy=f"{near} {first.remedy}".strip())
        raise type(error)(error.summary, problems=[told, *others]) from error


def suggest_prefix(name: str) -> str:
    """``did you mean 'torchvision/resnet18'?`` of a Hub id whose owner is nearly one of ``PREFIXES``, or nothing."""
    owner, _, rest = name.partition("/")
    close = difflib.get_close_matches(owner.lower(), PREFIXES, n=1, cutoff=0.75)
    return f"did you mean '{close[0]}/{rest}'?" if close and rest else ""


def resolve(name: str) -> tuple[str, str]:
    """Which file of ``backbones/`` reads ``name``, and the name without its prefix; an existing path wins over an id.

    Raises:
        BackboneError: the name means nothing we know.
    """
    if Path(name).expanduser().exists():
        return "local", name
    prefix, _, rest = name.partition("/")
    if prefix in PREFIXES and rest:
        return prefix, rest
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BackboneError("no such file or folder", where=name)
    if rest:
        return "transformers", name
    if "." in name:
        return "own", name
    raise BackboneError(
        f"'{name}' is not a backbone",
        where="backbone",
        remedy=f"did you mean torchvision/{name} or timm/{name}? An id of the Hub has an owner (OWNER/{name}); "
        f"`headstart models {name}` searches",
    )


def default(offline: bool, modality: str = "image") -> tuple[str, str]:
    """The backbone taken when none is named, and why.

    The first of the standard list (``STANDARDS``, ``HUB_STANDARDS``) whose weights are on this machine; else the one to
    fetch where its address answers; else what ships with the package.
    """
    if modality != "image":
        return _of_the_hub(modality, offline)
    for standard in STANDARDS:
        if standard.is_here():
            return standard.name, f"the best of the standard list whose weights are here ({standard.facts}); {HINT}"
    if not offline and download.answers(TO_FETCH.url):
        return TO_FETCH.name, f"none of the standard list is here; this one is fetched ({TO_FETCH.facts}); {HINT}"
    better = (
        f"--backbone {TO_FETCH.name} --weights {TO_FETCH.file}, with that file fetched elsewhere, or put it into "
        f"{Path(torch.hub.get_dir()) / 'checkpoints'}"
    )
    return _shipped(modality, offline, better)


def _of_the_hub(modality: str, offline: bool) -> tuple[str, str]:
    """The first standard network of texts or sounds that is in the local cache, else the first that can be fetched."""
    names = HUB_STANDARDS[modality]
    for name in names:
        if download.hub_cached(name, "model.safetensors") is not None:
            return name, f"the first of the standard list whose weights are here; {HINT}"
    if not offline and download.answers("https://huggingface.co"):
        return names[0], f"none of the standard list is here; this one is fetched; {HINT}"
    return _shipped(modality, offline, f"--backbone FOLDER with a network that transformers saved, such as {names[0]}")


def _shipped(modality: str, offline: bool, better: str) -> tuple[str, str]:
    """What ships with the package, which is small and knows less than the networks of the standard list."""
    card = shipped.card(modality)
    why = "offline was asked for" if offline else "the network does not answer"
    return card.uri, (
        f"no pretrained weights of the standard list are on this machine and {why}; this one ships with Headstart "
        f"({card.parameters / 1e6:.1f} M parameters, trained on {card.data.rstrip('.')}). "
        f"A larger network that saw real data is a better start: {better}"
    )
