"""The check of the normalisation: planted wrong ones are found, right ones raise no alarm.

Shapes: N rows, B of a batch, C channels, H and W of a picture, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine import normalisation, precision
from headstart.engine.normalisation import IMAGENET, Normalisation, candidates, compare
from headstart.engine.streams import Examples
from headstart.models import backbone, inference
from headstart.models.model import Model

UNIT, BYTES = ((0.0,) * 3, (1.0,) * 3), ((0.0,) * 3, (1 / 255,) * 3)


def shades(n: int = 192, seed: int = 0, signal: float = 12.0) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures (N, 3, 16, 16) of two classes in turn, which differ in which half is a little brighter."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pictures = rng.normal(124, 40, (n, 3, 16, 16)) + rng.normal(0, 8, (n, 1, 4, 4)).repeat(4, 2).repeat(4, 3)
    pictures[labels == 0, :, :8] += signal
    pictures[labels == 1, :, 8:] += signal
    return torch.from_numpy(pictures.clip(0, 255).astype(np.uint8)), labels


def bounded(inputs: torch.Tensor) -> torch.Tensor:
    """A network made for inputs of size about one: it saturates beyond three, and does not see less than a half."""
    return nn.functional.adaptive_avg_pool2d((inputs.clamp(-3, 3) * 2).round() / 2, 4).flatten(1)


def indifferent(inputs: torch.Tensor) -> torch.Tensor:
    """A network for which every normalisation is as good as another."""
    return nn.functional.adaptive_avg_pool2d(inputs, 4).flatten(1)


def test_a_planted_wrong_normalisation_is_found() -> None:
    pictures, labels = shades()
    found = compare(bounded, pictures, labels, candidates(*BYTES))
    assert found is not None
    assert found.declared.name == "declared"
    assert found.difference.high < 0
    assert found.accuracies[1] > found.accuracies[0]
    assert found.better.name in found.message
    assert "nothing was changed" in found.remedy


def test_a_harm_that_is_less_plain_is_found_mostly() -> None:
    found = [compare(bounded, *shades(seed=seed, signal=30), candidates(*UNIT)) for seed in range(6)]
    better = [each.better.name for each in found if each is not None]
    assert len(better) >= 3
    assert set(better) <= {"ImageNet's mean and std", "mean and std 0.5"}


@pytest.mark.parametrize("seed", range(6))
def test_the_right_normalisation_raises_no_alarm(seed: int) -> None:
    pictures, labels = shades(seed=seed)
    assert compare(bounded, pictures, labels, candidates(*IMAGENET)) is None


@pytest.mark.parametrize("seed", range(6))
def test_an_indifferent_network_raises_no_alarm(seed: int) -> None:
    pictures, labels = shades(seed=seed, signal=5)
    assert compare(indifferent, pictures, labels, candidates(*BYTES)) is None


def test_chance_raises_no_alarm() -> None:
    """Features of other noise under every normalisation, and labels that mean nothing."""
    alarms = 0
    for seed in range(20):
        pictures, labels = shades(96, seed, signal=0)

        def features(inputs: torch.Tensor) -> torch.Tensor:
            generator = torch.Generator().manual_seed(int(inputs.double().sum().abs().item() * 1000) % 2**31)
            return torch.randn(len(inputs), 30, generator=generator)

        alarms += compare(features, pictures, labels, candidates(*IMAGENET)) is not None
    assert alarms == 0


def test_more_rows_are_looked_at_only_while_another_promises_more() -> None:
    seen: list[int] = []

    def counted(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return bounded(inputs)

    pictures, labels = shades(signal=30)
    assert compare(counted, pictures, labels, candidates(*IMAGENET)) is None
    assert sum(seen) == 24 * 4  # the declared one is the first of the usual ones
    seen.clear()
    assert compare(counted, pictures, labels, candidates(*BYTES)) is not None
    assert sum(seen) == 24 * 4 + 2 * 72


def test_a_normalisation_that_overflows_is_left_out() -> None:
    pictures, labels = shades()

    def fragile(inputs: torch.Tensor) -> torch.Tensor:
        return indifferent(inputs) * (torch.inf if inputs.abs().max() > 100 else 1)

    assert compare(fragile, pictures, labels, candidates(*IMAGENET)) is None


@pytest.mark.parametrize(("hits", "found"), [(0.7, False), (0.8, True), (0.9, True)])
def test_a_lower_loss_is_no_finding_where_accuracy_is_lost(
    monkeypatch: pytest.MonkeyPatch, hits: float, found: bool
) -> None:
    """Scripted probes: the declared normalisation hits 0.8 of the rows, another, surer one, so many."""
    rng = np.random.default_rng(0)

    def probe(features: torch.Tensor, targets: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        declared, n = features.max() > 10, len(targets)
        loss = rng.normal(1.0 if declared else 0.4, 0.1, n)
        return loss, np.arange(n) < round(n * (0.8 if declared else hits))

    monkeypatch.setattr(normalisation, "_probe", probe)
    pictures, labels = shades()
    assert (compare(indifferent, pictures, labels, candidates(*BYTES)) is not None) == found


def test_candidates_are_the_usual_ones_that_differ() -> None:
    assert [each.name for each in candidates(*IMAGENET)] == ["declared", "mean and std 0.5", "0 to 1", "0 to 255"]
    assert len(candidates((0.49, 0.48, 0.45), (0.3, 0.3, 0.3))) == 5
    assert [each.name for each in candidates((0.5,), (0.5,))] == ["declared", "0 to 1", "0 to 255"]
    assert len(candidates((0.1,) * 4, (0.2,) * 4)[1].mean) == 4


def test_a_normalisation_is_what_it_says() -> None:
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    applied = Normalisation("own", (0.1, 0.2, 0.3), (1.0, 2.0, 0.5)).apply(pictures).flatten()
    assert applied.tolist() == pytest.approx([-0.1, 0.0, 1.4], abs=1e-6)
    everything = {each.name: each.apply(pictures).flatten().tolist() for each in candidates(*IMAGENET)}
    assert everything["0 to 255"] == pytest.approx([0, 51, 255], abs=1e-3)
    assert everything["0 to 1"] == pytest.approx([0, 0.2, 1], abs=1e-6)
    assert everything["mean and std 0.5"] == pytest.approx([-1, -0.6, 1], abs=1e-6)


def test_rows_are_of_the_largest_classes_in_turn() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(9), [3, 90, 80, 70, 60, 50, 40, 30, 20]))
    rows = normalisation.sample(labels)
    assert len(np.unique(rows)) == len(rows) == 192
    assert sorted(labels[rows[:6]].tolist()) == [1, 2, 3, 4, 5, 6]
    assert np.bincount(labels[rows[:24]]).tolist() == [0, 4, 4, 4, 4, 4, 4]
    assert len(normalisation.sample(np.zeros(100, np.int64))) == 0  # one class
    assert len(normalisation.sample(np.arange(20) % 2)) == 0  # too few rows
    assert len(normalisation.sample(np.arange(100))) == 0  # a row a class
    assert len(normalisation.sample(np.concatenate([np.full(50, -1), np.arange(30) % 2]))) == 30  # unlabelled rows


def test_the_check_leaves_the_backbone_as_it_is(model: Callable[..., Model], examples: Callable[..., Examples]) -> None:
    net = model().backbone
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert normalisation.check(net, examples(60)) is None
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert normalisation.check(net, examples(12)) is None


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "wrong", "dtype"),
    [
        ("pacs/photo", UNIT, torch.float32),
        ("pacs/photo", BYTES, torch.bfloat16),
        ("hymenoptera/train", UNIT, torch.bfloat16),
        ("hymenoptera/train", BYTES, torch.float32),
    ],
)
def test_a_wrong_normalisation_of_real_weights_is_found(
    shared_data: Path, folder: str, wrong: tuple[tuple[float, ...], tuple[float, ...]], dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and (slow := precision.hopeless("cpu")):
        pytest.skip(slow["bf16"])
    net = backbone.load(
        "torchvision/mobilenet_v2", weights=str(shared_data / "weights" / "mobilenet_v2_imagenet.safetensors")
    )
    places = sorted((shared_data / folder).iterdir())
    files = [(str(file), label) for label, place in enumerate(places) for file in sorted(place.iterdir())]
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:300]]
    rows = Rows([name for name, _ in files], np.array([label for _, label in files]), tuple(name for name, _ in files))
    examples = Examples("train", rows, Store.build(rows, net.spec), net.spec)
    sample = next(iter(examples.batches(np.arange(8), batch_size=8))).inputs
    fast, _ = inference.Copies(net, torch.from_numpy(sample)).of(dtype)
    assert normalisation.check(fast, examples) is None
    for buffer, value in zip((fast.intake.mean, fast.intake.std), wrong, strict=True):
        buffer.copy_(torch.tensor(value).view(1, -1, 1, 1))
    found = normalisation.check(fast, examples)
    assert found is not None
    assert found.better.name == "ImageNet's mean and std"
    assert found.accuracies[1] - found.accuracies[0] > 0.05
