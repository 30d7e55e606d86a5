"""An activation inside the convolution before it: the same features, gradients untouched, faults left out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from headstart.data.modalities.audio import AudioSpec
from headstart.data.modalities.image import ImageSpec
from headstart.models import backbone as backbones
from headstart.models import convolutions, fusing, inference, kernels, merging, resume
from headstart.models.backbone import Backbone

from .networks_zoo import QUICK, batch, make, statistics

pytestmark = pytest.mark.skipif(not kernels.fuses(convolutions.OPERATION), reason="this torch was built without oneDNN")

FUSED = {  # activations that one convolution, or its BatchNorm, hands its maps to
    "torchvision/resnet18": 9,  # the stem's, and the first of every block: the second reads a sum
    "torchvision/mobilenet_v2": 35,
    "torchvision/squeezenet1_1": 24,  # those of the fire modules: the stem is a block, which ends before it
}


@pytest.mark.parametrize("name", QUICK)
def test_features_are_the_same(name: str, tmp_path: Path) -> None:
    backbone = make(name, tmp_path).eval()
    inputs = batch(backbone, rows=4)
    statistics(backbone, inputs)
    plain = copy.deepcopy(backbone)
    norms = merging.pairs(plain, inputs)
    for conv, norm in norms.items():  # fused activations read a convolution, so BatchNorm has to be inside it first
        found = torch.nn.utils.fuse_conv_bn_eval(conv, norm)  # type: ignore[type-var]
        conv.weight, conv.bias = found.weight, found.bias
        names = {module: name for name, module in plain.module.named_modules()}
        plain.module.set_submodule(names[norm], merging.rest(norm))
    quick = copy.deepcopy(plain)
    count = fusing.fuse(quick, inputs)
    assert count == FUSED.get(name, count)
    with torch.no_grad():
        wanted, found = plain.features(inputs), quick.features(inputs)
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())
        value = resume.record(quick, 2, inputs)
        again = resume.features_from(quick, 2, value, 4)
        assert torch.allclose(again, found, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


LAYERS: list[nn.Module] = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.Hardtanh(-0.3, 0.7),
    nn.LeakyReLU(0.2),
    nn.SiLU(),
    nn.Hardswish(),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
]


def stacked(make: Callable[[], nn.Module]) -> Backbone:
    """A backbone of three such blocks, for pictures of 8 pixels."""
    torch.manual_seed(0)
    net = nn.Sequential(*(make() for _ in range(3)))
    net.spec = ImageSpec(size=(8, 8), resize=8)  # type: ignore[assignment]
    return backbones.load(net).eval()


class Plain(nn.Module):
    """Two blocks, each a convolution and an activation; ``options`` are of the convolutions."""

    def __init__(self, layer: nn.Module, **options: object) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(8, 8), resize=8)
        first, second = nn.Conv2d(3, 8, 3, **options), nn.Conv2d(8, 8, 3, **options)  # type: ignore[arg-type]
        self.blocks = nn.Sequential(nn.Sequential(first, layer), nn.Sequential(second, copy.deepcopy(layer)))

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer}")
def test_every_activation_is_computed_as_torch_does(layer: nn.Module, dtype: torch.dtype) -> None:
    backbone = backbones.load(Plain(layer))
    inputs = batch(backbone, rows=4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        wanted = backbone.features(inputs)
        with fusing.fused(backbone):
            assert sum("forward" in vars(part) for part in backbone.modules()) == 4
            found = backbone.features(inputs)
    gap = 1e-5 if dtype == torch.float32 else 2e-2
    if isinstance(layer, nn.ReLU | nn.ReLU6 | nn.Hardtanh):
        assert torch.equal(found, wanted)
    assert torch.allclose(found, wanted, atol=gap * wanted.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"padding": 1}, 2),
        ({"padding": "valid"}, 2),
        ({"padding": "same"}, 0),
        ({"padding": 1, "padding_mode": "reflect"}, 0),
        ({"stride": 2, "padding": 1}, 2),
        ({"dilation": 2, "padding": 2}, 2),
        ({"bias": False}, 2),
    ],
)
def test_convolutions_of_every_kind(options: dict[str, object], count: int) -> None:
    backbone = backbones.load(Plain(nn.ReLU(), **options))
    inputs = batch(backbone, rows=4)
    quick = copy.deepcopy(backbone)
    assert fusing.fuse(quick, inputs) == count
    with torch.no_grad():
        assert torch.equal(quick.features(inputs), backbone.features(inputs))


def test_convolutions_without_an_activation_take_the_same_way() -> None:
    """With one thread and few rows torch would compute them slowly in fp32."""
    backbone = stacked(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.MaxPool2d(3, 1, 1)))
    inputs = batch(backbone, rows=4)
    quick = copy.deepcopy(backbone)
    assert fusing.fuse(quick, inputs) == 0
    assert sum("forward" in vars(part) for part in quick.modules()) == 3
    with torch.no_grad():
        assert torch.allclose(quick.features(inputs), backbone.features(inputs), atol=1e-6)


def test_gradients_and_batch_statistics_go_the_usual_way() -> None:
    backbone = stacked(lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()))
    plain, inputs = copy.deepcopy(backbone), torch.randn(6, 3, 8, 8)
    with merging.merged(backbone) as count:
        assert count == 3
        wanted = torch.autograd.grad(plain.eval().features(inputs).sum(), list(plain.parameters()))
        found = torch.autograd.grad(backbone.eval().features(inputs).sum(), list(backbone.parameters()))
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))
        with torch.no_grad():
            assert torch.equal(backbone.train().features(inputs), plain.train().features(inputs))
    assert not [part for part in backbone.modules() if "forward" in vars(part)]


class Odd(nn.Module):
    """A block in which the activation is not all that becomes of what the convolution wrote; ``kind`` says why."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.act, self.out = nn.Conv2d(3, 3, 3, padding=1), nn.SiLU(), nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.ReLU()
        if kind == "a forward of its own":
            self.act.forward = lambda input: input * 2  # type: ignore[method-assign]

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        if self.kind == "read beside":
            return self.out(self.act(maps) + maps)
        if self.kind == "two activations":
            return self.out(self.act(maps) + self.other(maps))
        if self.kind == "changed in place":
            return self.out(self.act(maps.mul_(2)))
        if self.kind == "a sum":
            return self.out(self.act(maps + images))
        if self.kind == "called twice":
            return self.out(self.act(maps) + self.act(self.conv(images + 1)))
        return self.out(self.act(maps))


