"""A backbone from a path: a model that Headstart saved, a transformers or timm folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headstart.core.errors import BackboneError
from headstart.models.backbone import Backbone, SourceHead
from headstart.models.heads import Linear
from headstart.models.wanted import Wanted


def load(name: str, wanted: Wanted) -> Backbone:
    """The backbone in the folder ``name``."""
    path = Path(name).expanduser()
    if path.is_file():
        raise BackboneError(
            "a weights file alone does not say which network it belongs to",
            where=name,
            remedy=f"name the architecture too: --backbone torchvision/mobilenet_v2 --weights {path.name}",
        )
    for folder in (path, path / "model"):
        if (folder / "headstart.json").is_file():
            return _ours(folder, wanted)
    if (path / "config.json").is_file():
        from headstart.models.backbones import transformers

        return transformers.load_folder(path, wanted, uri=path.resolve().name)
    raise BackboneError(
        "the folder holds no model (neither headstart.json nor config.json)",
        where=name,
        remedy="an existing path wins over a Hub id: rename the folder, or start the command elsewhere, to mean the id",
    )


def _ours(folder: Path, wanted: Wanted) -> Backbone:
    """The backbone of a model that Headstart trained; its own classifier becomes the source head."""
    from headstart.models import saving

    if wanted.weights is not None or wanted.image_size is not None or wanted.channels != 3 or not wanted.pretrained:
        raise BackboneError(
            "a saved model is taken as it is: weights, image_size, channels and pretrained cannot be changed",
            where=str(folder),
            remedy="name the original backbone instead",
        )
    model = saving.load(folder)
    backbone = model.backbone
    if isinstance(model.head, Linear):
        last = model.head.last
        backbone.source_head = SourceHead(last.weight.detach().clone(), last.bias.detach().clone(), model.classes)
    run = folder.resolve().parent.name if folder.name == "model" else folder.resolve().name
    before = backbone.origin
    backbone.origin = replace(
        before, uri=f"{before.uri} (fine-tuned: {run})", weights="fine-tuned", revision="", sha256=""
    )
    return backbone
