"""Attention is rewritten where it is recognised, left alone where it is not, and answers what it answered."""

from __future__ import annotations

import collections
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.deploy import attention

ROWS, TOKENS, HEADS, SIZE = 3, 5, 2, 4
WIDTH = HEADS * SIZE


class Packed(nn.Module):
    """As timm writes it: one matrix for ``parts`` of queries, keys and values."""

    def __init__(self, parts: int = 3, *, bias: bool = True, cut: bool = True) -> None:
        super().__init__()
        self.parts, self.cut = parts, cut
        self.project, self.out = nn.Linear(WIDTH, parts * WIDTH, bias=bias), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor, seen: Tensor) -> Tensor:
        rows, tokens, _ = inputs.shape
        packed = self.project(inputs).reshape(rows, tokens, self.parts, HEADS, SIZE).permute(2, 0, 3, 1, 4)
        each = packed.unbind(0) if self.cut else (packed[0], packed[1], packed[self.parts - 1])
        found = F.scaled_dot_product_attention(each[0], each[1], each[-1])
        return self.out(found.transpose(1, 2).reshape(rows, tokens, WIDTH))


class Masked(nn.Module):
    """As transformers write it: a matrix each, and tokens that nobody may look at."""

    def __init__(self) -> None:
        super().__init__()
        self.matrices = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, inputs: Tensor, seen: Tensor) -> Tensor:
        heads = [each(inputs).view(*inputs.shape[:2], HEADS, SIZE).transpose(1, 2) for each in self.matrices]
        return F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=seen[:, None, None, :])


class TwoScales(nn.Module):
    """Scores of its own, each side with a scale of its own."""

    def forward(self, inputs: Tensor, seen: Tensor) -> Tensor:
        return ((inputs * 0.5) @ (inputs.transpose(1, 2) * 0.25)).softmax(-1) @ inputs


class Stirred(nn.Module):
    """Keys are turned across the heads."""

    def forward(self, inputs: Tensor, seen: Tensor) -> Tensor:
        heads = inputs[:, :4].unflatten(-1, (HEADS, 4)).transpose(1, 2)
        keys = heads.reshape(-1, 8, 4).transpose(1, 2).reshape(-1, HEADS, 4, 4)
        return ((heads * 0.5) @ (keys * 0.5)).softmax(-1) @ heads


class Windows(Packed):
    """Tokens look at their own window alone."""

    def forward(self, inputs: Tensor, seen: Tensor) -> Tensor:
        packed = self.project(inputs[:, :4]).reshape(-1, 2, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
        each = packed.unbind(0)
        found = F.scaled_dot_product_attention(each[0], each[1], each[2])
        return self.out(found.transpose(1, 2).reshape(-1, 4, WIDTH))


class Together(Packed):
    """Keys and values are taken from the packed ones as one."""

    def forward(self, inputs: Tensor, seen: Tensor) -> Tensor:
        rows, tokens, _ = inputs.shape
        packed = self.project(inputs).reshape(rows, tokens, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
        both = packed[1:] * 2
        return F.scaled_dot_product_attention(packed[0], both[0], both[1])


def exported(module: nn.Module) -> Any:
    """Queries of any number of rows and tokens, and which tokens may be looked at."""
    example = (torch.randn(2, TOKENS, WIDTH), torch.ones(2, TOKENS, dtype=torch.bool))
    rows = torch.export.Dim("rows")
    shapes = {"inputs": {0: rows}, "seen": {0: rows}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own
        program = torch.onnx.export(
            module.eval(), example, dynamo=True, dynamic_shapes=shapes, input_names=["inputs", "seen"], verbose=False
        )
    assert program is not None
    return program


def operations(program: Any) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in program.model.graph)


def answers(program: Any, place: Path, *given: Tensor) -> np.ndarray:
    import onnxruntime

    program.save(place)
    session = onnxruntime.InferenceSession(place, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    found: np.ndarray = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=False)})[0]
    return found


@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize(
    ("module", "matrices", "turns"),
    [
        (Packed(), 6, 5),  # three projections and what follows; queries, keys, values, keys again, the answer
        (Packed(cut=False), 6, 5),
        (Masked(), 5, 4),
        (Packed(bias=False), 4, 3),  # no offset: not what timm writes, so one matrix stays
        (Packed(parts=2), 4, 3),  # keys that are values too
    ],
    ids=["packed", "picked", "masked", "no bias", "two parts"],
)
def test_what_is_recognised_is_simpler_and_answers_the_same(
    module: nn.Module, matrices: int, turns: int, rows: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    seen = torch.arange(TOKENS) < torch.tensor([TOKENS, 2, 1])[:rows, None]
    inputs = torch.randn(rows, TOKENS, WIDTH)
    program = exported(module)
    masks = 1 if isinstance(module, Masked) else 0
    before = operations(program)
    assert (before["Mul"], before["IsNaN"], before["Where"]) == (2, masks, 2 * masks), "as torch's exporter has it"

    attention.simplify(program.model)

    left = operations(program)
    assert (left["Mul"], left["IsNaN"], left["Where"]) == (1, 0, masks)
    assert (left["MatMul"], left["Transpose"]) == (matrices, turns)
    assert (left["Constant"], left["Identity"]) == (0, 0)
    with torch.no_grad():
        wanted = module(inputs, seen)
    np.testing.assert_allclose(answers(program, tmp_path / "m.onnx", inputs, seen), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "module", [TwoScales(), Stirred(), Windows(), Together()], ids=lambda each: type(each).__name__
)
def test_what_only_looks_alike_is_left_alone(module: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs, seen = torch.randn(ROWS, TOKENS, WIDTH), torch.ones(ROWS, TOKENS, dtype=torch.bool)
    program = exported(module)
    before = operations(program)
    attention.simplify(program.model)
    after = operations(program)
    assert after["MatMul"] == before["MatMul"]
    assert isinstance(module, Windows | Together) or after["Mul"] == before["Mul"]
    with torch.no_grad():
        wanted = module(inputs, seen)
    np.testing.assert_allclose(answers(program, tmp_path / "m.onnx", inputs, seen), wanted, rtol=1e-4, atol=1e-6)
