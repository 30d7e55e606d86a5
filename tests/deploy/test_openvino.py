"""Batches of fixed sizes, which OpenVINO answers quicker: every row as it is answered alone, however many come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.run import Run
from headstart.deploy import folder
from headstart.deploy.predictor import ways
from headstart.deploy.runtimes import onnxruntime, openvino


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shape of the input of everything that is compiled from now on."""
    import openvino as library

    shapes: list[str] = []
    usual = library.Core.compile_model

    def compile_model(core: Any, model: Any, *given: Any) -> Any:
        shapes.append(str(model.input("inputs").partial_shape))
        return usual(core, model, *given)

    monkeypatch.setattr(library.Core, "compile_model", compile_model)
    return shapes


def pictures(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)


def test_no_precision_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without instructions for bf16 the same numbers would be computed, judged and timed twice."""
    import openvino as library

    openvino.precisions.cache_clear()
    for able, told in ((["FP32", "INT8"], ("fp32",)), (["FP32", "BF16", "INT8"], ("fp32", "bf16"))):
        monkeypatch.setattr(library.Core, "get_property", lambda core, *asked, able=able: able)
        assert openvino.precisions() == told
        assert [way.name for way in ways(folder.INT8, "openvino")] == [
            f"openvino int8{'' if each == 'fp32' else f'+{each}'}" for each in told
        ]
        openvino.precisions.cache_clear()


@pytest.mark.parametrize("precision", openvino.PRECISIONS)
def test_any_number_of_rows_is_answered_as_each_alone(exported: Path, precision: str) -> None:
    run = openvino.load(exported / folder.FLOAT, threads=1, precision=precision)
    for rows in (0, 1, 3, 4, 5, 16, 22, 37):
        inputs = pictures(rows)
        found = run(inputs)
        assert [each.shape for each in found] == [(rows, 3)] * 2
        for row in range(rows):
            for whole, alone in zip(found, run(inputs[row : row + 1]), strict=True):
                assert np.allclose(whole[row], alone[0], atol=1e-6)


def test_every_number_of_rows_has_its_batches() -> None:
    assert [openvino._sizes(rows) for rows in (1, 3, 4, 7, 13, 16)] == [[1], [1] * 3, [4], [4, 1, 1, 1], [16], [16]]
    for rows in range(1, 60):
        assert 0 <= sum(openvino._sizes(rows)) - rows <= 3


def test_a_network_that_cannot_be_planned_answers_any_number_at_once(
    exported: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: Any, rows: int) -> Any:
        raise RuntimeError("the shapes do not fit")

    monkeypatch.setattr(openvino, "_of_rows", refuse)
    run = openvino.load(exported / folder.FLOAT, threads=1)
    assert len(run(pictures(5))[0]) == 5
    assert compiled == ["[?,3,32,32]"]


def test_rows_keep_their_places(exported: Path) -> None:
    inputs = pictures(22)
    mine = openvino.load(exported / folder.FLOAT, threads=1)(inputs)
    theirs = onnxruntime.load(exported / folder.FLOAT, threads=1)(inputs)
    assert np.ptp(theirs[0], axis=0).min() > 0.1, "rows that no one could take for each other"
    for one, other in zip(mine, theirs, strict=True):
        assert np.allclose(one, other, atol=1e-4)


def test_a_size_is_compiled_once_and_when_it_is_needed(exported: Path, compiled: list[str]) -> None:
    run = openvino.load(exported / folder.FLOAT, threads=1)
    assert compiled == ["[4,3,32,32]"]
    run(pictures(4))
    assert len(compiled) == 1
    run(pictures(21))
    run(pictures(39))
    assert sorted(compiled) == ["[1,3,32,32]", "[16,3,32,32]", "[4,3,32,32]"]


def test_large_weights_are_held_once(exported: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported / folder.FLOAT
    monkeypatch.setattr(openvino, "OFTEN_AT_MOST", path.stat().st_size - 1)
    run = openvino.load(path, threads=1)
    run(pictures(1))
    run(pictures(22))
    assert compiled == ["[?,3,32,32]"]


def test_rows_of_any_length_go_through_one_network(text_run: Run, compiled: list[str]) -> None:
    place = text_run.path / "export"
    inputs = np.load(place / folder.GOLDEN)["inputs"]
    run = openvino.load(place / folder.FLOAT, threads=1)
    for rows, length in ((1, 4), (4, 4), (2, 7)):
        assert len(run(inputs[:rows, ..., :length])[0]) == rows
    assert len(compiled) == 1
