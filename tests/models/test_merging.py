"""BatchNorm inside the convolution before it: the same losses and gradients, nothing left behind, faults left out."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from headstart.data.modalities.image import ImageSpec
from headstart.models import backbone as backbones
from headstart.models import merging, resume, sole
from headstart.models.backbone import Backbone

from .networks_zoo import QUICK, batch, make, statistics


def gradients(backbone: Backbone, inputs: Tensor) -> dict[str, Tensor]:
    """Of a scalar of the features, by parameter."""
    features = backbone.features(inputs)
    weights = torch.linspace(0.5, 1.5, features.numel()).view_as(features)
    parameters = dict(backbone.named_parameters())
    found = torch.autograd.grad((features * weights).sum(), list(parameters.values()), allow_unused=True)
    return {name: value for name, value in zip(parameters, found, strict=True) if value is not None}


def gap(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Relative distance of all gradients together."""
    assert found.keys() == wanted.keys()
    apart = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
    return (apart / sum(float(value.square().sum()) for value in wanted.values())) ** 0.5


@pytest.mark.parametrize("name", QUICK)
def test_features_and_gradients_are_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "WORTH", 0)
    backbone = make(name, tmp_path).eval()
    inputs = batch(backbone, rows=4)
    statistics(backbone, inputs)
    backbone.eval().double()  # in fp32 another rounding now and then puts a value on the other side of a ReLU
    backbone.compute = torch.float64
    wanted, before = backbone.features(inputs), gradients(backbone, inputs)
    keys = set(backbone.state_dict())
    with merging.merged(backbone) as count:
        if name in ("torchvision/resnet18", "torchvision/mobilenet_v2", "timm/test_efficientnet"):
            assert count == sum(isinstance(part, nn.BatchNorm2d) for part in backbone.modules())
        found, inside = backbone.features(inputs), gradients(backbone, inputs)
        assert set(backbone.state_dict()) == keys
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-9 * wanted.abs().max().item())
    assert gap(inside, before) < 1e-9
    assert not [part for part in backbone.modules() if "forward" in vars(part)]
    assert torch.equal(backbone.features(inputs), wanted)


class Pair(nn.Module):
    """One block that holds a convolution and its BatchNorm, and a last one without."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(8, 8), resize=8)
        self.layers = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU()),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def test_where_batch_norm_takes_the_statistics_of_the_batch_it_does_so_inside_too() -> None:
    backbone = backbones.load(Pair())
    plain = copy.deepcopy(backbone)
    inputs = torch.randn(6, 3, 8, 8)
    with merging.merged(backbone) as count:
        assert count == 1
        backbone.train()
        plain.train()
        assert torch.equal(backbone.features(inputs), plain.features(inputs))
    moved = backbone.module.layers[0][1].running_mean
    assert torch.equal(moved, plain.module.layers[0][1].running_mean)
    assert not torch.equal(moved, torch.zeros(4))


def test_blocks_resume_bit_for_bit_inside() -> None:
    backbone = backbones.load(Pair())
    statistics(backbone, 3 * torch.randn(16, 3, 8, 8))
    backbone.eval()
    inputs = torch.randn(5, 3, 8, 8)
    with merging.merged(backbone) as count, torch.no_grad():
        assert count == 1
        value = resume.record(backbone, 1, inputs)
        assert torch.equal(resume.features_from(backbone, 1, value, 5), backbone.features(inputs))


class Odd(nn.Module):
    """A block in which something else reads or changes what the convolution wrote; ``kind`` says what."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.norm, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.gate = nn.Parameter(torch.zeros(()))
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        if self.kind == "changed in place":
            maps = self.norm(maps.relu_())
        elif self.kind == "two readers":
            maps = self.norm(maps) + self.other(maps)
        elif self.kind == "read beside":
            maps = self.norm(maps) + maps
        elif self.kind == "read beside, by a gate that is closed":
            maps = self.norm(maps) + self.gate * maps
        else:
            maps = self.norm(maps)
        return self.out(maps).relu()


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    "kind",
    ["plain", "changed in place", "two readers", "read beside", "read beside, by a gate that is closed"],
)
def test_planted_faults_only_what_nobody_else_reads_is_merged(kind: str, fresh: bool) -> None:
    """Where BatchNorm is fresh it does nothing, and features would be the same whatever is merged."""
    net = nn.Sequential(*(Odd(kind) for _ in range(5)))
    net.spec = ImageSpec(size=(8, 8), resize=8)  # type: ignore[assignment]
    backbone = backbones.load(net)
    if not fresh:
        statistics(backbone, 3 * torch.randn(16, 3, 8, 8))
    backbone.eval()
    assert backbone.blocks == ("0", "1", "2", "3", "4")
    with merging.merged(backbone) as count:
        assert count == (5 if kind == "plain" else 0)


def test_odd_calls_and_answers_are_left_alone() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spec = ImageSpec(size=(8, 8), resize=8)
            self.first = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, images: Tensor) -> Tensor:
            return self.norm(input=self.conv(input=self.first(images))).relu()

    class Pair(nn.Conv2d):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(images), images

    class Masked(Named):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Pair(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.norm(self.conv(self.first(images))[0]).relu()

    for net in (Named(), Masked()):
        with merging.merged(backbones.load(net)) as count:
            assert count == 0


def test_layers_that_are_blocks_or_have_large_weights_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU())
    flat.spec = ImageSpec(size=(8, 8), resize=8)  # type: ignore[assignment]
    with merging.merged(backbones.load(flat)) as count:
        assert count == 0, "what a block returns is recorded, so BatchNorm must not be inside the block before it"
    monkeypatch.setattr(merging, "WORTH", 1e9)
    with merging.merged(backbones.load(Pair())) as count:
        assert count == 0


def test_pairs_are_looked_for_once_and_a_copy_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, asked, seen = backbones.load(Pair()).eval(), [], sole.readers
    monkeypatch.setattr(sole, "readers", lambda *given, **more: asked.append(1) or seen(*given, **more))
    inputs = torch.randn(2, 3, 8, 8)
    with merging.merged(backbone):
        wanted = backbone.features(inputs)
    again = copy.deepcopy(backbone)
    monkeypatch.setattr(sole, "readers", lambda *given, **more: pytest.fail("looked for again"))
    with torch.no_grad():
        again.module.layers[0][1].bias.add_(1.0)
    for each, same in ((backbone, True), (again, False)):
        with merging.merged(each) as count:
            assert count == 1
            assert {"forward" in vars(part) for part in each.modules() if isinstance(part, nn.BatchNorm2d)} == {True}
            assert torch.equal(each.features(inputs), wanted) == same
    assert asked, "nothing was looked for"
    other = backbones.load(Pair())
    other.refit(ImageSpec(size=(16, 16), resize=16))
    assert not other.pairs


def test_weights_that_are_not_finite_are_seen_every_time() -> None:
    backbone = backbones.load(Pair()).eval()
    for value, fused in ((0.0, True), (math.nan, False), (0.0, True)):
        with torch.no_grad():
            backbone.module.layers[1][0].bias.fill_(value)
        with merging.merged(backbone):
            assert ("forward" in vars(backbone.module.layers[1][0])) == fused


def test_nothing_is_left_where_training_fails() -> None:
    backbone = backbones.load(Pair())
    with pytest.raises(RuntimeError, match="stop"), merging.merged(backbone):
        raise RuntimeError("stop")
    assert not [part for part in backbone.modules() if "forward" in vars(part)]