@pytest.mark.parametrize(
    "kind",
    ["plain", "read beside", "two activations", "changed in place", "a sum", "called twice", "a forward of its own"],
)
def test_planted_faults_only_what_nobody_else_reads_is_fused(kind: str) -> None:
    backbone = stacked(lambda: Odd(kind))
    inputs = batch(backbone, rows=4)
    quick = copy.deepcopy(backbone)
    assert fusing.fuse(quick, inputs) == (3 if kind == "plain" else 0)
    with torch.no_grad():
        assert torch.allclose(quick.features(inputs), backbone.features(inputs), atol=1e-6)


class Shared(nn.Module):
    """One activation for everything, and maps that it has answered come to it again, changed in place."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), layer

    def forward(self, images: Tensor) -> Tensor:
        maps = self.act(self.conv(images))
        maps += images
        return self.act(maps)


class Copied(nn.Module):
    """What the convolution wrote is copied before it is activated, where it is not in the usual layout or type."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), layer

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.conv(images).contiguous().float())


@pytest.mark.parametrize("layer", [nn.SiLU(), nn.ReLU()])
def test_what_is_copied_on_the_way_is_activated_once(layer: nn.Module) -> None:
    backbone = stacked(lambda: Copied(copy.deepcopy(layer)))
    inputs = batch(backbone, rows=4).contiguous(memory_format=torch.channels_last)
    for dtype, gap in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            wanted = backbone.features(inputs)
            with fusing.fused(backbone):
                assert torch.allclose(backbone.features(inputs), wanted, atol=gap)


def test_what_a_broken_pass_left_behind_activates_nothing_later() -> None:
    """A pass that ends between the two, and then one with gradients, in which the layer computes by itself."""
    backbone = backbones.load(Plain(nn.SiLU())).eval()
    inputs = batch(backbone, rows=4)
    wanted = backbone.features(inputs)
    with fusing.fused(backbone):
        with torch.no_grad():
            backbone.block(0)[0](inputs.float())  # the convolution alone
        assert torch.allclose(backbone.features(inputs), wanted, atol=1e-6)


