"""Eight-bit files: what is quantised, on which rows, and the search for what stays in float."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.core import keyed
from headstart.core.machine import processor
from headstart.deploy import folder, ladder, onnxfile, verdict
from headstart.deploy.contract import INPUT, KEY, OUTPUTS
from headstart.deploy.ladder import CONVOLUTIONAL, TRANSFORMER, Climber
from headstart.deploy.quantise import Quantiser
from headstart.deploy.runtimes import onnxruntime
from headstart.deploy.timing import Timed
from headstart.workflows import ship
from headstart.workflows.judging import Judge

LAYERS = 6
WILD = 3  # the layer whose weights no eight bits can hold


def stack(path: Path, kind: str = "Conv") -> Path:
    """A chain of six layers; one channel is mute, and the layer that reads it has weights for it a thousand times as
    large as the others: one scale cannot hold both."""
    rng, width = np.random.default_rng(0), 8
    nodes, constants, last = [helper.make_node("Cast", [INPUT], ["x0"], to=TensorProto.FLOAT)], [], "x0"
    for layer in range(LAYERS):
        weight = rng.normal(0, 0.5, (width, width)).astype(np.float32)
        if layer == WILD - 1:
            weight[0] = 0
        if layer == WILD:
            weight[:, 0] *= 1000
        values = weight[:, :, None, None] if kind == "Conv" else weight.T
        constants.append(numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node(kind, [last, f"w{layer}"], [f"y{layer}"], name=f"layer{layer}"))
        last = f"y{layer}"
        if layer + 1 < LAYERS:
            nodes.append(helper.make_node("LeakyRelu", [last], [f"z{layer}"], alpha=0.3))
            last = f"z{layer}"
    axes = numpy_helper.from_array(np.array([2, 3] if kind == "Conv" else [1]), "axes")
    nodes.append(helper.make_node("ReduceMean", [last, "axes"], ["logits"], keepdims=0))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    shape = ["rows", width, 4, 4] if kind == "Conv" else ["rows", 5, width]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name in OUTPUTS]
    given = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)]
    made = helper.make_model(
        helper.make_graph(nodes, "g", given, outputs, [*constants, axes]), opset_imports=[helper.make_opsetid("", 20)]
    )
    made.ir_version = 10
    helper.set_model_props(made, {KEY: "kept"})
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)
    return path


def climber(source: Path, kind: str = "Conv") -> Climber:
    shape = (8, 4, 4) if kind == "Conv" else (5, 8)
    rng = np.random.default_rng(1)
    calibration, held = ([rng.integers(0, 255, (16, *shape), dtype=np.uint8) for _ in range(2)] for _ in range(2))

    def answer(file: Path) -> np.ndarray:
        session = onnxruntime.load(file, threads=1)
        return np.concatenate([session(inputs)[0] for inputs in held])

    return Climber(Quantiser(source), calibration, answer, answer(source), lambda done, total: None, False)


def test_damage_is_the_distance_of_centred_logits(tmp_path: Path) -> None:
    found = climber(stack(tmp_path / "m.onnx"))
    assert found.damage(tmp_path / "m.onnx") == 0
    found.answer = lambda file: found.wanted + 5.0  # all classes alike: no decision changes
    assert found.damage(tmp_path / "m.onnx") == pytest.approx(0, abs=1e-5)
    centred = found.wanted - found.wanted.mean(axis=1, keepdims=True)
    found.answer = lambda file: found.wanted + 0.1 * centred
    assert found.damage(tmp_path / "m.onnx") == pytest.approx(0.1, rel=1e-4)


def test_the_search_finds_the_layer_that_eight_bits_cannot_hold(tmp_path: Path) -> None:
    found = climber(stack(tmp_path / "m.onnx"))
    whole, mixed = (rung for rung in CONVOLUTIONAL if rung.ranges == "minmax")
    found.write(whole, tmp_path / "whole.onnx")
    told = found.write(mixed, tmp_path / "mixed.onnx")
    before, after = found.damage(tmp_path / "whole.onnx"), found.damage(tmp_path / "mixed.onnx")
    assert after < before / 2
    assert " of 6" in told
    assert found._search(mixed, tmp_path / "x.onnx")[0] == f"layer{WILD}"


@pytest.mark.parametrize("kind", ["Conv", "MatMul"])
def test_weights_in_seven_bits_where_sums_saturate_and_they_do_less_damage(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = climber(stack(tmp_path / "m.onnx", kind), kind)
    damage, target = Climber.damage, tmp_path / "x.onnx"

    def largest(file: Path) -> int:
        tensors = [each for each in onnx.load(file).graph.initializer if each.data_type == TensorProto.INT8]
        return max(int(np.abs(numpy_helper.to_array(each).astype(int)).max()) for each in tensors if len(each.dims) > 1)

    def saturating(self: Climber, file: Path) -> float:
        return damage(self, file) + (largest(file) > 64)

    for rung in (rung for rung in found.rungs if rung.kind != "half"):
        monkeypatch.setattr(Climber, "damage", damage)
        found.saturates = False
        assert ladder.NARROW not in found.write(rung, target)
        assert largest(target) == 127
        found.saturates = True
        monkeypatch.setattr(Climber, "damage", saturating)
        assert found.write(rung, target).endswith(ladder.NARROW)
        assert largest(target) == 64
        monkeypatch.setattr(Climber, "damage", lambda self, file: -saturating(self, file))
        assert ladder.NARROW not in found.write(rung, target), "nothing is lost by the whole byte"


def test_whether_sums_saturate_is_told_by_a_product() -> None:
    flags = {*processor()[1]}
    if "avx2" in flags:  # where the processor says what it is
        assert ladder.saturates() == (not flags & {"avx512_vnni", "avx_vnni", "amx_int8"})
    elif "asimd" in flags:
        assert not ladder.saturates()


def test_tables_keep_their_eighth_bit(tmp_path: Path) -> None:
    """Rows are gathered from them, and nothing is multiplied."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", INPUT], ["rows"]),
        helper.make_node("MatMul", ["rows", "weight"], ["mixed"], name="mixed"),
        helper.make_node("ReduceMean", ["mixed", "axes"], ["logits"], keepdims=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {"table": rng.normal(size=(50, 8)), "weight": rng.normal(size=(8, 8))}
    held = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    held.append(numpy_helper.from_array(np.array([1]), "axes"))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 8]) for name in OUTPUTS]
    given = [helper.make_tensor_value_info(INPUT, TensorProto.INT64, ["rows", 5])]
    made = helper.make_model(
        helper.make_graph(nodes, "g", given, outputs, held), opset_imports=[helper.make_opsetid("", 20)]
    )
    made.ir_version = 10
    onnx.save(made, tmp_path / "m.onnx")
    quantiser = Quantiser(tmp_path / "m.onnx")
    quantiser.calibrate("minmax", [rng.integers(0, 50, (16, 5))])
    quantiser.write_static(tmp_path / "x.onnx", "minmax", weighted=True, narrow=True)
    found = {tuple(each.dims): numpy_helper.to_array(each) for each in onnx.load(tmp_path / "x.onnx").graph.initializer}
    table, weight = found[50, 8].astype(int), found[8, 8].astype(int)
    assert table.max() - table.min() > 200
    assert np.abs(weight).max() == 64


