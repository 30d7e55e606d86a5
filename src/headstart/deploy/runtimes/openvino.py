"""OpenVINO, which reads the same ONNX files; on machines with matrix units it is often the quickest.

Shapes: B rows, K classes.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np

from headstart.core.errors import ArtefactError, MissingExtra
from headstart.deploy.contract import INPUT, OUTPUTS
from headstart.deploy.runtimes.base import Session

EXTRA = "openvino"
PRECISIONS = ("fp32", "bf16")
HINTS = {"fp32": "f32", "bf16": "bf16"}


def version() -> str:
    """Of the installed library; "" where there is none."""
    try:
        return version_of("openvino")
    except PackageNotFoundError:
        return ""


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
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        raise ArtefactError(f"OpenVINO refuses the file ({str(error)[:300]})", where=str(path)) from error
    request = compiled.create_infer_request()

    def run(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = request.infer({INPUT: inputs})
        logits, probabilities = (np.array(found[name]) for name in OUTPUTS)
        return logits, probabilities

    return run
