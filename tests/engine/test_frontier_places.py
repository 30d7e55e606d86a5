"""The frontier cache of networks whose blocks are given several places a row: patches, heads, windows.

Shapes: B rows, c places a row, T samples, D features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.data.modalities.audio import AudioSpec
from headstart.engine.cache import FrontierCache, tree_bytes
from headstart.engine.streams import Update
from headstart.models import backbone as backbones
from headstart.models import resume
from headstart.models.backbone import Backbone

from ..models import sounds_zoo


class Patches(nn.Module):
    """Cuts every row into patches that pass the blocks as rows of their own, as YAMNet does."""

    spec = AudioSpec(4_000, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(4)))

    def forward(self, wave: Tensor) -> Tensor:
        parts = wave.unfold(1, 400, 400).unflatten(2, (16, 25)).mean(-1) * 50
        return self.features(parts.flatten(0, 1)).unflatten(0, parts.shape[:2])


def network(name: str, folder: Path) -> Backbone:
    if name == "patches":
        torch.manual_seed(0)
        return backbones.load(Patches()).eval()
    return sounds_zoo.make(name, folder)


@pytest.mark.parametrize("name", ["patches", "wavlm", "wav2vec2"])
def test_rows_from_the_cache_are_the_rows_that_were_put(name: str, tmp_path: Path) -> None:
    backbone = network(name, tmp_path)
    inputs = torch.cat([sounds_zoo.batch(backbone), sounds_zoo.batch(backbone)[:2].flip(1)])
    assert backbone.verify(inputs).ok
    counts = {max(backbone.places[k]) for k in range(1, len(backbone.blocks) + 1)}
    assert counts == {"patches": {5}, "wavlm": {1, 2}, "wav2vec2": {1}}[name]
    wanted = backbone.features(inputs)
    assert wanted.std(dim=0).max() > 1e-4
    for k in range(1, len(backbone.blocks) + 1):
        cache = FrontierCache(k, len(inputs))
        for rows in (np.array([0, 3]), np.array([4, 2]), np.array([1])):
            cache.put(0, rows, resume.record(backbone, k, inputs[rows]))
        taken = np.array([4, 1, 3])
        value = cache.take(0, taken)
        found = resume.features_from(backbone, k, value, 3)
        assert torch.allclose(found, wanted[taken], atol=1e-5)
        assert not torch.allclose(found, wanted[[0, 3, 4]], atol=1e-3)  # planted: the first batch for every other
        assert tree_bytes(value, 3) * len(inputs) == cache.nbytes, "the budget counts something else"
        parts = list(Update(taken, value, torch.zeros(3), k, 3).parts(2))
        again = torch.cat([resume.features_from(backbone, k, part.inputs, len(part.rows)) for part in parts])
        assert torch.allclose(again, wanted[taken], atol=1e-5), "parts of a batch are other rows"


def test_what_does_not_grow_with_the_rows_is_told_apart() -> None:
    class Odd(Patches):
        def forward(self, wave: Tensor) -> Tensor:
            found = super().forward(wave)
            extra = self.features(torch.zeros(1, 16))  # one more call, for no row
            return found + 0 * extra.mean()

    class Joined(Patches):
        """One place more than the rows have: neither the same for any rows, nor so many a row."""

        def forward(self, wave: Tensor) -> Tensor:
            parts = wave.unfold(1, 400, 400).unflatten(2, (16, 25)).mean(-1) * 50
            rows = torch.cat([parts.flatten(0, 1), parts.new_zeros(1, 16)])
            return self.features(rows)[:-1].unflatten(0, parts.shape[:2])

    assert not backbones.load(Odd()).eval().verify(sounds_zoo.batch(backbones.load(Odd()))).ok
    backbone = backbones.load(Joined()).eval()
    assert backbone.verify(sounds_zoo.batch(backbone)).ok
    assert backbone.places[1] == (-1,)
