"""Ranges that suit every runtime, and what OpenVINO is given of them; answers that are none are noticed."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.core.errors import ArtefactError
from headstart.deploy.contract import INPUT, KEY, OUTPUTS
from headstart.deploy.ladder import saturates
from headstart.deploy.quantise import Quantiser, _settled
from headstart.deploy.runtimes import onnxruntime, openvino

CLASSES, SIDE = 4, 6


def saved(path: Path, nodes: list[Any], constants: list[Any], rows: Any = "rows") -> Path:
    nodes = [helper.make_node("Cast", [INPUT], ["given"], to=TensorProto.FLOAT), *nodes]
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, CLASSES]) for name in OUTPUTS]
    given = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["rows", 3, SIDE, SIDE])]
    graph = helper.make_graph(nodes, "g", given, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    helper.set_model_props(model, {KEY: "kept"})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures around 0, two branches of unlike size that are joined, and a convolution that reads both."""
    place, rng = tmp_path_factory.mktemp("joined"), np.random.default_rng(0)

    def constant(name: str, values: Any) -> Any:
        return numpy_helper.from_array(np.asarray(values), name)

    small, large = (rng.normal(0, scale, (4, 3, 1, 1)).astype(np.float32) for scale in (0.2, 1.0))
    nodes = [
        helper.make_node("Sub", ["given", "middle"], ["centred"]),
        helper.make_node("Div", ["centred", "spread"], ["pictures"]),
        helper.make_node("Conv", ["pictures", "small"], ["a"], name="a"),
        helper.make_node("Conv", ["pictures", "large"], ["b"], name="b"),
        helper.make_node("Relu", ["a"], ["a+"]),
        helper.make_node("Relu", ["b"], ["b+"]),
        helper.make_node("Concat", ["a+", "b+"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "last"], ["maps"], name="last"),
        helper.make_node("ReduceMean", ["maps", "axes"], ["logits"], keepdims=0),
    ]
    constants = [
        constant("middle", np.float32(120.0)),
        constant("spread", np.float32(60.0)),
        constant("small", small),
        constant("large", large),
        constant("last", rng.normal(0, 0.5, (CLASSES, 8, 1, 1)).astype(np.float32)),
        constant("axes", np.array([2, 3])),
    ]
    quantiser = Quantiser(saved(place / "model.onnx", nodes, constants))
    quantiser.calibrate("minmax", [pictures(seed) for seed in range(3)])
    quantiser.write_static(place / "int8.onnx", "minmax", narrow=saturates())
    return place


def pictures(seed: int, rows: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 3, SIDE, SIDE), dtype=np.uint8)


def test_what_takes_both_signs_has_zero_in_the_middle(joined: Path) -> None:
    graph = onnx.load(joined / "int8.onnx").graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    quantised = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    zeros = collections.Counter(int(held[node.input[2]]) for node in quantised)
    assert set(zeros) == {0, 128}
    assert zeros[0] >= 3, "what a ReLU gives uses all 256 steps"
    assert all(held[node.input[2]].dtype == np.uint8 for node in quantised)


def test_what_is_joined_has_one_range(joined: Path) -> None:
    graph = onnx.load(joined / "int8.onnx").graph
    held = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    (concat,) = (node for node in graph.node if node.op_type == "Concat")
    steps = {float(held[made[name].input[1]]) for name in concat.input}
    steps |= {float(held[node.input[1]]) for node in graph.node if node.input[0] == concat.output[0]}
    assert len(steps) == 1


