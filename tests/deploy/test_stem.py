"""The first convolution reads the pixels: the same maps, whatever its kernel, and left alone where it is not plain."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.core.run import Run
from headstart.deploy import folder, stem
from headstart.deploy.contract import INPUT
from headstart.deploy.quantise import Quantiser
from headstart.deploy.runtimes import onnxruntime as runtime

MEAN = np.array([124.0, 116.0, 104.0], np.float32)  # whole pixels: what is padded with is exact then
SCALE = np.array([1 / 58.4, 1 / 57.1, 1 / 57.4], np.float32)


def network(kernel: int, stride: int, pad: int, size: int, **odd: Any) -> onnx.ModelProto:
    """Normalisation, a convolution to five maps, and a mean; ``odd`` is what is unusual about it."""
    rng = np.random.default_rng(0)
    groups, mean, scale = odd.get("groups", 1), odd.get("mean", MEAN), odd.get("scale", SCALE)
    constants = {
        "scale": scale.reshape(odd.get("shape", (1, 3, 1, 1))),
        "offset": (mean * scale).reshape(odd.get("shape", (1, 3, 1, 1))),
        "weight": rng.normal(size=(6, 3 // groups, kernel, kernel)).astype(np.float32),
        "bias": rng.normal(size=6).astype(np.float32),
    }
    options = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "group": groups, **odd.get("options", {})}
    options |= {} if "auto_pad" in options else {"pads": [pad] * 4}
    inputs = ["normal", "weight", "bias"][: 3 - odd.get("no_bias", False)]
    nodes = [
        helper.make_node("Cast", [INPUT], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "offset"], ["normal"]),
        *odd.get("before", []),
        helper.make_node("Conv", inputs, ["maps"], "stem", **options),
        *odd.get("after", []),
    ]
    kind = odd.get("kind", TensorProto.UINT8)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(INPUT, kind, ["B", 3, size, size])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["B", 6, "height", "width"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def maps(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found: np.ndarray = session.run(["maps"], {INPUT: pixels})[0]
    return found


def pictures(size: int, rows: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (rows, 3, size, size), dtype=np.uint8)


KERNELS = [
    *((7, 2, 3, size) for size in (16, 17)),  # ResNets
    *((3, 2, 1, size) for size in (16, 17)),  # MobileNets
    *((3, 2, 0, size) for size in (16, 17)),  # SqueezeNet
    *((2, 2, 0, size) for size in (16, 17)),
    *((5, 2, 2, size) for size in (15, 16)),
    (4, 2, 1, 15),
    (3, 1, 1, 16),
    (1, 2, 0, 16),
    (4, 4, 0, 16),
    (16, 16, 0, 32),
]


@pytest.mark.parametrize(("kernel", "stride", "pad", "size"), KERNELS)
def test_the_maps_are_the_same(kernel: int, stride: int, pad: int, size: int) -> None:
    model = network(kernel, stride, pad, size)
    changed = copy.deepcopy(model)
    assert stem.read_pixels(changed)
    onnx.checker.check_model(changed)
    kinds = [node.op_type for node in changed.graph.node]
    assert not {"Mul", "Sub"} & {*kinds}
    assert ("SpaceToDepth" in kinds) == (stride == 2 and kernel > 1 and stem.knows_blocks())
    wanted = maps(model, pictures(size))
    np.testing.assert_allclose(maps(changed, pictures(size)), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "odd",
    [
        {"no_bias": True},
        {"shape": (3, 1, 1)},
        {"before": [helper.make_node("Add", ["normal", "bias_of_all"], ["normal2"])]},
    ],
    ids=["no bias", "constants without the axis of rows", "one number for all channels"],
)
def test_other_ways_to_say_the_same(odd: dict[str, Any]) -> None:
    model = network(3, 2, 1, 16, **odd)
    if "before" in odd:
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.0), "bias_of_all"))
        next(node for node in model.graph.node if node.op_type == "Conv").input[0] = "normal2"
    changed = copy.deepcopy(model)
    assert stem.read_pixels(changed)
    wanted = maps(model, pictures(16))
    np.testing.assert_allclose(maps(changed, pictures(16)), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_what_is_padded_with_is_rounded_to_a_whole_pixel_and_nothing_else_is() -> None:
    model = network(3, 2, 1, 16, mean=MEAN + np.float32(0.4))
    changed = copy.deepcopy(model)
    assert stem.read_pixels(changed)
    found, wanted = maps(changed, pictures(16)), maps(model, pictures(16))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found[:, :, 1:, 1:], wanted[:, :, 1:, 1:], rtol=1e-4, atol=1e-4 * scale)
    assert 1e-4 < np.abs(found - wanted).max() / scale < 0.02


@pytest.mark.parametrize(
    "odd",
    [
        {"groups": 3},
        {"options": {"dilations": [2, 2]}},
        {"options": {"auto_pad": "SAME_UPPER"}},
        {"kind": TensorProto.FLOAT},
        {"mean": np.array([124, 116, -3], np.float32)},
        {"mean": np.array([124, 116, 300], np.float32)},
        {"scale": SCALE * np.array([1, 1, -1], np.float32)},
        {"before": [helper.make_node("Relu", ["normal"], ["odd"])]},
        {"after": [helper.make_node("ReduceMean", ["normal"], ["brightness"], keepdims=0)]},
        {"after": [helper.make_node("Shape", [INPUT], ["shape"])]},
    ],
    ids=[
        *("grouped", "dilated", "pads by itself", "floats", "pads below 0", "pads beyond 255", "turned over"),
        *("something else on the way", "read on the way", "pixels are read elsewhere"),
    ],
)
def test_planted_faults_what_is_not_plain_is_left_as_it_is(odd: dict[str, Any]) -> None:
    model = network(3, 2, 1, 16, **odd)
    if "before" in odd:
        next(node for node in model.graph.node if node.op_type == "Conv").input[0] = "odd"
    before = model.SerializeToString()
    assert not stem.read_pixels(model)
    assert model.SerializeToString() == before


def test_a_quantised_network_reads_pixels_without_a_detour(toy_run: Run, exported: Path, tmp_path: Path) -> None:
    """From the input to the first convolution nothing is in float, unless that layer stays in float."""
    quantiser = Quantiser(exported / folder.FLOAT)
    golden = folder.Golden.read(exported / folder.GOLDEN)
    quantiser.calibrate("minmax", [golden.inputs])
    for left in ((), quantiser.layers[:1]):
        quantiser.write_static(tmp_path / "small.onnx", "minmax", left=left)
        graph = onnx.load(tmp_path / "small.onnx").graph
        made = {output: node for node in graph.node for output in node.output}
        name, kinds = next(node for node in graph.node if node.op_type == "Conv").input[0], []
        while name in made:
            kinds.append(made[name].op_type)
            name = made[name].input[0]
        assert name == INPUT
        assert kinds[0] == ("Cast" if left else "DequantizeLinear")
        assert not {"QuantizeLinear", "Mul", "Sub"} & {*kinds}
        logits = runtime.load(tmp_path / "small.onnx", threads=1)(golden.inputs)[0]
        assert golden.gap(logits) < 0.2


def test_a_runtime_that_makes_no_blocks_of_bytes_reads_pixels_all_the_same(
    exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stem, "knows_blocks", lambda: False)
    quantiser = Quantiser(exported / folder.FLOAT)
    golden = folder.Golden.read(exported / folder.GOLDEN)
    quantiser.calibrate("minmax", [golden.inputs])
    quantiser.write_static(tmp_path / "small.onnx", "minmax")
    kinds = {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    assert "SpaceToDepth" not in kinds
    assert not {"Mul", "Sub"} & kinds
    assert golden.gap(runtime.load(tmp_path / "small.onnx", threads=1)(golden.inputs)[0]) < 0.2
