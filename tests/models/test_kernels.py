"""The quicker ways: what torch computes, or nearer to it; dropout of its distribution; nothing where none trains."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.models import kernels


def apart(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def heads(rows: int = 3, tokens: int = 7, width: int = 8) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(rows, 2, tokens, width, requires_grad=True) for _ in range(3)]


def masks(tokens: int = 7) -> dict[str, Tensor | None]:
    seen = torch.arange(tokens) < torch.tensor([tokens, 3, 0])[:, None]  # of the last row nothing may be seen
    some = seen | (torch.arange(tokens) == 0)
    bias = torch.zeros(3, 1, 1, tokens).masked_fill(~some[:, None, None], torch.finfo(torch.bfloat16).min)
    padded = torch.arange(tokens) < torch.tensor([tokens, 3, 6])[:, None]
    scattered = torch.rand(3, 2, tokens, tokens, generator=torch.Generator().manual_seed(0)) < 0.5
    return {
        "none": None,
        "bool": seen[:, None, None].expand(3, 1, tokens, tokens),
        "padded": padded[:, None, None],
        "all seen": torch.ones(3, 1, 1, tokens, dtype=torch.bool),
        "scattered": scattered | torch.eye(tokens, dtype=torch.bool),
        "one for all": torch.ones(1, 1, 1, 1, dtype=torch.bool),
        "of keys alone": (torch.arange(tokens) < 5)[None],
        "added": bias,
    }


@pytest.mark.parametrize("kind", list(masks()))
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_and_its_gradients_are_those_of_torch(kind: str, scale: float | None) -> None:
    inputs, mask = heads(), masks()[kind]

    def found(*, quick: bool, low: bool) -> list[Tensor]:
        given = [each.to(torch.bfloat16) if low else each.double() for each in inputs]
        way = kernels.attention if quick else F.scaled_dot_product_attention
        own = mask.to(given[0].dtype) if mask is not None and mask.is_floating_point() else mask
        out = way(*given, attn_mask=own, scale=scale)
        assert out is not None
        weights = torch.linspace(-1, 1, out.numel()).view_as(out)
        return [out.double(), *torch.autograd.grad((out.double() * weights).sum(), inputs)]

    exact, ours = found(quick=False, low=False), found(quick=True, low=True)
    assert max(apart(a, b) for a, b in zip(ours, exact, strict=True)) < 0.02
    assert all(torch.isfinite(each).all() for each in ours)
    if kind == "bool":
        assert not ours[0][2].any(), "where nothing may be seen, nothing is"


def test_a_mask_of_the_least_float_hides_and_gives_no_nan() -> None:
    """As transformers adds it in fp32: in bf16 it would be infinite, and a row of it NaN."""
    inputs = [each.to(torch.bfloat16) for each in heads()]
    mask = torch.zeros(3, 1, 1, 7)
    mask[1, ..., 3:] = mask[2] = torch.finfo(torch.float32).min
    out = kernels.attention(*inputs, attn_mask=mask)
    assert out is not None
    assert torch.isfinite(out).all()
    assert apart(out[1], F.scaled_dot_product_attention(*(each[1:2, :, :] for each in (inputs[0], inputs[1][:, :, :3],
                                                        inputs[2][:, :, :3])))[0]) < 0.02  # fmt: skip


def test_what_is_computed_again_in_the_backward_pass_is_left_to_torch() -> None:
    """Activation checkpointing computes its part again where the mode is no more: the draws have to be the same."""
    from torch.utils.checkpoint import checkpoint

    net = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.Linear(16, 4))
    inputs = torch.randn(8, 16, requires_grad=True)

    def gradient() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        with kernels.Quick():
            out = checkpoint(net, inputs, use_reentrant=False)
        return torch.autograd.grad(out.square().sum(), inputs)[0], out

    found, out = gradient()
    torch.manual_seed(0)
    plain = net(inputs)
    assert torch.equal(out, plain)
    assert torch.allclose(found, torch.autograd.grad(plain.square().sum(), inputs)[0])


def test_without_dropout_long_texts_and_fp32_are_left_to_torch() -> None:
    inputs = heads()
    assert kernels.attention(*inputs) is None
    assert kernels.attention(*inputs, dropout_p=0.1) is not None
    long = [torch.zeros(1, 1, kernels.LONGEST + 1, 2, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    assert kernels.attention(*long) is None
    assert kernels.attention(*[each[:, :, 1:] for each in long]) is not None
    assert kernels.attention(*inputs, dropout_p=0.1, is_causal=True) is None


def test_dropped_shares_make_up_for_each_other() -> None:
    """Over many draws attention with dropout is attention, and no draw is that."""
    query, key, value = (each.detach()[:1].expand(4000, 2, 7, 8).requires_grad_() for each in heads())
    torch.manual_seed(5)
    drawn = kernels.attention(query, key, value, dropout_p=0.3)
    assert drawn is not None
    plain = F.scaled_dot_product_attention(query, key, value)
    assert apart(drawn.mean(0), plain.mean(0)) < 0.03
    assert apart(drawn[:1], plain[:1]) > 0.1


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_has_its_probability_and_its_gradient(p: float, dtype: torch.dtype) -> None:
    count = 200_001  # not a multiple of the values that one draw serves
    inputs = torch.ones(count, dtype=dtype, requires_grad=True)
    torch.manual_seed(3)
    with kernels.Quick():
        dropped = nn.Dropout(p)(inputs)
    kept = dropped != 0
    spread = math.sqrt(p * (1 - p) / count)
    assert abs(1 - kept.double().mean().item() - p) < 4 * spread
    assert dropped[kept].unique().numel() == 1
    assert dropped[kept][0].item() == pytest.approx(1 / (1 - p), rel=1e-2 if dtype == torch.bfloat16 else 1e-3)
    apart_by = [(kept[:-lag] & kept[lag:]).double().mean().item() - (1 - p) ** 2 for lag in (1, 2, 3, 4, 8)]
    assert max(map(abs, apart_by)) < 6 * spread, "neighbours are dropped independently"
    dropped.sum().backward()
    assert torch.equal(inputs.grad, dropped.detach())


def test_draws_come_from_torchs_generator() -> None:
    inputs = torch.ones(1000, requires_grad=True)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        with kernels.Quick():
            return F.dropout(inputs, 0.5)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_what_does_not_train_is_left_to_torch() -> None:
    inputs = torch.ones(64, requires_grad=True)
    with kernels.Quick():
        assert F.dropout(inputs, 0.5, training=False) is inputs or torch.equal(F.dropout(inputs, 0.5, False), inputs)
        torch.manual_seed(0)
        quiet = F.dropout(inputs.detach(), 0.5)
        with torch.no_grad():
            torch.manual_seed(0)
            still = F.dropout(inputs, 0.5)
    torch.manual_seed(0)
    usual = F.dropout(inputs.detach(), 0.5)
    assert torch.equal(quiet, usual)
    assert torch.equal(still, usual)
    torch.manual_seed(0)
    assert torch.equal(F.dropout(inputs, 0.5), usual), "nothing is left when the mode is left"


def test_a_training_step_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: where the loop would not enter the mode, no call would be heard."""
    from headstart.engine import loop

    heard: list[bool] = []

    class Heard(kernels.Quick):
        def __enter__(self) -> Heard:
            heard.append(True)
            return super().__enter__()

    monkeypatch.setattr(loop.kernels, "Quick", Heard)

    class Job:
        seed, stage, mixer = 0, 0, None

        class runtime:  # noqa: N801
            world, rank = 1, 0
            accumulating = staticmethod(lambda wrapped, last: torch.enable_grad())
            backward = staticmethod(lambda value: value.backward())

    weight = torch.ones(1, requires_grad=True)
    made = object.__new__(loop.Loop)
    made.job, made.state = Job, loop.State()
    made.optimizer = torch.optim.SGD([weight], 0.1)
    made.wrapped = lambda inputs, targets, total, frontier: (weight * inputs).sum() / total
    part = type("Part", (), {"inputs": torch.ones(2), "targets": None, "frontier": 0})
    update = type("One", (), {"total": 2, "parts": staticmethod(lambda micro: [part])})
    assert made._backward(update, 2) == 1.0
    assert heard
