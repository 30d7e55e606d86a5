"""The same ONNX graph in fewer bytes: constants that are equal are kept once, and names are numbers."""

from __future__ import annotations

from typing import Any


def share(graph: Any) -> None:
    """Keep one of equal constants: zero points repeat in every layer."""
    kept: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    tensors = list(graph.initializer)
    del graph.initializer[:]
    for tensor in tensors:
        name, tensor.name = tensor.name, ""
        first = kept.setdefault(tensor.SerializeToString(), name)
        tensor.name = name
        if first == name:
            graph.initializer.append(tensor)
        else:
            renamed[name] = first
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


def shorten(graph: Any) -> None:
    """Number all values but inputs and outputs: of a small network's file, their names are a fiftieth."""
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # a graph within may read any of them
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}  # "" stands for an input that is left out
    made = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    short = {name: str(number) for number, name in enumerate(dict.fromkeys(made)) if name not in kept}
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
