"""What the exporter must not take away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.deploy import graph
from headstart.deploy.runtimes import onnxruntime
from headstart.models import backbone as backbones
from headstart.models import heads
from headstart.models.model import Model


class Small(nn.Module):
    """Numbers that keep logarithms and quotients of black pictures finite; black is below 0 once it is normalised."""

    def __init__(self, small: float) -> None:
        super().__init__()
        self.small = small

    def forward(self, pictures: Tensor) -> Tensor:
        values = pictures.flatten(2).clamp_min(0).sum(-1)  # (B, 3)
        shares = values / (values.norm(dim=-1, keepdim=True) + self.small)
        return torch.cat([(values + self.small).log(), shares, (self.small + values).log10(), (values - 1e-9)], dim=1)


@pytest.mark.parametrize("small", [1e-7, 1e-8, 1e-9, 1e-12])
def test_small_numbers_are_kept(small: float, tmp_path: Path) -> None:
    backbone = backbones.load(Small(small), image_size=8)
    head = heads.build("linear", backbone.feature_dim, 2, classes=("a", "b"), seed=0)
    nn.init.normal_(head.last.weight, generator=torch.Generator().manual_seed(0))
    model = Model(backbone, head, ("a", "b")).eval()
    graph.write(model, tmp_path / "m.onnx")
    pictures = np.random.default_rng(0).integers(0, 256, backbone.spec.blank(4).shape, dtype=np.uint8)
    pictures[:2] = 0
    wanted = graph.golden(model, pictures)
    assert np.isfinite(wanted.logits).all()
    np.testing.assert_allclose(onnxruntime.load(tmp_path / "m.onnx", threads=1)(pictures)[0], wanted.logits, rtol=1e-4)
