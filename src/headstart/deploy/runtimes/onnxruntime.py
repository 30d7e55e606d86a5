"""ONNX Runtime: part of the base install.

Shapes: B rows, K classes.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np

from headstart.core.errors import ArtefactError
from headstart.deploy.contract import INPUT, OUTPUTS
from headstart.deploy.parallel import SideBySide
from headstart.deploy.runtimes.base import Session

EXTRA = ""
PRECISIONS = ("fp32",)
TWICE_AT_MOST = 512 * 2**20  # bytes of a file whose weights may be held twice, to answer many rows side by side


def version() -> str:
    """Of the installed library; "" where there is none."""
    try:
        return version_of("onnxruntime")
    except PackageNotFoundError:
        return ""


def precisions() -> tuple[str, ...]:
    """Those of this processor."""
    return PRECISIONS


def load(path: Path, *, threads: int, precision: str = "fp32") -> Session:
    """Open a file that was looked through (see ``contract.read``)."""
    whole = _open(path, threads)
    if path.stat().st_size > TWICE_AT_MOST:
        return whole
    return SideBySide(whole, threads, lambda: _open(path, 1))


def _open(path: Path, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait slow everything else on the machine down, torch beside it by a factor of 2.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions have no common base, and derive from RuntimeError only in part
        raise ArtefactError(f"ONNX Runtime refuses the file ({str(error)[:300]})", where=str(path)) from error

    def run(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            logits, probabilities = session.run(list(OUTPUTS), {INPUT: inputs})
        except Exception as error:  # see above
            what = f"ONNX Runtime cannot answer inputs of shape {inputs.shape} ({str(error)[:300]})"
            raise ArtefactError(what, where=str(path)) from error
        return logits, probabilities

    return run
