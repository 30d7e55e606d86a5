"""Mixup and CutMix against torchvision, their laws, and what they do to a network."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from headstart.core import keyed
from headstart.core.errors import ConfigError
from headstart.engine.mixing import Draw, Mixer, apply, cut
from headstart.tasks.classify import loss

CLASSES = 5


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (6, 3, 9, 12), dtype=torch.uint8, generator=rng)
    return inputs, torch.randint(0, CLASSES, (6,), generator=rng)


def torchvisions(transform, params, inputs, targets):
    """torchvision's own kernels at the parameters given, instead of those it would draw."""
    soft = transform.transform(targets, {**params, "labels": targets, "batch_size": len(targets)})
    return transform.transform(inputs, {**params, "labels": targets, "batch_size": len(targets)}), soft


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.75, 1.0])
def test_mixup_is_torchvisions(batch, lam):
    inputs, targets = batch[0].float() / 255, batch[1]
    expected = torchvisions(v2.MixUp(num_classes=CLASSES), {"lam": lam}, inputs, targets)
    mixed, soft = apply(Draw("mixup", lam), inputs, targets, CLASSES)
    torch.testing.assert_close(mixed, expected[0])
    torch.testing.assert_close(soft, expected[1])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutmix_is_torchvisions(batch, dtype):
    inputs, targets = batch[0].to(dtype), batch[1]
    for index in range(20):
        rng = np.random.default_rng(index)
        drawn = Mixer(0.0, 1.0, 1.0, CLASSES).draw(9, 12, rng)
        top, bottom, left, right = drawn.box
        params = {"box": (left, top, right, bottom), "lam_adjusted": drawn.lam}
        expected = torchvisions(v2.CutMix(num_classes=CLASSES), params, inputs, targets)
        mixed, soft = apply(drawn, inputs, targets, CLASSES)
        assert torch.equal(mixed, expected[0])
        torch.testing.assert_close(soft, expected[1])


def test_the_box_is_torchvisions(monkeypatch):
    """The same lambda and centre through torchvision's make_params."""
    transform = v2.CutMix(num_classes=CLASSES)
    for lam, row, column in [(0.5, 0, 0), (0.1, 8, 11), (0.9, 4, 6), (0.0, 3, 3), (1.0, 5, 5)]:
        monkeypatch.setattr(transform._dist, "sample", lambda *shape, lam=lam: torch.tensor([lam]).double())
        drawn = iter([torch.tensor([column]), torch.tensor([row])])
        monkeypatch.setattr(torch, "randint", lambda *args, drawn=drawn, **kwargs: next(drawn))
        expected = transform.make_params([torch.zeros(6, 3, 9, 12)])
        found, (top, bottom, left, right) = cut(lam, 9, 12, (row, column))
        assert (left, top, right, bottom) == expected["box"]
        assert found == pytest.approx(expected["lam_adjusted"])


def test_lambda_is_the_share_of_pixels_that_stayed():
    """Also where the border clipped the box: the planted fault is a label that keeps the lambda drawn."""
    ours = torch.zeros(2, 1, 16, 20)
    ours[1] = 1.0
    clipped = 0
    for index in range(200):
        drawn = Mixer(0.0, 1.0, 1.0, 2).draw(16, 20, np.random.default_rng(index))
        mixed, soft = apply(drawn, ours, torch.tensor([0, 1]), 2)
        assert mixed[0].mean().item() == pytest.approx(soft[0, 1].item(), abs=1e-6)
        clipped += 0 in drawn.box[::2]
    assert clipped > 20


@pytest.mark.parametrize("drawn", [Draw("mixup", 0.3), Draw("cutmix", 0.5, (0, 3, 2, 9))])
def test_targets_are_shares_and_the_batch_keeps_its_mean(batch, drawn):
    inputs, targets = batch
    mixed, soft = apply(drawn, inputs, targets, CLASSES)
    assert torch.allclose(soft.sum(1), torch.ones(6))
    assert torch.allclose(soft.sum(0), nn.functional.one_hot(targets, CLASSES).float().sum(0))
    assert mixed.dtype == torch.uint8
    if drawn.kind == "mixup":
        assert (mixed.float().mean(0) - inputs.float().mean(0)).abs().max() <= 0.5
    floating, _ = apply(drawn, inputs.float(), targets, CLASSES)
    assert (floating - mixed.float()).abs().max() <= 0.5 + 1e-4
    assert floating.mean().item() == pytest.approx(
        inputs.float().mean().item(), abs=8 if drawn.kind == "cutmix" else 0.01
    )


def test_before_or_after_normalisation_is_the_same(batch):
    inputs, targets = batch
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
    drawn = Draw("mixup", 0.37)
    before = (apply(drawn, inputs, targets, CLASSES)[0] / 255 - mean) / std
    after = apply(drawn, (inputs / 255 - mean) / std, targets, CLASSES)[0]
    assert (before - after).abs().max() <= 0.5 / 255 / 0.2 + 1e-5


def test_inputs_stay_as_they_were_and_layout_is_kept(batch):
    inputs, targets = batch[0].contiguous(memory_format=torch.channels_last), batch[1]
    for drawn in (Draw("mixup", 0.3), Draw("cutmix", 0.5, (0, 3, 2, 9))):
        for given in (inputs.clone(memory_format=torch.preserve_format), inputs.float()):
            before = given.clone()
            mixed, _ = apply(drawn, given, targets, CLASSES)
            assert torch.equal(given, before)
            assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_soft_targets_can_be_mixed_again(batch):
    inputs, targets = batch
    one_hot = nn.functional.one_hot(targets, CLASSES).float()
    drawn = Draw("mixup", 0.3)
    assert torch.equal(apply(drawn, inputs, one_hot, CLASSES)[1], apply(drawn, inputs, targets, CLASSES)[1])


