"""A trained model as one ONNX file: raw uint8, ids or samples in, logits and probabilities out.

Shapes: B rows, K classes.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart import __version__
from headstart.core import manifest
from headstart.core.errors import ArtefactError, MissingExtra
from headstart.deploy import attention
from headstart.deploy.contract import INPUT, KEY, OUTPUTS, Contract
from headstart.deploy.folder import Golden
from headstart.deploy.onnxfile import MOST_BYTES

if TYPE_CHECKING:
    from headstart.models.model import Model

NOUGHT = 1e-7  # what an optimiser may take for 0, and more


def contract_of(model: Model) -> Contract:
    """What a file of this model promises."""
    spec = model.backbone.spec
    given_from = float(model.threshold) if model.several else None
    return Contract(spec.modality, spec, model.classes, float(model.temperature), given_from)


def write(model: Model, path: Path) -> None:
    """Write ``model`` to ``path`` as ONNX that stands alone, with normalisation and temperature inside.

    The number of rows may be any; of texts and sounds the length too. Nothing of the machine (paths, stack traces)
    stays in the file, and the same model gives the same bytes.

    Raises:
        ArtefactError: the network cannot be exported, or takes more than one file can hold.
        MissingExtra: onnx or onnxscript is not installed.
    """
    program = _program(model)
    graph = program.model
    attention.simplify(graph)
    for part in (graph.graph, *graph.functions.values()):
        for node in part.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in (*node.inputs, *node.outputs):
                if value is not None:
                    value.metadata_props.clear()
        for value in (*part.inputs, *part.outputs):
            value.metadata_props.clear()
        part.metadata_props.clear()
    graph.metadata_props.clear()
    graph.metadata_props[KEY] = contract_of(model).to_text(__version__)
    graph.producer_name, graph.producer_version, graph.doc_string = "headstart", __version__, None
    manifest.write_atomically(path, lambda temporary: program.save(temporary, external_data=False))


def golden(model: Model, inputs: np.ndarray) -> Golden:
    """Torch's answers to ``inputs``, eager and in fp32."""
    import torch

    with torch.inference_mode():
        logits, probabilities = _whole(model)(torch.from_numpy(inputs))
    return Golden(inputs, logits.numpy(), probabilities.numpy())


def _whole(model: Model) -> Any:
    """A module from inputs to both outputs."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.temperature = float(model.temperature)

        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.model(inputs).float()
            scores = logits / self.temperature
            return logits, torch.sigmoid(scores) if self.model.several else torch.softmax(scores, dim=1)

    return Whole().eval()


def _program(model: Model) -> Any:
    import torch

    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtra(package, "train", "writing ONNX files") from error
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size > 0.98 * MOST_BYTES:
        raise ArtefactError(f"the weights take {size:,} bytes, and one ONNX file holds {MOST_BYTES:,}")
    spec = model.backbone.spec
    example = torch.from_numpy(spec.noise(2))
    shapes = {0: torch.export.Dim("rows")}
    if spec.modality == "text":
        shapes[2] = torch.export.Dim("length")
    elif spec.modality == "audio":  # more than one window, or their number would be taken for fixed
        example = torch.cat([example, example, example[:, : spec.window // 3]], dim=1)
        shapes[1] = torch.export.Dim("length", min=spec.window + 1)
    try:
        with _quiet():
            program = torch.onnx.export(
                _whole(model),
                (example,),
                dynamo=True,
                dynamic_shapes={INPUT: shapes},
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                external_data=False,
                verbose=False,
                optimize=False,
            )
            assert program is not None  # None is for what writes a file itself
            _keep_small(program.model.graph)
            program.optimize()
    except Exception as error:  # torch.onnx raises what the step that failed raises
        what = f"the network cannot be exported ({type(error).__name__}: {str(error).strip()[:400]})"
        raise ArtefactError(what, where=model.backbone.origin.uri) from error
    found: Any = program.model.graph.inputs[0].shape
    fixed = [dimension.__name__ for axis, dimension in shapes.items() if isinstance(found[axis], int)]
    if fixed:  # where an export with any number fails, torch tries again with the example's
        what = f"the network can only be exported for a fixed number of {' and '.join(fixed)}"
        raise ArtefactError(
            what, where=model.backbone.origin.uri, remedy="its code must not read them as plain numbers"
        )
    return program


def _keep_small(graph: Any) -> None:
    """Give numbers too small for the optimiser an axis, before it runs, in place.

    It takes a scalar of 1e-8 and less for 0 and leaves the sum out (onnxscript 0.7): what keeps a logarithm or a
    quotient finite, of silence for instance, would be gone from the file.
    """
    import onnx_ir as ir

    for node in list(graph):
        if node.op_type not in ("Add", "Sub"):
            continue
        for place, value in enumerate(node.inputs):
            other = node.inputs[1 - place]
            maker = value.producer() if value is not None else None
            held = maker.attributes.get("value") if maker is not None and maker.op_type == "Constant" else None
            if held is None or other is None or not other.shape:  # a sum of two scalars stays one
                continue
            number = held.as_tensor().numpy()
            if number.ndim == 0 and number.dtype.kind == "f" and 0 < abs(number) <= NOUGHT:
                kept = ir.node("Constant", [], attributes={"value": ir.tensor(number.reshape(1))})
                graph.insert_before(node, kept)
                node.replace_input_with(place, kept.outputs[0])


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter tells its own story on the terminal; ours is the verdict."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