def test_rungs_of_a_convolutional_network(tmp_path: Path) -> None:
    found = climber(stack(tmp_path / "m.onnx"))
    assert found.rungs == CONVOLUTIONAL
    for rung in CONVOLUTIONAL:
        found.write(rung, tmp_path / "x.onnx")
        made = onnx.load(tmp_path / "x.onnx")
        onnx.checker.check_model(made)
        described = onnxfile.describe(tmp_path / "x.onnx")
        assert described.metadata == {KEY: "kept"}
        weights = [tensor for tensor in made.graph.initializer if len(tensor.dims) == 4]
        if rung.kind == "static" and not rung.search:
            assert described.operators["QuantizeLinear"] >= LAYERS
            assert {tensor.data_type for tensor in weights} == {TensorProto.INT8}
            zeros = [tensor for tensor in made.graph.initializer if tensor.data_type == TensorProto.UINT8]
            assert zeros, "activations are unsigned"


def test_rungs_of_a_network_of_matrix_products(tmp_path: Path) -> None:
    found = climber(stack(tmp_path / "m.onnx", "MatMul"), "MatMul")
    assert found.rungs == TRANSFORMER
    for rung in TRANSFORMER:
        found.write(rung, tmp_path / "x.onnx")
        described = onnxfile.describe(tmp_path / "x.onnx")
        assert described.metadata == {KEY: "kept"}
        if rung.kind == "dynamic" and not rung.search:
            assert described.operators["MatMulInteger"] == LAYERS
    assert found.damage(tmp_path / "x.onnx") < 0.01, "weights in sixteen bits"


def test_calibration_rows_are_training_rows_and_none_measures_damage(judge: Judge) -> None:
    drawn: list[np.ndarray] = []

    class Train:
        def __len__(self) -> int:
            return 90

        def batches(self, order: np.ndarray, batch_size: int) -> list[object]:
            drawn.append(order)
            return list(judge.val.batches(np.arange(8), batch_size=8))

    ship._climber(judge, SimpleNamespace(examples={"train": Train()}.__getitem__))  # type: ignore[arg-type]
    calibration, held = drawn
    assert not set(calibration) & set(held)
    assert (len(calibration), len(held)) == (60, 30)
    assert np.array_equal(np.concatenate(drawn), keyed.generator(0, "calibration").permutation(90))


def test_the_climb_goes_on_until_a_rung_is_accepted(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = verdict.Speed(*[Timed(1.0, 1.0, (1.0,), 1)] * 2)
    monkeypatch.setattr(Judge, "speeds", lambda self, sessions: dict.fromkeys(sessions, speed))
    write, made = Quantiser.write_static, []

    def damaged(self: Quantiser, target: Path, method: str, **own: object) -> None:
        write(self, target, method, **own)  # type: ignore[arg-type]
        made.append(method)
        if method == "minmax":
            found = onnx.load(target)
            head = next(node for node in found.graph.node if node.op_type == "Gemm")
            source = next(node for node in found.graph.node if node.output[0] == head.input[1])
            weight = next(tensor for tensor in found.graph.initializer if tensor.name == source.input[0])
            weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
            onnx.save(found, target)

    monkeypatch.setattr(Quantiser, "write_static", damaged)
    monkeypatch.setattr(ladder, "saturates", lambda: False)
    toys = SimpleNamespace(examples=lambda split: judge.val)  # as good as training rows here
    tried = ship._climb(judge, toys)  # type: ignore[arg-type]
    assert made[:2] == ["minmax", "entropy"]
    assert {each.fault for each in tried if "extremes" in each.how} == {"metric"}
    assert any(each.accepted for each in tried if "divergence" in each.how)
    assert (judge.place / folder.INT8).is_file()