def test_a_draw_is_a_function_of_its_key_alone(batch):
    inputs, targets = batch
    mixer = Mixer(0.4, 1.0, 1.0, CLASSES)
    first = mixer(inputs, targets, (42, 0, 7))
    mixer(inputs, targets, (42, 0, 8))
    again = mixer(inputs, targets, (42, 0, 7))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    mixer = Mixer(0.4, 0.0, 1.0, CLASSES)
    draws = {mixer.draw(9, 12, keyed.generator(42, "mixing", 0, step)) for step in range(50)}
    assert len(draws) == 50


def test_draws_follow_probability_and_beta():
    mixer = Mixer(0.2, 1.0, 0.6, CLASSES)
    draws = [mixer.draw(32, 32, keyed.generator(0, step)) for step in range(4000)]
    kinds = {kind: sum(drawn.kind == kind for drawn in draws) / 4000 for kind in ("none", "mixup", "cutmix")}
    assert kinds == pytest.approx({"none": 0.4, "mixup": 0.3, "cutmix": 0.3}, abs=0.03)
    lams = np.array([drawn.lam for drawn in draws if drawn.kind == "mixup"])
    assert lams.mean() == pytest.approx(0.5, abs=0.03)
    assert lams.var() == pytest.approx(0.25 / (2 * 0.2 + 1), abs=0.02)  # of Beta(a, a): 1 / (4 (2a + 1))


def test_each_kind_follows_its_own_alpha_and_boxes_come_everywhere():
    """A CutMix of one size beside a mixup of almost nothing, on pictures wider than they are high."""
    mixer, covered = Mixer(0.02, 500.0, 1.0, 2), np.zeros((12, 40), bool)
    draws = [mixer.draw(12, 40, np.random.default_rng(step)) for step in range(300)]
    boxes = [drawn for drawn in draws if drawn.kind == "cutmix"]
    for drawn in boxes:
        top, bottom, left, right = drawn.box
        assert 0 <= top < bottom <= 12
        assert 0 <= left < right <= 40
        covered[top:bottom, left:right] = True
        assert drawn.lam > 0.4
    assert covered.all()
    mixed = np.array([drawn.lam for drawn in draws if drawn.kind == "mixup"])
    assert (np.abs(mixed - 0.5) > 0.45).mean() > 0.8
    assert len(boxes) + len(mixed) == 300


def test_nothing_is_mixed_where_nothing_is_asked(batch):
    inputs, targets = batch
    for mixer in (Mixer(0.0, 0.0, 1.0, CLASSES), Mixer(1.0, 1.0, 0.0, CLASSES)):
        mixed, same = mixer(inputs, targets, (0, 0, 0))
        assert mixed is inputs
        assert same is targets
    for wrong in ((-1.0, 0.0, 1.0), (0.2, -0.1, 1.0), (0.2, 0.0, 1.5)):
        with pytest.raises(ConfigError):
            Mixer(*wrong, classes=CLASSES)


def trained(mixer):
    """A network on two clouds of "pictures" (B, 2, 1, 1), 400 steps, and the clouds' centres."""
    torch.manual_seed(0)
    labels = torch.arange(2).repeat(32)
    inputs = torch.randn(64, 2, 1, 1) * 0.3 + (labels * 4.0 - 2.0)[:, None, None, None]
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(400):
        rows = torch.as_tensor(keyed.order(0, 0, step, 64))
        mixed, targets = mixer(inputs[rows], labels[rows], (0, 0, step))
        optimizer.zero_grad()
        loss(model(mixed), targets).backward()
        optimizer.step()
    return model


@torch.no_grad()
def test_mixup_makes_predictions_between_classes_linear():
    """Zhang et al. 2018, section 3: between two examples the prediction follows the share of each."""
    shares = torch.linspace(0, 1, 11)
    between = (shares * 4.0 - 2.0)[:, None, None, None].expand(11, 2, 1, 1)
    with torch.enable_grad():
        plain, mixed = trained(Mixer(0.0, 0.0, 1.0, 2)), trained(Mixer(1.0, 0.0, 1.0, 2))
    bend = [(model(between).softmax(1)[:, 1] - shares).abs().mean().item() for model in (plain, mixed)]
    assert bend[1] < 0.05 < 0.15 < bend[0]
    sure = [model(between).softmax(1).max().item() for model in (plain, mixed)]
    assert sure[1] < sure[0]


def test_cutmix_makes_a_network_answer_by_the_share_of_the_picture():
    """Yun et al. 2019: with half a picture pasted over, the answer is half each, not the loudest patch's alone."""

    def network(mixer):
        torch.manual_seed(0)
        labels = torch.arange(2).repeat(16)
        inputs = torch.randn(32, 1, 8, 8) * 0.5 + (labels * 2.0 - 1.0)[:, None, None, None]
        model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model.append(nn.Linear(8, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for step in range(150):
            mixed, targets = mixer(inputs, labels, (0, 0, step))
            optimizer.zero_grad()
            loss(model(mixed), targets).backward()
            optimizer.step()
        halves = torch.randn(20, 1, 8, 8) * 0.5 + 1.0
        halves[..., :3] -= 2.0  # three eighths of class 0
        return model(halves).softmax(1)[:, 0].detach()

    plain, mixed = network(Mixer(0.0, 0.0, 1.0, 2)), network(Mixer(0.0, 1.0, 1.0, 2))
    assert abs(mixed.mean().item() - 0.375) < 0.12
    assert abs(mixed.mean().item() - 0.375) < abs(plain.mean().item() - 0.375)
