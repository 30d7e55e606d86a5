"""Likeness to the pretraining data: each measurement by its definition, on toys made near and far, and on real sets.

Shapes: N rows, C channels, H and W of a picture, S source classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine import similarity
from headstart.engine.streams import Examples
from headstart.models import backbone
from headstart.models.backbone import Backbone, Origin, SourceHead

SPEC = ImageSpec(size=(32, 32), resize=32)


def of_pictures(pictures: np.ndarray) -> Examples:
    rows = Rows(list(pictures), np.zeros(len(pictures), np.int64), tuple(map(str, range(len(pictures)))))
    return Examples("train", rows, Store.build(rows, SPEC), SPEC)


def noise(n: int, low: int = 0, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (n, 32, 32, 3)).astype(np.uint8)


def network(*layers: nn.Module, head: SourceHead | None = None, weights: str = "pretrained") -> Backbone:
    module = nn.Sequential(*layers)
    return Backbone(
        module, spec=SPEC, origin=Origin("toy", "own", weights), architecture={}, source_head=head, blocks=("0",)
    )


def corner_network() -> Backbone:
    """Features are the means of four quarters; the source classifier is sure where the upper left one is brightest."""
    weight = torch.zeros(10, 4)
    weight[0, 0], weight[0, 1:] = 9.0, -3.0
    return network(
        nn.Conv2d(3, 1, 1, bias=False).requires_grad_(False), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        head=SourceHead(weight, torch.zeros(10)),
    )  # fmt: skip


@pytest.fixture
def corners() -> Backbone:
    net = corner_network()
    nn.init.ones_(net.module[0].weight)
    return net


def test_shuffling_moves_tiles_and_changes_nothing_else() -> None:
    pictures = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    mixed = similarity.shuffled(pictures, torch.Generator().manual_seed(0))
    assert not torch.equal(mixed, pictures)
    for one, other in zip(pictures, mixed, strict=True):
        tiles = {tuple(tile.flatten().tolist()) for row in one.split(4, 1) for tile in row.split(4, 2)}
        moved = {tuple(tile.flatten().tolist()) for row in other.split(4, 1) for tile in row.split(4, 2)}
        assert tiles == moved
    again = similarity.shuffled(pictures, torch.Generator().manual_seed(0))
    assert torch.equal(mixed, again)


def test_a_remainder_of_the_tiles_is_blank() -> None:
    pictures = torch.ones(2, 3, 18, 21)
    mixed = similarity.shuffled(pictures, torch.Generator())
    assert mixed.shape == pictures.shape
    assert float(mixed.sum()) == 2 * 3 * 16 * 20


def test_the_divergence_is_that_of_gaussians() -> None:
    layer = nn.BatchNorm2d(5)
    with torch.no_grad():
        layer.running_mean.copy_(torch.randn(5))
        layer.running_var.copy_(torch.rand(5) + 0.5)
    inputs = torch.randn(12, 5, 7, 7) * 2 + 1
    layer.eval()
    with similarity.observed(layer) as divergence:
        for part in inputs.split(5):  # unequal batches
            layer(part)
    flat = inputs.transpose(0, 1).flatten(1)
    seen = torch.distributions.Normal(flat.mean(1), flat.var(1, unbiased=False).sqrt())
    kept = torch.distributions.Normal(layer.running_mean, layer.running_var.sqrt())
    expected = torch.distributions.kl_divergence(seen, kept).median()
    assert divergence() == pytest.approx(float(expected), rel=1e-3)
    assert not layer._forward_pre_hooks


def test_without_batchnorm_there_is_no_divergence() -> None:
    with similarity.observed(nn.Linear(3, 3)) as divergence:
        assert divergence() is None


def test_pictures_with_the_statistics_of_the_pretraining_data_are_near() -> None:
    net = network(
        nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    examples = of_pictures(noise(40))
    net.train()
    with torch.no_grad():
        for _ in range(60):
            net.module(net.intake.normalise(torch.from_numpy(noise(16, seed=1)).permute(0, 3, 1, 2)))
    net.module[2].eval()
    found = similarity.measure(net, examples)
    assert found.level == "near"
    assert found.value is not None
    assert found.value > 0.9
    assert (net.module[0].training, net.module[2].training) == (True, False)  # left as it was
    dark = similarity.measure(net, of_pictures(noise(40, 0, 60)))
    assert dark.level == "far"
    assert dark.value is not None
    assert dark.value < 0.1
    with torch.no_grad():  # the planted fault: statistics that are not of these pictures
        net.module[2].running_mean += 3 * net.module[2].running_var.sqrt()
    assert similarity.measure(net, examples).level == "far"


def test_pictures_that_the_source_classifier_recognises_are_near(corners: Backbone) -> None:
    pictures = noise(32, 0, 60)
    pictures[:, :16, :16] += 190
    found = similarity.measure(corners, of_pictures(pictures))
    assert found.level == "near"
    assert found.facts["certainty"] > 2 * found.facts["certainty_shuffled"]
    assert "times as sure" in found.reason
    bright = similarity.measure(corners, of_pictures(noise(32, 190, 250)))
    assert bright.level == "far"  # as sure of the tiles as of the whole


def test_what_cannot_be_measured_is_unknown(corners: Backbone) -> None:
    examples = of_pictures(noise(16))
    plain = network(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    few = of_pictures(noise(3))
    random = corner_network()
    random.origin = replace(random.origin, weights="random")
    for net, given, says in ((plain, examples, "neither"), (corners, few, "too few"), (random, examples, "random")):
        found = similarity.measure(net, given)
        assert (found.value, found.level) == (None, "unknown")
        assert says in found.reason


def test_the_same_seed_measures_the_same(examples: Callable[..., Examples], corners: Backbone) -> None:
    given = examples(40)
    first = similarity.measure(corners, given, rows=16, seed=3)
    assert first == similarity.measure(corners, given, rows=16, seed=3)
    assert first.facts["rows"] == 16


@pytest.mark.real
def test_photographs_are_near_to_imagenet_and_drawings_and_digits_are_far(shared_data: Path) -> None:
    net = backbone.load(
        "torchvision/mobilenet_v2", weights=str(shared_data / "weights" / "mobilenet_v2_imagenet.safetensors")
    )
    values, levels = {}, {}
    for folder in ("hymenoptera/train", "pacs/photo", "pacs/cartoon"):
        files = sorted((shared_data / folder).glob("*/*"))
        files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:64]]
        rows = Rows([str(file) for file in files], np.zeros(64, np.int64), tuple(file.name for file in files))
        found = similarity.measure(net, Examples("train", rows, Store.build(rows, net.spec), net.spec))
        values[folder], levels[folder] = found.value, found.level
    with np.load(shared_data / "digits" / "mnist.npz") as stored:
        digits = np.repeat(stored["x_train"][:64, :, :, None], 3, axis=3)
    rows = Rows(list(digits), np.zeros(64, np.int64), tuple(map(str, range(64))))
    found = similarity.measure(net, Examples("train", rows, Store.build(rows, net.spec), net.spec))
    values["mnist"], levels["mnist"] = found.value, found.level
    assert levels == {
        "hymenoptera/train": "near",
        "pacs/photo": "near",
        "pacs/cartoon": "far",
        "mnist": "far",
    }, values
