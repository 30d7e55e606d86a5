"""The first layer of a network for pictures, reading the pixels as they come.

A picture arrives in eight bits, is normalised in float, and would be brought back to eight bits for the first
convolution: three passes, and a rounding of what had none. Normalisation is a factor and an offset a channel, so it
goes into the weights and the bias, and the convolution reads the pixels themselves. What it pads with, a normalised 0,
is then the mean of the channel, rounded to a whole pixel.

Three channels are few for kernels that work along channels. A convolution of stride 2 is one of stride 1 with half the
kernel on blocks of 2 x 2 pixels, which have twelve.

Shapes: B rows, C channels, O channels that the convolution writes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.deploy.contract import INPUT

BLOCK = 2
PIXELS, FLOATS = "headstart.pixels", "headstart.pixels.float"


@dataclass(frozen=True)
class _Stem:
    """The nodes from the input to the first convolution, and what they compute: ``pixels * scale + offset``."""

    nodes: Sequence[Any]  # the last is the convolution
    scale: np.ndarray  # (C,)
    offset: np.ndarray  # (C,)
    weight: np.ndarray  # (O, C, height, width)
    bias: np.ndarray  # (O,)
    size: tuple[int, int]  # of a picture

    @property
    def blank(self) -> np.ndarray:
        """(C,) the pixel that is a normalised 0."""
        return -self.offset / self.scale


def read_pixels(model: Any) -> bool:
    """Let the first convolution of an ONNX model read ``PIXELS``, in place; whether it does.

    Left as it is where something else is computed on the way, or read on it; where the convolution is grouped or
    dilated; and where it pads with what is no pixel.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    stem = _found(graph)
    if stem is None:
        return False
    *before, conv = stem.nodes
    taken = {attribute.name: list(attribute.ints) for attribute in conv.attribute}
    strides, pads = taken.get("strides", [1, 1]), taken.get("pads", [0] * 4)
    weight = (stem.weight * stem.scale[:, None, None]).astype(np.float32)
    bias = (stem.bias + (stem.weight * stem.offset[:, None, None]).sum((1, 2, 3))).astype(np.float32)
    blocked = strides == [BLOCK, BLOCK] and min(weight.shape[2:]) > 1 and knows_blocks()
    size = [each + pads[axis] + pads[axis + 2] for axis, each in enumerate(stem.size)]
    if blocked:
        weight, whole = _in_blocks(weight, size)
        pads = [*pads[:2], *(pad + there - each for pad, there, each in zip(pads[2:], whole, size, strict=True))]
    made, name = _padded(graph, pads, stem.blank)
    if blocked:
        made.append(helper.make_node("SpaceToDepth", [name], [f"{PIXELS}.blocks"], blocksize=BLOCK))
        name = f"{PIXELS}.blocks"
    made.append(helper.make_node("Cast", [name], [FLOATS], to=TensorProto.FLOAT))
    _constant(graph, f"{FLOATS}.weight", weight)
    _constant(graph, f"{FLOATS}.bias", bias)
    conv.input[:] = [FLOATS, f"{FLOATS}.weight", f"{FLOATS}.bias"]
    del conv.attribute[:]
    conv.attribute.append(helper.make_attribute("kernel_shape", list(weight.shape[2:])))
    conv.attribute.append(helper.make_attribute("strides", [1, 1] if blocked else strides))
    for node in before:
        graph.node.remove(node)
    nodes = [*made, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return True


def spare(graph: Any) -> None:
    """Let what was quantised from the pixels read them: they are in eight bits already."""
    cast = next((node for node in graph.node if node.output[0] == FLOATS), None)
    steps = [node for node in graph.node if FLOATS in node.input]
    if cast is None or any(step.op_type != "QuantizeLinear" for step in steps):  # or the layer stays in float
        return
    for step in steps:
        for node in graph.node:
            node.input[:] = [cast.input[0] if name == step.output[0] else name for name in node.input]
    for node in (cast, *steps):
        graph.node.remove(node)


def _found(graph: Any) -> _Stem | None:
    """The way from pixels to the first convolution, where it is nothing but a factor and an offset a channel."""
    from onnx import TensorProto, numpy_helper

    known = {each.name: each for each in graph.initializer}
    source = next((each.type.tensor_type for each in graph.input if each.name == INPUT), None)
    if source is None or source.elem_type != TensorProto.UINT8 or len(source.shape.dim) != 4:
        return None
    channels, *size = (each.dim_value for each in source.shape.dim[1:])
    if not channels or not all(size):
        return None
    nodes: list[Any] = []
    name, scale, offset = INPUT, np.ones(channels), np.zeros(channels)
    while True:
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1 or readers[0].input[0] != name or name in {each.name for each in graph.output}:
            return None
        node = readers[0]
        nodes.append(node)
        values = [numpy_helper.to_array(known[each]) for each in node.input[1:] if each in known]
        if len(values) != len(node.input) - 1:
            return None
        if node.op_type == "Conv":
            break
        if node.op_type in ("Mul", "Sub", "Add") and (value := _a_channel(values[0], channels)) is not None:
            if node.op_type == "Mul":
                scale, offset = scale * value, offset * value
            else:
                offset = offset + (value if node.op_type == "Add" else -value)
        elif node.op_type != "Cast":
            return None
        name = node.output[0]
    if not _fits(node, values[0], channels) or not (scale > 0).all():
        return None
    bias = values[1].astype(np.float64) if len(values) > 1 else np.zeros(len(values[0]))
    found = _Stem(nodes, scale, offset, values[0].astype(np.float64), bias, (size[0], size[1]))
    return found if ((found.blank >= 0) & (found.blank <= 255)).all() else None


def _a_channel(value: np.ndarray, channels: int) -> np.ndarray | None:
    """(C,) where a constant is one number, or one a channel; else None."""
    if value.size == 1:
        return np.full(channels, float(value.reshape(())))
    return value.reshape(channels).astype(np.float64) if value.shape[-3:] == (channels, 1, 1) else None


def _fits(conv: Any, weight: np.ndarray, channels: int) -> bool:
    """Whether it is a plain convolution of pictures with all of these channels."""
    taken = {each.name: each for each in conv.attribute}
    plain = not (auto := taken.get("auto_pad")) or auto.s in (b"", b"NOTSET")
    dilated = "dilations" in taken and set(taken["dilations"].ints) != {1}
    return weight.ndim == 4 and weight.shape[1] == channels and plain and not dilated


def _in_blocks(weight: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """The same weights for blocks of pixels (O, 4 C, …), and the rows and columns that they read of ``size``.

    Blocks hold their pixels place by place, and there channel by channel, as ``SpaceToDepth`` writes them.
    """
    outs, channels, *kernel = weight.shape
    sides = [-(-side // BLOCK) for side in kernel]
    whole = np.zeros((outs, channels, *(side * BLOCK for side in sides)), weight.dtype)
    whole[:, :, : kernel[0], : kernel[1]] = weight
    parts = whole.reshape(outs, channels, sides[0], BLOCK, sides[1], BLOCK).transpose(0, 3, 5, 1, 2, 4)
    # as many blocks as the last window reaches: (size - kernel) // 2 windows after the first
    wanted = [((each - side) // BLOCK + half) * BLOCK for each, side, half in zip(size, kernel, sides, strict=True)]
    return parts.reshape(outs, -1, *sides), wanted


@functools.cache
def knows_blocks() -> bool:
    """Whether the ONNX Runtime that is installed makes blocks of bytes (``SpaceToDepth``); old ones: of floats."""
    import onnxruntime
    from onnx import TensorProto, helper

    given, found = (helper.make_tensor_value_info(name, TensorProto.UINT8, [1, None, None, None]) for name in "ab")
    node = helper.make_node("SpaceToDepth", ["a"], ["b"], blocksize=BLOCK)
    graph = helper.make_graph([node], "blocks", [given], [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # whatever it raises where it has no kernel
        return False
    return True


def _padded(graph: Any, pads: Sequence[int], blank: np.ndarray) -> tuple[list[Any], str]:
    """Nodes that surround the pixels, every channel with its own; and the name of what they give."""
    from onnx import helper

    if not any(pads):
        return [], INPUT
    channels = [f"{PIXELS}.{index}" for index in range(len(blank))]
    _constant(graph, f"{PIXELS}.pads", np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
    made = [helper.make_node("Split", [INPUT], channels, axis=1, num_outputs=len(channels))]
    for channel, value in zip(channels, blank, strict=True):
        _constant(graph, f"{channel}.blank", np.uint8(round(float(value))))
        made.append(helper.make_node("Pad", [channel, f"{PIXELS}.pads", f"{channel}.blank"], [f"{channel}.padded"]))
    made.append(helper.make_node("Concat", [f"{channel}.padded" for channel in channels], [PIXELS], axis=1))
    return made, PIXELS


def _constant(graph: Any, name: str, value: Any) -> None:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
