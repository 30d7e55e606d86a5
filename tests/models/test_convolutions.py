"""Convolutions that train: the gradients are those of torch, or nearer to the exact ones; clamps inside them too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.data.modalities.image import ImageSpec
from headstart.models import backbone as backbones
from headstart.models import convolutions, fusing, kernels, merging
from headstart.models.backbone import Backbone
from headstart.models.convolutions import Activation, Settings

from .networks_zoo import batch, statistics
from .test_kernels import apart


def answers(conv: nn.Module, maps: Tensor, wanted: list[Tensor], *, low: bool, quick: bool) -> list[Tensor]:
    """What the layer gives in fp32 or in bf16, by torch or the quicker way, and the gradients of a sum of it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=low), kernels.Quick() if quick else torch.enable_grad():
        out = conv(maps)
    assert out.dtype == (torch.bfloat16 if low else torch.float32)
    assert (type(out.grad_fn).__name__ == "_ConvolutionBackward") == (low and quick)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    return [out.float(), *torch.autograd.grad((out.float() * weights).sum(), wanted)]


def thrice(found: Callable[..., list[Tensor]], taken: list[bool]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Exact answers, torch's in bf16, and ours, which alone take the quicker way, and that once."""
    exact, usual = found(low=False, quick=False), found(low=True, quick=False)
    assert not taken
    ours = found(low=True, quick=True)
    assert taken == [True]
    assert torch.equal(ours[0], usual[0]), "forward is that of torch"
    return exact, usual, ours


STRIDED: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 5, "stride": 2, "padding": 2},
    {"kernel_size": 3, "stride": (2, 1), "padding": 1},
    {"kernel_size": 3, "stride": 3, "padding": 0},  # columns that nothing reads
    {"kernel_size": (4, 2), "stride": (1, 2), "padding": (1, 0)},
    {"kernel_size": 3, "stride": 2, "padding": (1, 2), "dilation": (1, 3)},
    {"kernel_size": 1, "stride": 2, "padding": 0},
]


@pytest.mark.parametrize("settings", STRIDED, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_strided_depthwise_gradient_is_nearer_to_the_exact_one(
    settings: dict[str, Any], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    taken, spread = [], convolutions._spread
    monkeypatch.setattr(convolutions, "_spread", lambda *args: taken.append(True) or spread(*args))
    conv = nn.Conv2d(6, 6, groups=6, bias=bias, **settings)
    maps = torch.randn(3, 6, 11, 12, requires_grad=True)

    found = partial(answers, conv, maps, [maps, *conv.parameters()])
    exact, usual, ours = thrice(found, taken)
    assert apart(ours[1], exact[1]) <= apart(usual[1], exact[1]) * 1.1
    assert max(apart(a, b) for a, b in zip(ours, exact, strict=True)) < 0.01
    assert all(torch.equal(a, b) for a, b in zip(found(low=False, quick=True), exact, strict=True))


@pytest.mark.parametrize(
    "settings",
    [{"groups": 3}, {"groups": 1}, {"padding": 3}, {"stride": 1}, {"out_channels": 12}],
    ids=str,
)
def test_other_convolutions_stay_with_torch(settings: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"in_channels": 6, "out_channels": 6, "kernel_size": 3, "stride": 2, "groups": 6}
    conv = nn.Conv2d(**(usual | settings))
    maps = torch.randn(2, 6, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        with kernels.Quick():
            ours = conv(maps)
        usual_way = conv(maps)
    assert type(ours.grad_fn) is type(usual_way.grad_fn)
    assert torch.equal(ours, usual_way)


def test_frozen_depthwise_weights_get_no_gradient() -> None:
    conv = nn.Conv2d(4, 4, 3, 2, 1, groups=4).requires_grad_(False)
    maps = torch.randn(2, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), kernels.Quick():
        conv(maps).sum().backward()
    assert maps.grad is not None
    assert conv.weight.grad is None


SEEN: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 3), "padding": (2, 0)},
    {"kernel_size": 3, "padding": (2, 3), "dilation": (2, 3)},
    {"kernel_size": (5, 11)},  # one place down, two across
]


