"""The faster copy: the same features within stated bounds, the original untouched, and faults left out."""

from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from headstart.data.modalities.image import ImageSpec
from headstart.models import backbone as backbones
from headstart.models import inference, resume

from .networks_zoo import QUICK, batch, make, statistics


def copied(
    backbone: backbones.Backbone,
    inputs: Tensor,
    tolerance: float | None,
    dtype: torch.dtype = torch.bfloat16,
    **options: bool,
) -> tuple[backbones.Backbone, inference.Optimisation]:
    """The copy in ``dtype``, whose features may be so far off."""
    limits = {} if tolerance is None else {dtype: tolerance}
    with mock.patch.dict(inference.TOLERANCE, limits):
        return inference.Copies(backbone, inputs, **options).of(dtype)


@pytest.mark.parametrize("name", QUICK)
def test_folded_features_are_the_same(name: str, tmp_path: Path) -> None:
    backbone = make(name, tmp_path)
    inputs = batch(backbone, rows=4)
    before = backbone.weights_hash()
    fast, done = inference.Copies(backbone, inputs).of(torch.float32)
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    left = [part for part in fast.modules() if isinstance(part, nn.BatchNorm2d)]
    assert done.folded == len(norms) - len(left)
    if name in ("torchvision/resnet18", "torchvision/mobilenet_v2", "timm/test_efficientnet", "transformers/resnet"):
        assert norms
        assert not left
    with torch.no_grad():
        wanted, found = backbone.features(inputs), fast.features(inputs)
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
    assert backbone.weights_hash() == before
    assert found.dtype == torch.float32
    value = resume.record(fast, 2, inputs)
    assert torch.allclose(resume.features_from(fast, 2, value, 4), found, atol=1e-5 * wanted.abs().max().item() + 1e-6)


def test_low_precision_is_measured_and_refused_beyond_its_bound(tmp_path: Path) -> None:
    backbone = make("torchvision/resnet18", tmp_path)
    inputs = batch(backbone, rows=4)
    fast, done = copied(backbone, inputs, 1.0)
    assert done.dtype == torch.bfloat16
    assert 1e-4 < done.gap < 1.0
    assert {p.dtype for p in fast.module.parameters()} == {torch.bfloat16}
    assert fast.features(inputs).dtype == torch.float32
    exact, kept = copied(backbone, inputs, 1e-6)
    assert kept.dtype == torch.float32
    assert "fp32 was kept" in kept.reason
    assert kept.gap < 1e-3
    assert {p.dtype for p in exact.module.parameters()} == {torch.float32}


class Spectral(nn.Module):
    """A network with an operation, before and between its layers, that has no bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(8, 8), resize=8)
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        images = images + torch.fft.rfft(images).abs().mean(-1, keepdim=True)
        return self.out(self.conv(images)).relu()


def test_what_cannot_run_in_low_precision_runs_there_by_operation() -> None:
    backbone = backbones.load(Spectral())
    inputs = batch(backbone, rows=4)
    fast, done = inference.Copies(backbone, inputs).of(torch.bfloat16)
    assert done.dtype == torch.bfloat16
    assert "bfloat16 by operation" in done.reason
    seen: list[torch.dtype] = []
    fast.module.conv.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    assert fast.features(inputs).dtype == torch.float32
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in fast.module.parameters()} == {torch.float32}


def test_where_fp32_was_kept_the_passing_of_a_run_in_bf16_changes_nothing(tmp_path: Path) -> None:
    for backbone in (backbones.load(Spectral()), make("torchvision/resnet18", tmp_path)):
        inputs = batch(backbone, rows=4)
        exact, kept = copied(backbone, inputs, 1e-6)
        assert kept.dtype == torch.float32
        with torch.no_grad():
            alone = exact.features(inputs)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(exact.features(inputs), alone)
                assert not torch.equal(backbone.features(inputs), alone), "what a run in bf16 would have made of it"


class Rounded(nn.Module):
    """A network with a table that no state dict holds, whose answers in bf16 are far off or no numbers."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(8, 8), resize=8)
        self.conv, self.out, self.factor = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), factor
        self.register_buffer("table", torch.linspace(0.1, 1.7, 6).view(6, 1) ** 3, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images) * self.table
        return self.out(maps * self.factor if maps.dtype == torch.bfloat16 else maps.float())


@pytest.mark.parametrize("factor", [40.0, math.nan])
@pytest.mark.parametrize(("tolerance", "taken"), [(None, torch.bfloat16), (1e-6, torch.float32)])
def test_what_bf16_leaves_is_the_network_as_it_was(factor: float, tolerance: float | None, taken: torch.dtype) -> None:
    backbone = backbones.load(Rounded(factor))
    inputs = batch(backbone, rows=4)
    fast, done = copied(backbone, inputs, tolerance, channels_last=False)
    assert fast.casts == done.dtype == taken
    assert torch.equal(fast.module.table, backbone.module.table)
    with torch.no_grad():
        assert torch.equal(fast.features(inputs), backbone.features(inputs)) == (taken == torch.float32)


class ReadTwice(nn.Module):
    """The convolution's output is also read beside BatchNorm: folding would change what the other reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(8, 8), resize=8)
        self.conv, self.norm, self.out = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.out(self.norm(maps) + maps).relu()


def test_planted_fault_a_fold_that_changes_features_is_left_out() -> None:
    backbone = backbones.load(ReadTwice())
    statistics(backbone, 3 * torch.randn(16, 3, 8, 8))
    inputs = batch(backbone, rows=4)
    fast, done = inference.Copies(backbone, inputs, channels_last=False).of(torch.float32)
    assert done.folded == 0
    assert torch.equal(fast.features(inputs), backbone.features(inputs))


@pytest.mark.parametrize(("dtype", "copies"), [(torch.float32, 1), (torch.bfloat16, 2)])
def test_no_forward_is_computed_twice(
    dtype: torch.dtype, copies: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = make("torchvision/resnet18", tmp_path)
    rows: list[int] = []
    features = type(backbone).features

    def counted(self: backbones.Backbone, inputs: Tensor) -> Tensor:
        rows.append(len(inputs))
        return features(self, inputs)

    monkeypatch.setattr(type(backbone), "features", counted)
    _, done = copied(backbone, batch(backbone, rows=4), 1.0, dtype)
    assert done.dtype == dtype
    assert done.fused == 9
    seen = [2] * 4  # to see BatchNorm's pairs and to prove them, and those of activations
    assert rows == [4, *seen, *[4] * copies], (
        "the original, two rows for the pairs, the copies: one in bf16 takes the folds of the exact one"
    )
