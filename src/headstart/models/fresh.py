"""The same network with random weights: what training from scratch starts from."""

from __future__ import annotations

import re

from torch import nn

from headstart.core import registry
from headstart.core.errors import BackboneError
from headstart.models import identity
from headstart.models.backbone import Backbone
from headstart.models.model import Model
from headstart.models.surgery import seeded

LIBRARIES = ("torchvision", "timm", "transformers", "builtin")  # that build a network again
LEAST_SPREAD = 0.01  # of the answers to noise, in their own size


def reinitialise(model: Model, seed: int) -> None:
    """Draw all weights of a model anew, in place, the same for the same seed.

    The network is built again by its library, so that everything is initialised as its authors meant it; a module
    that the user handed over is reset part by part. Where nothing in it normalises and its answers to noise are all
    but the same, as after a dozen layers with torch's own draw, its layers are drawn as He et al. (2015) do.

    Raises:
        BackboneError: the user's own module has parameters that no ``reset_parameters`` draws.
    """
    backbone = model.backbone
    drawn = seeded(seed, lambda: _module(backbone))
    backbone.module.load_state_dict(drawn.state_dict())
    own = backbone.architecture.get("library") not in LIBRARIES
    if own and not _normalises(drawn) and not _tells_apart(backbone):
        backbone.module.load_state_dict(seeded(seed, lambda: _keep_variance(drawn)).state_dict())
    seeded(seed + 1, lambda: _reset(model.head))


def _module(backbone: Backbone) -> nn.Module:
    library = backbone.architecture.get("library")
    if library in LIBRARIES:
        kind = registry.find("headstart.models.backbones", library)
        return kind.rebuild(backbone.architecture, backbone.spec, backbone.origin).module
    import copy

    return _reset(copy.deepcopy(backbone.module))


def _normalises(module: nn.Module) -> bool:
    return any(re.search(r"norm(\d+d)?$", type(part).__name__.lower()) for part in module.modules())


def _tells_apart(backbone: Backbone) -> bool:
    answers = identity.answers(backbone).flatten(1)
    return bool(answers.std(0).mean() > LEAST_SPREAD * answers.abs().mean())


def _keep_variance(module: nn.Module) -> nn.Module:
    """Draw the weights of torch's own layers so that a ReLU after each keeps the variance of what comes in."""
    for part in module.modules():
        plain = type(part) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # others draw theirs as they need it
        if plain and isinstance(part.weight, nn.Parameter):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if isinstance(part.bias, nn.Parameter):
                nn.init.zeros_(part.bias)
    return module


def _reset(module: nn.Module) -> nn.Module:
    left = {name for name, _ in module.named_parameters()}
    for prefix, part in module.named_modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
            left -= {f"{prefix}.{name}" if prefix else name for name, _ in part.named_parameters(recurse=False)}
    if left:
        raise BackboneError(
            f"cannot draw {len(left)} parameters anew, such as '{sorted(left)[0]}'",
            remedy="give the module that owns them a reset_parameters() method",
        )
    return module