def test_signed_values_are_the_same_steps(joined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino as library

    model = library.Core().read_model(str(joined / "int8.onnx"))
    before = _subtracted(model)
    assert 128 in before
    assert 128 not in _subtracted(openvino._signed(model))
    signed = openvino.load(joined / "int8.onnx", threads=1)
    monkeypatch.setattr(openvino, "_signed", lambda model: model)
    usual = openvino.load(joined / "int8.onnx", threads=1)
    inputs = pictures(9, 16)
    wanted = onnxruntime.load(joined / "model.onnx", threads=1)(inputs)[0]
    spread = np.abs(wanted - wanted.mean(axis=0)).max()
    assert np.abs(signed(inputs)[0] - usual(inputs)[0]).max() < 0.01 * spread
    assert np.abs(signed(inputs)[0] - wanted).max() < 0.1 * spread
    alone = np.concatenate([signed(row[None])[0] for row in inputs])
    assert np.allclose(signed(inputs)[0], alone, atol=1e-6 * spread), "whatever else is in the batch"


def _subtracted(model: Any) -> list[float | None]:
    return [openvino._offset(node) for node in model.get_ops() if node.get_type_name() == "Subtract"]


def test_answers_of_another_number_of_rows_are_refused(tmp_path: Path) -> None:
    """As OpenVINO gave none at all where a number of windows was counted in bf16."""
    constants = [
        numpy_helper.from_array(np.zeros((1, CLASSES), np.float32), "none"),
        numpy_helper.from_array(np.array([0, 1, 2, 3]), "axes"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["given", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["none", "mean"], ["logits"]),
    ]
    run = openvino.load(saved(tmp_path / "m.onnx", nodes, constants, rows=1), threads=1)
    assert run(pictures(0, 1))[0].shape == (1, CLASSES)
    with pytest.raises(ArtefactError, match="answers 1 of 4 rows"):
        run(pictures(0, 4))


def test_ranges_are_settled_once() -> None:
    """A part of two wholes keeps its own; nothing is narrowed; one sign stays as it was measured."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    def settled(measured: dict[str, tuple[float, float]], lopsided: float) -> dict[str, tuple[float, ...]]:
        pairs = {name: (np.float32(low), np.float32(high)) for name, (low, high) in measured.items()}
        arrays = {name: tuple(map(np.asarray, pair)) for name, pair in pairs.items()}
        ranges = _settled(TensorsData(CalibrationMethod.MinMax, arrays), graph, lopsided)
        return {name: tuple(float(value) for value in ranges[name].range_value) for name in measured}

    nodes = [
        helper.make_node("Concat", ["a", "b"], ["ab"], axis=1),
        helper.make_node("Concat", ["c", "d"], ["cd"], axis=1),
        helper.make_node("Concat", ["c", "e"], ["ce"], axis=1),
        helper.make_node("Concat", ["a", "unmeasured"], ["f"], axis=1),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    measured = {"a": (0.0, 3.0), "b": (0.0, 1.0), "ab": (0.0, 2.0), "c": (0.0, 1.0), "d": (0.0, 5.0)}
    measured |= {"cd": (0.0, 5.0), "e": (0.0, 2.0), "ce": (0.0, 2.0), "silu": (-0.25, 10.0), "even": (-1.0, 2.0)}
    measured |= {"negative": (-4.0, -1.0)}
    found = settled(measured, 4)
    assert found["a"] == found["b"] == found["ab"] == (0.0, 3.0)
    alone = ("c", "d", "cd", "e", "ce", "silu", "negative")
    assert {name: found[name] for name in alone} == {name: measured[name] for name in alone}
    assert found["even"] == pytest.approx((-2 * 128 / 127, 2.0))
    assert settled(measured, np.inf)["silu"] == pytest.approx((-10 * 128 / 127, 10.0))


@pytest.mark.parametrize("last", [False, True])
def test_spectra_stay_in_float_up_to_their_logarithm(last: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.normal(0, 1, shape).astype(np.float32), name)

    maps = [helper.make_node("Conv", ["given", "waves"], ["spectrum"], name="waves")]
    maps += [
        helper.make_node("Mul", ["spectrum", "spectrum"], ["power"]),
        helper.make_node("Add", ["power", "eps"], ["p"]),
    ]
    steps = ["p", "l0", "l1", "l2"]
    if not last:
        maps.append(helper.make_node("Log", ["p"], ["levels"]))
        steps[0] = "levels"
    for place in range(3):
        maps.append(helper.make_node("Conv", [steps[place], f"w{place}"], [steps[place + 1]], name=f"conv{place}"))
    end = "l2"
    if last:
        maps += [helper.make_node("Mul", ["l2", "l2"], ["s"]), helper.make_node("Add", ["s", "eps"], ["s+"])]
        maps.append(helper.make_node("Log", ["s+"], ["end"]))
        end = "end"
    maps.append(helper.make_node("ReduceMean", [end, "axes"], ["logits"], keepdims=0))
    constants = [constant("waves", 4, 3, 1, 1), *(constant(f"w{place}", 4, 4, 1, 1) for place in range(3))]
    constants += [numpy_helper.from_array(np.float32(1e-3), "eps"), numpy_helper.from_array(np.array([2, 3]), "axes")]
    quantiser = Quantiser(saved(tmp_path / "m.onnx", maps, constants))
    assert len(quantiser.layers) == (4 if last else 3)
    quantiser.calibrate("minmax", [pictures(0)])
    quantiser.write_static(tmp_path / "q.onnx", "minmax")
    graph = onnx.load(tmp_path / "q.onnx").graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    read = [made.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    assert read.count("DequantizeLinear") == (4 if last else 3)