@pytest.mark.parametrize("settings", SEEN, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_of_large_weights_is_one_product(
    settings: dict[str, Any], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    taken, product = [], convolutions._product
    monkeypatch.setattr(convolutions, "multiplies_tiles", lambda: True)
    monkeypatch.setattr(convolutions, "LARGE", 1)
    monkeypatch.setattr(convolutions, "_product", lambda *args: taken.append(True) or product(*args))
    conv = nn.Conv2d(20, 50, bias=bias, **settings)
    maps = torch.randn(2, 20, 5, 12).requires_grad_(settings["kernel_size"] != 1)
    wanted = [maps, *conv.parameters()] if maps.requires_grad else list(conv.parameters())

    found = partial(answers, conv, maps, wanted)
    exact, usual, ours = thrice(found, taken)
    for mine, theirs, true in zip(ours, usual, exact, strict=True):
        assert apart(mine, true) <= 1.2 * apart(theirs, true) + 1e-4
    fine = found(low=False, quick=True)
    assert all(map(torch.equal, fine, exact))
    assert taken == [True], "in fp32 torch is quick enough"


def test_few_weights_grouped_ones_and_processors_without_tiles_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = torch.zeros(8, 512, 16, 16), torch.zeros(9, 512, 16, 16)  # 2,048 places, and more
    weight = torch.zeros(512, 512, 3, 3, requires_grad=True)
    plain, grouped = Settings.of(1, 1, 1, 1), Settings.of(1, 1, 1, 2)
    for tiles in (True, False):
        monkeypatch.setattr(convolutions, "multiplies_tiles", lambda tiles=tiles: tiles)
        assert convolutions.has_quicker_gradients(few, weight, plain) == tiles
        assert not convolutions.has_quicker_gradients(many, weight, plain)
        assert convolutions.has_quicker_gradients(many, weight, Settings.of(2, 1, 1, 1)) == tiles, "fewer by its stride"
        assert not convolutions.has_quicker_gradients(few[:0], weight, plain), "no place at all"
        assert not convolutions.has_quicker_gradients(few, weight[:200], plain)
        assert not convolutions.has_quicker_gradients(few, weight[:, :256], grouped)
        assert not convolutions.has_quicker_gradients(few, weight.detach(), plain), "frozen"


CLAMPS = {
    "relu": (Activation("relu"), F.relu),
    "relu6": (Activation("hardtanh", (0.0, 6.0)), F.relu6),
    "hardtanh": (Activation("hardtanh", (-0.25, 0.75)), lambda maps: F.hardtanh(maps, -0.25, 0.75)),
}


@pytest.mark.skipif(not kernels.fuses(convolutions.OPERATION), reason="this torch was built without oneDNN")
@pytest.mark.parametrize("kind", list(CLAMPS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 8])
def test_a_clamp_inside_has_the_gradients_of_one_outside(
    kind: str, dtype: torch.dtype, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    taken, product = [], convolutions._product
    monkeypatch.setattr(convolutions, "multiplies_tiles", lambda: True)
    monkeypatch.setattr(convolutions, "LARGE", 1)
    monkeypatch.setattr(convolutions, "_product", lambda *args: taken.append(True) or product(*args))
    after, outside = CLAMPS[kind]
    assert after.is_told_by_answers(dtype)
    maps = (4 * torch.randn(2, 8, 9, 9)).to(dtype).requires_grad_()
    weight = torch.randn(8, 8 // groups, 3, 3).to(dtype).requires_grad_()
    bias = torch.randn(8).to(dtype).requires_grad_()
    settings = Settings.of(2, 1, 1, groups)
    inside = convolutions.trained(maps, weight, bias, settings, after)
    plain = outside(F.conv2d(maps, weight, bias, *settings))
    assert ((plain == plain.min()) | (plain == plain.max())).double().mean() > 0.2, "values on the edges count too"
    weights = torch.linspace(-1, 1, plain.numel()).view_as(plain).to(dtype)
    exact = outside(F.conv2d(maps.double(), weight.double(), bias.double(), *settings))
    gap = 1e-5 if dtype == torch.float32 else 2e-2
    assert apart(inside, plain) < gap
    found, wanted, true = (
        torch.autograd.grad((given * weights).sum(), [maps, weight, bias]) for given in (inside, plain, exact)
    )
    assert len(taken) == (dtype == torch.bfloat16 and groups == 1), "in fp32 torch is quick enough"
    for a, b, c in zip(found, wanted, true, strict=True):
        assert apart(a, b) < gap
        assert apart(a, c) < gap


def test_edges_that_bf16_rounds_are_no_edges_to_tell_a_gradient_by() -> None:
    assert not Activation("hardtanh", (-0.3, 0.7)).is_told_by_answers(torch.bfloat16)
    assert Activation("hardtanh", (-0.3, 0.7)).is_told_by_answers(torch.float32)
    assert not Activation("leaky_relu", (0.1,)).is_told_by_answers(torch.float32)


class Noisy(nn.Module):
    """Counts how often it trains, and changes what it is given where only the numbers tell."""

    count: Tensor
    other: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("other", torch.ones(1).expand(3))

    def forward(self, maps: Tensor) -> Tensor:
        if self.training:
            self.count, self.other = self.count + 1, self.other + 1
            maps.data.mul_(2 + float(np.random.rand()))
        return maps


class Block(nn.Module):
    """A convolution, BatchNorm and a clamp, and what may lie between or after: ``kind``."""

    def __init__(self, clamp: nn.Module, kind: str) -> None:
        super().__init__()
        self.conv, self.norm, self.clamp = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), clamp
        between = {"dropout before": nn.Dropout(0.5), "dropout before, in place": nn.Dropout2d(0.5, inplace=True)}
        between["noise before"] = Noisy()
        after = {"dropout after, in place": nn.Dropout(0.5, inplace=True), "noise after": Noisy()}
        self.before, self.after = between.get(kind, nn.Identity()), after.get(kind, nn.Identity())
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        maps = self.before(self.norm(self.conv(images)))
        maps = self.after(self.clamp(input=maps) if self.kind == "by its name" else self.clamp(maps))
        if self.kind == "added to":
            maps += images
        if self.kind == "called again, by its name":
            maps = self.clamp(input=maps + images)
        if self.kind == "fails in training" and self.training and len(images) == 2:
            raise ValueError("two rows are too few")
        return maps


def network(clamp: nn.Module, kind: str = "plain") -> Backbone:
    net = nn.Sequential(*(Block(copy.deepcopy(clamp), kind) for _ in range(3)))
    net.spec = ImageSpec(size=(8, 8), resize=8)  # type: ignore[assignment]
    backbone = backbones.load(net)
    statistics(backbone, 3 * torch.randn(16, 3, 8, 8))
    return backbone.eval()


KINDS = ("plain", "added to", "dropout before", "dropout before, in place", "dropout after, in place", "noise before",
         "noise after", "by its name", "called again, by its name", "fails in training")  # fmt: skip


@pytest.mark.skipif(not kernels.fuses(convolutions.OPERATION), reason="this torch was built without oneDNN")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clamp", [nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(0.2, 0.7)], ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_trains_with_its_clamps_inside_where_nothing_comes_between_and_nothing_changes_what_they_give(
    clamp: nn.Module, kind: str, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: what is changed in place could not tell the gradient any more, and dropout acts in training alone."""
    backbone = network(clamp, kind)
    inputs = batch(backbone, rows=4)
    if frozen:
        backbone.block(0).requires_grad_(False)
    for part in backbone.modules():
        part.training = not isinstance(part, nn.BatchNorm2d)
    taken, trained = [], convolutions.trained
    monkeypatch.setattr(convolutions, "trained", lambda *args: taken.append(True) or trained(*args))
    parameters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]

    def gradients() -> list[Tensor]:
        torch.manual_seed(3)
        np.random.seed(3)
        features = backbone.features(inputs)
        return [features, *torch.autograd.grad(features.square().sum(), parameters)]

    wanted, state = gradients(), {name: value.clone() for name, value in backbone.state_dict().items()}
    with merging.merged(backbone) as count:
        assert count == 3
        assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())
        found = gradients()
    inside = {"plain": 3 - frozen, "called again, by its name": 3 - frozen}
    assert len(taken) == inside.get(kind, 0)
    assert max(apart(a, b) for a, b in zip(found, wanted, strict=True) if b.norm() > 0) < 1e-4


@pytest.mark.skipif(not kernels.fuses(convolutions.OPERATION), reason="this torch was built without oneDNN")
def test_an_activation_that_is_no_clamp_is_left_outside_while_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "trained", lambda *args: pytest.fail("its gradient needs what it was given"))
    backbone = network(nn.SiLU())
    inputs = batch(backbone, rows=4)
    wanted = torch.autograd.grad(backbone.features(inputs).sum(), list(backbone.parameters()))
    with fusing.fused(backbone):
        found = torch.autograd.grad(backbone.features(inputs).sum(), list(backbone.parameters()))
    assert all(torch.allclose(a, b) for a, b in zip(found, wanted, strict=True))
