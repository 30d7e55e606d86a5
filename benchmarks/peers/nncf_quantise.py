"""NNCF's post-training quantisation as its documentation has it, for benchmarks/deploy.py; needs nncf and openvino.

uv venv .nncf --python 3.11 && uv pip install --python .nncf/bin/python nncf openvino
python nncf_quantise.py model.onnx calibration.npz quantised.xml [--transformer]
"""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import numpy as np
import openvino


def main() -> None:
    source, rows, target = map(Path, sys.argv[1:4])
    with np.load(rows) as stored:
        batches = [stored[name] for name in stored.files]
    quantised = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset([{"inputs": batch} for batch in batches]),
        subset_size=len(batches),
        model_type=nncf.ModelType.TRANSFORMER if "--transformer" in sys.argv else None,
    )
    openvino.save_model(quantised, target, compress_to_fp16=False)


if __name__ == "__main__":
    main()
