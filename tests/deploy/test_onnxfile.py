"""What is read from an ONNX file before a runtime opens it, held to the package onnx; and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.core.errors import ArtefactError
from headstart.deploy import contract, onnxfile


def model(initializers: Any = (), nodes: Any = None, **metadata: str) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    made = helper.make_graph(nodes or [helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value], initializers)
    found = helper.make_model(made)
    helper.set_model_props(found, metadata)
    return found


def saved(made: onnx.ModelProto, folder: Path) -> Path:
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    return folder / "m.onnx"


def outside(name: str = "w", location: str = "../secret") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_metadata_and_operators_are_those_that_onnx_reads(exported: Path) -> None:
    for file in exported.glob("*.onnx"):
        found, wanted = onnxfile.describe(file), onnx.load(file)
        assert found.metadata == {each.key: each.value for each in wanted.metadata_props}
        assert found.operators == Counter(node.op_type for node in wanted.graph.node)
        onnx.checker.check_model(wanted, full_check=True)


def inside_a_branch() -> onnx.ModelProto:
    branch = model([outside()]).graph
    return model(nodes=[helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)])


def as_an_attribute() -> onnx.ModelProto:
    return model(nodes=[helper.make_node("Constant", [], ["y"], value=outside())])


def in_a_function() -> onnx.ModelProto:
    found, node = model(), helper.make_node("Constant", [], ["y"], value=outside())
    found.functions.append(helper.make_function("own", "F", [], ["y"], [node], []))
    return found


def sparse() -> onnx.ModelProto:
    found = model()
    found.graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside(), dims=[4]))
    return found


def without_location() -> onnx.ModelProto:
    tensor = outside()
    tensor.ClearField("data_location")
    return model([tensor])


@pytest.mark.parametrize(
    "made",
    [
        model([outside()]),
        model([outside(location="/etc/passwd")]),
        inside_a_branch(),
        as_an_attribute(),
        in_a_function(),
        sparse(),
        without_location(),
    ],
    ids=["initializer", "absolute", "branch", "attribute", "function", "sparse", "no location"],
)
def test_weights_elsewhere_are_refused(made: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="another file"):
        onnxfile.describe(saved(made, tmp_path))


def test_a_plain_model_is_let_through(tmp_path: Path) -> None:
    found = onnxfile.describe(saved(model([numpy_helper.from_array(np.zeros(4, np.float32), "w")], a="b"), tmp_path))
    assert found.metadata == {"a": "b"}


def test_too_much_metadata_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxfile, "MOST_METADATA", 1000)
    with pytest.raises(ArtefactError, match="metadata"):
        onnxfile.describe(saved(model(a="x" * 2000), tmp_path))


def test_graphs_in_graphs_end_somewhere(tmp_path: Path) -> None:
    inner = model()
    for _ in range(20):
        branch = inner.graph
        inner = model(nodes=[helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=model().graph)])
    with pytest.raises(ArtefactError, match="nested"):
        onnxfile.describe(saved(inner, tmp_path))


def test_damaged_files_are_errors_of_ours_and_nothing_else(exported: Path, tmp_path: Path) -> None:
    whole = (exported / "model.onnx").read_bytes()
    rng, file = np.random.default_rng(0), tmp_path / "m.onnx"
    refused = 0
    for turn in range(300):
        data = bytearray(whole[:40_000] if turn % 2 else whole[: int(rng.integers(1, 5000))])
        for place in rng.integers(0, min(len(data), 3000), 4):
            data[place] = rng.integers(256)
        file.write_bytes(data)
        try:
            contract.read(file)
        except ArtefactError:
            refused += 1
    assert refused > 290


@pytest.mark.parametrize("data", [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + b"0" * 99, b"\xff" * 100], ids=str)
def test_what_is_no_onnx_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ArtefactError):
        onnxfile.describe(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"more": 1},
        {"classes": []},
        {"classes": [1, 2, 3]},
        {"temperature": 0},
        {"temperature": True},
        {"modality": "../image"},
        {"spec": {"size": [1, 1], "command": "x"}},
    ],
    ids=str,
)
def test_a_contract_that_cannot_be_is_refused(change: dict[str, Any], exported: Path, tmp_path: Path) -> None:
    text = onnxfile.describe(exported / "model.onnx").metadata[contract.KEY]
    with pytest.raises(ArtefactError):
        contract.read(saved(model(**{contract.KEY: json.dumps({**json.loads(text), **change})}), tmp_path))
    assert contract.read(saved(model(**{contract.KEY: text}), tmp_path)).classes == ("dark", "red", "stripes")


def test_a_file_of_others_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="did not write"):
        contract.read(saved(model(), tmp_path))
