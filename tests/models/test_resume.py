"""Cached = live: features, logits and gradients from every block, for networks of three libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.models import backbone as backbones
from headstart.models import heads, resume
from headstart.models.backbone import Backbone
from headstart.models.model import Model

from .networks_zoo import QUICK, SLOW_TORCHVISION, batch, make
from .parity import check

SLOW = [pytest.param(f"torchvision/{name}", marks=pytest.mark.slow) for name in SLOW_TORCHVISION]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_cached_equals_live(name: str, tmp_path: Path) -> None:
    backbone = make(name, tmp_path)
    inputs = batch(backbone)
    verification = backbone.verify(inputs)
    assert verification.ok, verification.reason
    assert len(backbone.blocks) >= 3
    check(backbone, inputs)


def test_three_libraries_and_twelve_architectures_are_walked() -> None:
    assert len({name.partition("/")[0] for name in QUICK}) >= 3
    assert len(QUICK) >= 12


class InPlace(nn.Module):
    """Edits what a block returned, in place: the trap for records that share memory."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.spec = small_spec()

    def forward(self, images: Tensor) -> Tensor:
        value = images.mean(dim=3).flatten(1)
        for part in self.parts:
            value = part(value).mul_(1.5).relu_()
        return value


def small_spec() -> Any:
    from headstart.data.modalities.image import ImageSpec

    return ImageSpec(size=(2, 2), resize=2)


def own(module: nn.Module) -> Backbone:
    return backbones.load(module).eval()


def test_records_are_clones() -> None:
    backbone = own(InPlace())
    inputs = batch(backbone)
    assert backbone.verify(inputs).ok
    value = resume.record(backbone, 2, inputs)
    before = value.clone()
    backbone.features(inputs)
    resume.features_from(backbone, 2, value, 3)
    assert torch.equal(value, before)


def test_planted_fault_a_record_that_shares_memory_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = own(InPlace())
    monkeypatch.setattr(resume, "clone", lambda value: value)
    assert not backbone.verify(batch(backbone)).ok


def test_planted_fault_expanded_stand_ins_are_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = own(InPlace())
    monkeypatch.setattr(resume, "_zeros", lambda value: value.new_zeros(()).expand(value.shape))
    assert not backbone.verify(batch(backbone)).ok


class Shared(nn.Module):
    """One layer called three times, as ALBERT does; the rest is small."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = small_spec()
        self.steps = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)])

    def forward(self, images: Tensor) -> Tensor:
        value = images.mean(dim=3).flatten(1)
        for _ in range(3):
            value = self.steps[0](value).relu()
        return self.steps[2](self.steps[1](value))


class Skipping(nn.Module):
    """The last step also reads what the first one wrote: block 2 alone does not determine what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = small_spec()
        self.steps = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, images: Tensor) -> Tensor:
        first = self.steps[0](images.mean(dim=3).flatten(1))
        return self.steps[3](self.steps[2](self.steps[1](first)) + first)


class Shuffled(Skipping):
    """Registered in another order than it runs."""

    def forward(self, images: Tensor) -> Tensor:
        value = images.mean(dim=3).flatten(1)
        for index in (2, 0, 3, 1):
            value = self.steps[index](value).tanh()
        return value


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Shared(), "exactly once ('steps.0' 3 times"),
        (Skipping(), "gives other features"),
        (Shuffled(), "another order"),
    ],
)
def test_networks_that_are_no_chain_count_as_one_block(module: nn.Module, words: str) -> None:
    backbone = own(module)
    inputs = batch(backbone)
    verification = backbone.verify(inputs)
    assert not verification.ok
    assert verification.blocks == backbone.blocks == ("",)
    assert words in verification.reason
    assert "one block" in verification.reason
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 2), "ab")
    model.thaw(0)
    assert model.frozen_prefix == 1  # pooled features can still be cached
    value = resume.record(backbone, 1, inputs)
    assert torch.equal(resume.features_from(backbone, 1, value, 3), backbone.features(inputs))
    model.thaw("all")
    assert model.frozen_prefix == 0


