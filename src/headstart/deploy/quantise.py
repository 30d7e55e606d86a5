"""Eight-bit files: ranges of activations measured on training rows, then weights and activations quantised.

Made by onnxruntime's quantiser in its QDQ form, which ONNX Runtime and OpenVINO both read. Activations are unsigned and
weights signed, one scale an output channel: what processors with VNNI or AMX multiply quickest (S8S8 is as slow as
fp32 there). Processors without VNNI add pairs of such products in sixteen bits, where large ones saturate; with weights
in seven bits (``narrow``) no pair is too large. An export that comes from another machine answers its golden rows when
it is loaded, which notice it.

Shapes: B rows of a batch.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart import __version__
from headstart.deploy import compacting, stem
from headstart.deploy.contract import INPUT
from headstart.deploy.runtimes.base import MIDDLE

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# In eight bits these cost accuracy and gain no time: what they read and write stays in float.
KEPT = ("Softmax", "LayerNormalization", "InstanceNormalization", "Gelu", "Erf", "Div", "Sqrt", "Pow", "ReduceMean")
METHODS = ("minmax", "percentile", "entropy")
PERCENTILE = 99.99
LOPSIDED = 4  # beyond it, as of GELU or SiLU, centring costs nearly half of the steps: for the quickest rung alone
MATRICES = ("MatMul", "Gemm", "Gather")  # of a transformer: products, and tables of tokens and places


class Quantiser:
    """An ONNX file of ours, prepared once, from which quantised ones are written."""

    def __init__(self, source: Path) -> None:
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self.metadata = {each.key: each.value for each in onnx.load(source, load_external_data=False).metadata_props}
        with tempfile.TemporaryDirectory(prefix="headstart-") as folder, _quiet():
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            self._model = onnx.load(prepared)
        self._ranges: dict[str, Any] = {}
        self._exact: frozenset[str] = frozenset()
        # Spectra of sounds span a million to one, and eight bits 256: what a logarithm depends on stays in float,
        # unless it is the network itself, whose last step this is.
        every, exact = self.layers, _before_logarithms(self._model.graph)
        if 2 * len(exact & {*every}) <= len(every):
            self._exact = exact

    @property
    def convolutional(self) -> bool:
        """Whether most layers with weights are convolutions."""
        kinds = [node.op_type for node in self._weighted()]
        return 2 * sum(kind.startswith("Conv") for kind in kinds) >= len(kinds)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with weights, from input to output."""
        return tuple(node.name for node in self._weighted())

    def calibrate(self, method: str, batches: Iterable[np.ndarray]) -> None:
        """Measure the ranges of all activations on ``batches``: "minmax", "percentile" (99.99) or "entropy"."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        kinds = {
            "minmax": (CalibrationMethod.MinMax, {}),
            "percentile": (CalibrationMethod.Percentile, {"symmetric": False, "percentile": PERCENTILE}),
            "entropy": (CalibrationMethod.Entropy, {}),
        }
        kind, options = kinds[method]
        with tempfile.TemporaryDirectory(prefix="headstart-") as folder, _quiet():
            import onnx

            plain, wider = Path(folder) / "plain.onnx", Path(folder) / "wider.onnx"
            onnx.save(self._model, plain)
            # The masks of attention reach to the end of what a float can hold: no histogram bears them.
            operators = None if self.convolutional else MATRICES
            calibrator = create_calibrator(plain, operators, wider, kind, extra_options=options)
            for batch in batches:  # one at a time: all activations of a batch are held at once
                calibrator.collect_data(_Reader([batch]))
            self._ranges[method] = _settled(
                calibrator.compute_data(), self._model.graph, math.inf if method == "minmax" else LOPSIDED
            )
            del calibrator

    def calibrated(self, method: str) -> bool:
        return method in self._ranges

    def write_static(
        self, target: Path, method: str, *, left: Sequence[str] = (), weighted: bool = False, narrow: bool = False
    ) -> None:
        """Weights and activations in eight bits; layers of ``left`` stay in float, ``weighted`` spares all others."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        every = sorted((set(QDQRegistry) | set(QLinearOpsRegistry)) - set(KEPT))
        model = copy.deepcopy(self._model)
        stem.read_pixels(model)
        tables = _tables(model.graph) if narrow else []
        with _quiet():
            quantiser = QDQQuantizer(
                model,
                True,  # a scale for every output channel
                narrow,
                QuantType.QInt8,
                QuantType.QUInt8,
                self._ranges[method],
                [node.name for node in self._weighted((*WEIGHTED, "Gather"))] if weighted else [],
                [*left, *self._exact],
                list(MATRICES) if weighted else every,
                # Logits keep their resolution, and inner layers quantise what they read themselves. Biases stay in
                # float: a runtime that adds in 32 bits converts them when it opens the file.
                {
                    "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
                    "QuantizeBias": False,
                    "TensorQuantOverrides": {name: [{"reduce_range": False}] for name in tables},
                },
            )
            quantiser.quantize_model()
            stem.spare(quantiser.model.model.graph)
            _shield(quantiser.model.model.graph, left)
            quantiser.model.topological_sort()
        self._save(quantiser.model.model, target)

    def write_dynamic(self, target: Path, *, left: Sequence[str] = (), narrow: bool = False) -> None:
        """Weights in eight bits, activations measured while the network runs: for matrix products only."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        model = copy.deepcopy(self._model)
        del model.graph.value_info[:]  # the quantiser trips over the types that torch's exporter leaves there
        with _quiet():
            quantize_dynamic(
                model,
                target,
                op_types_to_quantize=list(MATRICES),
                per_channel=True,
                reduce_range=narrow,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*left, *self._exact],
            )
        import onnx

        self._save(onnx.load(target), target)

    def write_half(self, target: Path) -> None:
        """Weights in sixteen bits, computed with in 32: half the size at the same speed."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        model = copy.deepcopy(self._model)
        graph, casts = model.graph, []
        for index, tensor in enumerate(graph.initializer):
            values = numpy_helper.to_array(tensor)
            if tensor.data_type != TensorProto.FLOAT or values.size < 256 or np.abs(values).max() > 65_504:
                continue
            name = tensor.name
            half = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
            graph.initializer[index].CopyFrom(half)
            casts.append(helper.make_node("Cast", [half.name], [name], f"{name}.cast", to=TensorProto.FLOAT))
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        onnx.checker.check_model(model)
        self._save(model, target)

    def _weighted(self, operators: Sequence[str] = WEIGHTED) -> list[Any]:
        """Nodes of these operators that read a constant of floats with at least two axes, and are not ``_exact``."""
        from onnx import TensorProto

        graph = self._model.graph
        constants = {
            each.name for each in graph.initializer if each.data_type == TensorProto.FLOAT and len(each.dims) > 1
        }
        return [
            node
            for node in graph.node
            if node.op_type in operators and constants & set(node.input[:2]) and node.name not in self._exact
        ]

    def _save(self, model: Any, target: Path) -> None:
        import onnx
        from onnx import helper

        del model.metadata_props[:]
        del model.graph.value_info[:]
        for node in model.graph.node:
            node.ClearField("name")
        compacting.share(model.graph)
        compacting.shorten(model.graph)
        helper.set_model_props(model, self.metadata)
        model.producer_name, model.producer_version = "headstart", __version__
        onnx.save(model, target)


