"""OpenVINO, which reads the same ONNX files; on machines with matrix units it is often the quickest.

Shapes: B rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import ArtefactError, MissingExtra
from headstart.deploy.contract import INPUT, OUTPUTS
from headstart.deploy.mates import SIZES
from headstart.deploy.parallel import joined
from headstart.deploy.runtimes.base import MIDDLE, Session

EXTRA = "openvino"
PRECISIONS = ("fp32", "bf16")
HINTS = {"fp32": "f32", "bf16": "bf16"}
# Pictures are answered in batches of ``SIZES`` rows: what knows its shape is planned once instead of in every call, and
# more layers become one. On two cores a ViT-S in eight bits takes .91 of the time for one row and .95 for 16. A network
# of any number of rows rounds otherwise; networks of fixed ones agree.
OFTEN_AT_MOST = 256 * 2**20  # bytes of a file whose weights may be held for every size


def version() -> str:
    """Of the installed library; "" where there is none."""
    try:
        return version_of("openvino")
    except PackageNotFoundError:
        return ""


@cache
def precisions() -> tuple[str, ...]:
    """Those that this processor has instructions for: the others it would compute in fp32 under another name."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(each for each in PRECISIONS if each.upper() in able)


def load(path: Path, *, threads: int, precision: str = "fp32") -> Session:
    """Open a file that was looked through (see ``contract.read``).

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", EXTRA, "running an export with OpenVINO") from error
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        core = openvino.Core()
        model = _signed(core.read_model(str(path)))

        @cache
        def request(rows: int | None) -> Any:
            """What answers batches of so many rows; of any number where that is None."""
            sized = model if rows is None else _of_rows(model, rows)
            return core.compile_model(sized, "CPU", settings).create_infer_request()

        planned = path.stat().st_size <= OFTEN_AT_MOST and _bears_plans(model, request)
        if not planned:
            request(None)  # a file that is refused is refused now
    except RuntimeError as error:
        raise ArtefactError(f"OpenVINO refuses the file ({str(error)[:300]})", where=str(path)) from error

    def answered(inputs: np.ndarray, rows: int | None) -> tuple[np.ndarray, np.ndarray]:
        try:
            found = request(rows).infer({INPUT: inputs})
        except RuntimeError as error:
            what = f"OpenVINO cannot answer inputs of shape {inputs.shape} ({str(error)[:300]})"
            raise ArtefactError(what, where=str(path)) from error
        logits, probabilities = (np.array(found[name]) for name in OUTPUTS)
        if len(logits) != len(inputs):  # it has happened where it counted windows of sound in bf16
            raise ArtefactError(f"OpenVINO answers {len(logits)} of {len(inputs)} rows in {precision}", where=str(path))
        return logits, probabilities

    def run(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not planned or not len(inputs):
            return answered(inputs, None)
        sizes = _sizes(len(inputs))
        whole = np.concatenate([inputs, inputs[-1:].repeat(sum(sizes) - len(inputs), axis=0)])
        parts = np.split(whole, np.cumsum(sizes)[:-1])
        found = joined([answered(part, len(part)) for part in parts])
        return found[0][: len(inputs)], found[1][: len(inputs)]

    return run


def _sizes(rows: int) -> list[int]:
    """The batches for so many rows; the last of a size is filled up where more than three quarters of it are wanted."""
    found: list[int] = []
    for size in SIZES:
        while 4 * (rows - sum(found)) > 3 * size:
            found.append(size)
    return found


def _bears_plans(model: Any, request: Callable[[int], Any]) -> bool:
    """Whether rows are of one size, and a network of a fixed number of them can be compiled."""
    batch, *row = model.input(INPUT).partial_shape
    if batch.is_static or any(length.is_dynamic for length in row):
        return False
    try:
        request(SIZES[1])
    except RuntimeError:
        return False
    return True


def _of_rows(model: Any, rows: int) -> Any:
    """A copy for batches of so many rows."""
    copy = model.clone()
    copy.reshape({INPUT: [rows, *list(copy.input(INPUT).partial_shape)[1:]]})
    return copy


def _signed(model: Any) -> Any:
    """Eight-bit values around 128 as values around 0, in place: the same steps, and products that need no correction.

    ONNX Runtime is quick with unsigned values only, matrix units with any; with values around 0 a ViT-S takes .88 of
    the time.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        low, high = (node.input_value(place).get_node() for place in (3, 4))
        if _number(low) != 0 or _number(high) != 2 * MIDDLE - 1:
            continue
        narrow = [each.get_node() for each in node.output(0).get_target_inputs()]
        wide = [each.get_node() for cast in narrow for each in cast.output(0).get_target_inputs()]
        less = [each.get_node() for cast in wide for each in cast.output(0).get_target_inputs()]
        kinds = [{each.get_type_name() for each in part} for part in (narrow, wide, less)]
        if kinds != [{"Convert"}, {"Convert"}, {"Subtract"}] or any(_offset(each) != MIDDLE for each in less):
            continue
        ranges = [node.input_value(place) for place in range(3)]
        steps = ops.fake_quantize(*ranges, np.float32(-MIDDLE), np.float32(MIDDLE - 1), 2 * MIDDLE)
        values = ops.convert(ops.convert(steps, np.int8), np.float32)
        for each in less:
            each.output(0).replace(values.output(0))
    return model


def _number(node: Any) -> float | None:
    """The one number that a constant holds."""
    held = node.data if node.get_type_name() == "Constant" else np.empty(0)
    return float(held.reshape(-1)[0]) if held.size == 1 else None


def _offset(node: Any) -> float | None:
    """What is taken from the values, where it is one number."""
    taken = node.input_value(1).get_node()
    return _number(taken.input_value(0).get_node() if taken.get_type_name() == "Convert" else taken)