def test_albert_is_refused() -> None:
    import transformers as hf

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spec = small_spec()
            settings = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
            self.albert = hf.AlbertModel(hf.AlbertConfig(vocab_size=300, embedding_size=8, **settings))
            self.blocks = ("albert.embeddings", "albert.encoder.albert_layer_groups.0")

        def forward(self, images: Tensor) -> Tensor:
            tokens = ((images.flatten(1) - images.min()) * 20).long().clamp(0, 299)
            return self.albert(input_ids=tokens).last_hidden_state

    torch.manual_seed(0)
    backbone = own(Reader())
    assert backbone.blocks[1].endswith("albert_layer_groups.0")
    inputs = batch(backbone)
    backbone.verify(inputs)
    assert "albert.encoder.albert_layer_groups.0" not in backbone.blocks


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((6,), 1.5))

    def forward(self, value: Tensor) -> Tensor:
        return value * self.factor


class OddlyRegistered(nn.Module):
    """Registration lies: ``late`` works before the blocks too, and ``first`` only after them."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = small_spec()
        self.first = Scale()
        self.stem = Scale()
        self.steps = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.late = Scale()
        self.last = Scale()

    def forward(self, images: Tensor) -> Tensor:
        value = self.late(self.stem(images.mean(dim=3).flatten(1)))
        for step in self.steps:
            value = step(value).tanh()
        return self.last(self.late(self.first(value)))


def test_where_parameters_outside_the_blocks_work_is_measured() -> None:
    backbone = own(OddlyRegistered())
    guess = backbone.depths()
    assert (guess["first.factor"], guess["late.factor"]) == (0, 3)
    backbone.verify(batch(backbone))
    assert backbone.blocks == ("steps.0", "steps.1", "steps.2")
    depths = backbone.depths()
    assert [depths[f"{name}.factor"] for name in ("first", "stem", "late", "last")] == [3, 0, 0, 3]
    model = Model(backbone, heads.build("linear", 6, 2), "ab")
    model.thaw(1)
    trains = {name for name, p in backbone.module.named_parameters() if p.requires_grad}
    assert trains == {"steps.2.weight", "steps.2.bias", "first.factor", "last.factor"}
    assert model.frozen_prefix == 2


def test_a_network_that_draws_in_eval_mode_is_refused() -> None:
    class Drawing(InPlace):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + torch.rand(1)

    backbone = own(Drawing())
    with pytest.raises(Exception, match="answers differently each time"):
        backbone.verify(batch(backbone))


def test_modes_hooks_and_forwards_are_put_back() -> None:
    backbone = own(InPlace())
    backbone.train()
    modes = [part.training for part in backbone.modules()]
    inputs = batch(backbone)
    backbone.verify(inputs)
    value = resume.record(backbone, 2, inputs)
    with pytest.raises(ZeroDivisionError), resume.resumed(backbone, 2, value):
        raise ZeroDivisionError
    assert modes == [part.training for part in backbone.modules()]
    assert all("forward" not in part.__dict__ and not part._forward_hooks for part in backbone.modules())
    assert backbone.stand_in is None


def test_records_made_while_measuring_serve_training() -> None:
    backbone = own(InPlace())
    inputs = batch(backbone)
    with torch.inference_mode():
        value = resume.record(backbone, 2, inputs)
        resume.features_from(backbone, 2, value, 3)
    resume.features_from(backbone, 2, value, 3).sum().backward()
    assert backbone.module.parts[2].weight.grad is not None
    assert backbone.module.parts[1].weight.grad is None


def test_k_is_checked() -> None:
    backbone = own(InPlace())
    for k in (0, 5):
        with pytest.raises(ValueError, match=r"1 \.\. 4"):
            resume.record(backbone, k, batch(backbone))
    value = resume.record(backbone, 2, batch(backbone))
    with pytest.raises(ValueError, match="holds 3 rows"):
        resume.features_from(backbone, 2, value, 4)