def _tables(graph: Any) -> list[str]:
    """Constants that rows are gathered from: they are in no product, which could saturate."""
    constants = {each.name for each in graph.initializer}
    found = [node.input[0] for node in graph.node if node.op_type == "Gather"]
    return sorted(constants & {*found})


def _before_logarithms(graph: Any) -> frozenset[str]:
    """Names of all nodes that a logarithm depends on."""
    made = {output: node for node in graph.node for output in node.output}
    waiting = [name for node in graph.node if node.op_type == "Log" for name in node.input]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in made and name not in seen:
            seen.add(name)
            waiting += made[name].input
    return frozenset(made[name].name for name in seen if made[name].name)


def _settled(ranges: Any, graph: Any, lopsided: float) -> Any:
    """Measured ranges in place, as runtimes are quickest with them.

    What takes both signs, one at most ``lopsided`` times as far as the other, has 0 in the middle, as the value
    ``MIDDLE`` of 0 … 255: a runtime may read it as signed, and the products need no correction. What is joined once has
    the range of the whole, so that nobody quantises it twice. Pixels (see ``stem``) have theirs.
    """
    from onnxruntime.quantization.calibrate import TensorData

    found = {name: [np.asarray(value, np.float32) for value in each.range_value] for name, each in ranges.items()}
    found = {name: pair for name, pair in found.items() if pair[0].size == 1}
    joints = [node for node in graph.node if node.op_type == "Concat" and {*node.input, *node.output} <= found.keys()]
    times = collections.Counter(name for node in joints for name in node.input)
    for node in reversed(joints):  # a whole may be part of another
        if max(times[name] for name in node.input) == 1:
            lows, highs = zip(*(found[name] for name in (*node.input, *node.output)), strict=True)
            found.update({name: [min(lows), max(highs)] for name in (*node.input, *node.output)})
    for name, (low, high) in found.items():
        less, more = sorted((-low.item(), high.item()))
        if less > 0 and lopsided * less >= more:
            step = np.maximum(-low / MIDDLE, high / (MIDDLE - 1))
            low, high = -MIDDLE * step, (MIDDLE - 1) * step
        ranges.data[name] = TensorData(lowest=low, highest=high)
    ranges.data[stem.FLOATS] = TensorData(lowest=np.float32(0), highest=np.float32(255))
    return ranges


def _shield(graph: Any, left: Sequence[str]) -> None:
    """Put a sum of one term behind the layers of ``left`` whose outputs are quantised for what reads them.

    Between eight-bit inputs and outputs, onnxruntime (1.20 and later) quantises the weights of a layer by itself when
    it opens a file; nothing would stay in float.
    """
    from onnx import helper

    outputs = {node.output[0] for node in graph.node if node.name in left}
    readers = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in outputs]
    for output in {node.input[0] for node in readers}:
        graph.node.append(helper.make_node("Sum", [output], [f"{output}_shielded"]))
    for node in readers:
        node.input[0] += "_shielded"


class _Reader:
    """What onnxruntime reads calibration rows from."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Onnxruntime's tools speak by warnings, on the root logger and on the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
