"""What trains, what stays: thawing, BatchNorm policies, modes and the hash of what is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError
from headstart.data.modalities.image import ImageSpec
from headstart.models import backbone as backbones
from headstart.models import blocks, heads
from headstart.models.model import Model

from .networks_zoo import QUICK, batch, make


def tiny(bn: Any = "frozen_eval") -> Model:
    backbone = backbones.load("builtin/tiny", image_size=32)
    return Model(backbone, heads.build("linear", backbone.feature_dim, 3), "abc", bn=bn)


@pytest.mark.parametrize("name", QUICK)
def test_depths_divide_all_parameters(name: str, tmp_path: Path) -> None:
    backbone = make(name, tmp_path)
    backbone.verify(batch(backbone))
    names = {parameter for parameter, _ in backbone.module.named_parameters()}
    count = len(backbone.blocks)
    for found in (blocks.depths(backbone.module, backbone.blocks), backbone.depths()):
        assert found.keys() == names
        assert set(found.values()) <= set(range(count + 1))
        for index, block in enumerate(backbone.blocks):
            inside = {parameter for parameter in names if parameter.startswith(f"{block}.")}
            assert inside
            assert {found[parameter] for parameter in inside} == {index + 1}
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 3), "abc")
    assert model.depths().keys() == {parameter for parameter, _ in model.named_parameters()}
    assert sum(layer.params for layer in model.layers()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("count", "thawed"), [(0, 0), (1, 1), (3, 3), (4, 4), ("all", 4), (0.25, 1), (0.3, 2), (0.5, 2), (1.0, 4)]
)
def test_thawing(count: Any, thawed: int) -> None:
    model = tiny()
    model.thaw("all")
    model.thaw(count)
    assert model.frozen_prefix == 4 - thawed
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"head.last.weight", "head.last.bias"} <= trains
    assert any(name.startswith("backbone.module.stem") for name in trains) is (thawed == 4)
    layers = {layer.name: layer for layer in model.layers()}
    assert [layers[f"blocks.{i}"].trainable > 0 for i in range(4)] == [i >= 4 - thawed for i in range(4)]
    assert layers["head"].depth == 5
    assert sum(layer.trainable for layer in layers.values()) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )


@pytest.mark.parametrize("count", [-1, 5, 1.5, 0.0, "most", True, None])
def test_wrong_counts_are_refused(count: Any) -> None:
    with pytest.raises(ConfigError, match="cannot thaw"):
        tiny().thaw(count)


def step(model: Model) -> None:
    """One optimizer step on what trains, in training mode."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    inputs = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    nn.functional.cross_entropy(model(inputs), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    optimizer.step()


def test_frozen_things_do_not_move_and_the_others_do() -> None:
    for count in (0, 1, 2, 3):
        model = tiny()
        model.thaw(count)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        frozen = model.frozen_hash()
        step(model)
        assert model.frozen_hash() == frozen
        after = model.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        last = tuple(f"backbone.module.blocks.{i}." for i in range(4 - count, 4))
        assert {name for name in before if name.startswith((*last, "head."))} == moved


def test_planted_faults_change_the_hash() -> None:
    def plant(model: Model, path: str, name: str) -> str:
        with torch.no_grad():
            value = getattr(model.get_submodule(path), name)
            value.view(-1)[0] += 1
        return model.frozen_hash()

    model = tiny()
    model.thaw(2)
    frozen = model.frozen_hash()
    assert plant(model, "backbone.module.stem.0", "weight") != frozen
    frozen = model.frozen_hash()
    assert plant(model, "backbone.module.blocks.1.first.1", "running_mean") != frozen
    frozen = model.frozen_hash()
    assert plant(model, "backbone.module.blocks.3.first.1", "running_mean") == frozen
    assert plant(model, "backbone.module.blocks.3.first.0", "weight") == frozen


def moved_statistics(model: Model) -> set[str]:
    before = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    step(model)
    return {
        n.split(".first")[0].split(".second")[0]
        for n, b in model.named_buffers()
        if n in before and not torch.equal(b, before[n])
    }


def test_batch_norm_policies() -> None:
    for bn, wanted in {"frozen_eval": {"backbone.module.blocks.3"}, "eval": set()}.items():
        model = tiny(bn)
        model.thaw(1)
        assert {name for name in moved_statistics(model) if "shortcut" not in name} == wanted
    model = tiny("train")
    model.thaw(1)
    assert model.frozen_prefix == 0, "statistics move below the frontier: nothing can be cached"
    frozen = model.frozen_hash()
    assert "backbone.module.stem.1.running_mean" in moved_statistics(model)
    assert model.frozen_hash() == frozen
    with pytest.raises(ConfigError, match="BatchNorm policy"):
        tiny("freeze")


class WithDropout(nn.Module):
    """Dropout before the blocks, inside them, and after."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ImageSpec(size=(4, 4), resize=4)
        self.stem = nn.Linear(12, 8)
        self.early = nn.Dropout(0.5)
        self.blocks_ = nn.ModuleList(nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8)) for _ in range(3))
        self.late = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        value = self.early(self.stem(images.mean(dim=3).flatten(1)))
        for block in self.blocks_:
            value = block(value)
        return self.late(value)


def test_chance_acts_only_above_the_frontier() -> None:
    model = Model(backbones.load(WithDropout()), heads.build("linear", 8, 2), "ab")
    net = model.backbone.module
    for count, wanted in {
        0: [False, False, False, False, False],
        1: [False, False, False, True, True],
        2: [False, False, True, True, True],
        "all": [True, True, True, True, True],
    }.items():
        model.eval()
        model.train()
        model.thaw(count)
        active = [net.early.training, *(block[0].training for block in net.blocks_), net.late.training]
        assert active == wanted, count
        assert model.head.training
    model.eval()
    assert not any(part.training for part in model.modules())


def test_float_inputs_are_taken_as_normalised() -> None:
    model = tiny().eval()
    inputs = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    spec = model.backbone.spec
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    assert torch.allclose(model(inputs), model((inputs / 255 - mean) / std), atol=1e-5)
    assert model.backbone.hidden(inputs).shape == (2, 128, 1, 1)
