"""The same network with random weights: what training from scratch starts from."""

from __future__ import annotations

from torch import nn

from headstart.core import registry
from headstart.core.errors import BackboneError
from headstart.models.backbone import Backbone
from headstart.models.model import Model
from headstart.models.surgery import seeded


def reinitialise(model: Model, seed: int) -> None:
    """Draw all weights of a model anew, in place, the same for the same seed.

    The network is built again by its library, so that everything is initialised as its authors meant it; a module
    that the user handed over is reset part by part. Where nothing in it normalises, its weights are drawn as He et al.
    (2015) do: with torch's own, each layer of a third of the variance, twelve layers tell no input from another.

    Raises:
        BackboneError: the user's own module has parameters that no ``reset_parameters`` draws.
    """
    backbone = model.backbone
    drawn = seeded(seed, lambda: _module(backbone))
    backbone.module.load_state_dict(drawn.state_dict())
    seeded(seed + 1, lambda: _reset(model.head))


def _module(backbone: Backbone) -> nn.Module:
    library = backbone.architecture.get("library")
    if library in ("torchvision", "timm", "transformers", "builtin"):
        kind = registry.find("headstart.models.backbones", library)
        return kind.rebuild(backbone.architecture, backbone.spec, backbone.origin).module
    import copy

    module = _reset(copy.deepcopy(backbone.module))
    if not any("norm" in type(part).__name__.lower() for part in module.modules()):
        _keep_variance(module)
    return module


def _keep_variance(module: nn.Module) -> None:
    """Draw the weights of layers so that a ReLU after each keeps the variance of what comes in."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


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
