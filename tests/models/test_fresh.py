"""Networks of the user's own, drawn anew."""

from __future__ import annotations

import torch
from torch import nn

from headstart.data.modalities.image import ImageSpec
from headstart.models import backbone, fresh, heads
from headstart.models.model import Model


class Deep(nn.Module):
    """Sixteen convolutions; with or without something that normalises between them."""

    def __init__(self, normalises: bool) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(8, 8))
        layers: list[nn.Module] = []
        for width in (3, *[16] * 15):
            layers += [nn.Conv2d(width, 16, 3, padding=1), nn.ReLU()]
            layers += [nn.BatchNorm2d(16)] if normalises else []
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def drawn(normalises: bool) -> Model:
    model = Model(backbone.load(Deep(normalises)), heads.build("linear", 16, 2), "ab").eval()
    fresh.reinitialise(model, 0)
    return model


@torch.no_grad()
def told_apart(network: nn.Module) -> float:
    """How much features differ between inputs, in their own size."""
    found = network(torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))).mean((2, 3))
    return float(found.std(0).mean() / found.abs().mean())


def test_inputs_are_told_apart_where_nothing_normalises() -> None:
    model = drawn(False)
    assert told_apart(model.backbone.module) > 0.05
    torch.manual_seed(0)
    assert told_apart(Deep(False)) < 0.005  # torch's own draw
    again = drawn(False).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


class Residual(nn.Module):
    """Thirty blocks around which the input goes: torch's own draw tells inputs apart."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(8, 8))
        self.stem = nn.Conv2d(3, 16, 1)
        self.layers = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(30))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.stem(images)
        for layer in self.layers:
            maps = maps + layer(maps.relu())
        return maps


def test_what_tells_inputs_apart_keeps_the_draw_of_its_layers() -> None:
    model = Model(backbone.load(Residual()), heads.build("linear", 16, 2), "ab").eval()
    fresh.reinitialise(model, 0)
    weights = [part.weight for part in model.backbone.module.modules() if isinstance(part, nn.Conv2d)]
    assert len(weights) == 31
    assert all(weight.abs().max() <= weight[0].numel() ** -0.5 for weight in weights)  # He's draw goes further


def test_a_network_that_normalises_is_drawn_as_its_layers_draw() -> None:
    module = drawn(True).backbone.module
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            assert part.weight.abs().max() <= (part.in_channels * 9) ** -0.5
            assert part.bias is not None
            assert part.bias.abs().max() > 0