@pytest.mark.parametrize("layer", [nn.SiLU(), nn.Hardtanh(0.2, 0.7)], ids=str)
def test_dropout_before_an_activation_stays_before_it_in_training_mode(layer: nn.Module) -> None:
    """Where no gradient is asked for: in eval mode, by which pairs are told, dropout does nothing."""
    backbone = stacked(lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Dropout(0.5), copy.deepcopy(layer)))
    inputs = batch(backbone, rows=4)
    backbone.train()
    with torch.no_grad():
        torch.manual_seed(0)
        wanted = backbone.features(inputs)
        with fusing.fused(backbone):
            torch.manual_seed(0)
            assert torch.allclose(backbone.features(inputs), wanted, atol=1e-6)


def test_without_instructions_for_bf16_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "_computes", lambda dtype: dtype == torch.float32)
    backbone = backbones.load(Plain(nn.SiLU())).eval()
    inputs = batch(backbone, rows=4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = backbone.features(inputs)
        with fusing.fused(backbone):
            assert torch.equal(backbone.features(inputs), wanted)


def test_sounds_keep_what_is_not_a_number() -> None:
    """Of NaN oneDNN's ReLU makes 0, and rows whose features are not finite would no longer be told."""
    spec = AudioSpec(rate=8000, seconds=0.1)

    class Sound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spec = spec
            self.conv, self.act = nn.Conv2d(1, 3, 3), nn.ReLU()

        def forward(self, waves: Tensor) -> Tensor:
            return self.act(self.conv(waves.reshape(len(waves), 1, 20, -1))).mean((2, 3))

    backbone = backbones.load(Sound()).eval()
    assert fusing.fuse(backbone, torch.from_numpy(spec.noise(2))) == 0


def test_weights_that_are_not_a_number_show_in_the_features() -> None:
    backbone = backbones.load(Plain(nn.ReLU()))
    inputs = batch(backbone, rows=4)
    with torch.no_grad():
        next(backbone.parameters())[0].fill_(torch.nan)
        assert fusing.fuse(backbone, inputs) == 0
        assert backbone.features(inputs).isnan().any()


@pytest.mark.parametrize(("layer", "count"), [(nn.Hardtanh(-0.3, 0.7), 3), (nn.SiLU(), 0)])
def test_a_shared_activation_hands_on_once_what_a_convolution_has_computed(layer: nn.Module, count: int) -> None:
    """Only a clamp may be shared: what it is given may be a copy, and is clamped again."""
    backbone = stacked(lambda: Shared(copy.deepcopy(layer)))
    inputs = batch(backbone, rows=4)
    quick = copy.deepcopy(backbone)
    assert fusing.fuse(quick, inputs) == count
    with torch.no_grad():
        wanted = backbone.features(inputs)
        assert torch.allclose(quick.features(inputs), wanted, atol=1e-6)
        assert torch.allclose(copy.deepcopy(quick).features(inputs), wanted, atol=1e-6), "a copy of the copy"


def test_what_a_block_returns_is_not_yet_activated_where_the_next_block_does_that() -> None:
    backbone = stacked(lambda: nn.Sequential(nn.SiLU(), nn.Conv2d(3, 3, 3, padding=1)))
    assert fusing.fuse(backbone, batch(backbone, rows=4)) == 0


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def now() -> None:
        def broken(*_args: object) -> Tensor:
            raise RuntimeError("could not create a primitive descriptor")

        monkeypatch.setattr(fusing._Fused, "__call__", broken)

    return now


def test_where_the_operation_fails_the_copy_does_without(refused: Callable[[], None]) -> None:
    backbone = stacked(lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()))
    inputs = batch(backbone, rows=4)
    statistics(backbone, 3 * torch.randn(16, 3, 8, 8))
    refused()
    fast, done = inference.Copies(backbone, inputs).of(torch.float32)
    assert (done.folded, done.fused) == (3, 0), "BatchNorm is folded all the same"
    assert "fusing activations changes" in done.reason
    with torch.no_grad():
        assert torch.allclose(fast.features(inputs), backbone.features(inputs), atol=1e-6)
