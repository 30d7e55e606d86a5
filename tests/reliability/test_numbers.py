"""R6: a number that is not finite is found at that step, told with its cause, and never reaches the disk."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from nursery import Life, weights

STEP = 5  # of the cached stage, which has an EMA; frozen parts are planted in its live successor
CASES: dict[tuple[str, str], str] = {
    ("the loss", "nan"): r"the loss is not finite .*update 5|update 5.*the loss is not finite",
    ("the loss", "inf"): r"update 5.*the loss is not finite",
    ("a gradient", "nan"): r"update 5.*a gradient is not finite",
    ("a gradient", "inf"): r"update 5.*a gradient is not finite",
    ("a weight", "nan"): r"update 5.*weights or buffers are not finite themselves: model\.head",
    ("a weight", "inf"): r"update 5.*weights or buffers are not finite themselves: model\.head",
    ("a class weight", "nan"): r"update 5.*the loss is not finite",
    ("BatchNorm's mean", "nan"): r"not written: .*running_mean|update 5.*not finite",
    ("BatchNorm's variance", "inf"): r"not written: .*running_var|update 5.*not finite",
    ("the average", "nan"): r"not written: .*ema/average",
    ("a moment", "nan"): r"not written: \d+ tensors are not finite",
    ("the rate", "nan"): r"update 1: the learning rate is not finite",
    ("the rate", "inf"): r"update 1: the learning rate is not finite",
    ("the validation logits", "nan"): r"logits of 9 rows are not finite: rows 0, 1",
    ("the validation logits", "inf"): r"logits of 9 rows are not finite",
    ("the features of the probe", "nan"): r"the features of 24 rows are not finite: ",
    ("the solved head", "nan"): r"logits of 9 rows are not finite",
    ("the metric", "nan"): r"the metric .* is nan",
    ("the temperature", "nan"): r"temperature is nan|not finite",
}
QUICK = [("a gradient", "inf"), ("the average", "nan")]


def holds_only_finite(folder: Path) -> int:
    """The number of arrays below ``folder``, all of them finite."""
    from safetensors.numpy import load_file

    count = 0
    for file in [*folder.rglob("*.safetensors"), *folder.rglob("*.npz")]:
        found = load_file(file) if file.suffix == ".safetensors" else dict(np.load(file, allow_pickle=False))
        for name, value in found.items():
            assert value.dtype.kind != "f" or np.isfinite(value).all(), f"{file}: {name}"
            count += 1
    return count


def plant(folder: Path, what: str, value: str) -> None:
    step = 1 if what == "the rate" else STEP
    life = Life(folder, plants=[("not_finite", {"what": what, "value": value, "step": step})])
    assert life.end() == 1, life.log()
    assert re.search(CASES[what, value], life.log(), re.DOTALL), life.log()
    assert not (life.run / "result.json").exists()
    assert holds_only_finite(folder) >= 0


@pytest.mark.parametrize(
    ("what", "value"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
)
def test_a_planted_number(tmp_path: Path, whole: Path, what: str, value: str) -> None:
    plant(tmp_path, what, value)
    life = Life(tmp_path)  # without the plant, from the last good checkpoint
    assert life.end() == 0, life.log()
    assert weights(tmp_path) == weights(whole)
    assert holds_only_finite(tmp_path) > 20


def test_a_row_is_named(tmp_path: Path) -> None:
    plan = [{"thaw": {"epochs": 2, "batch_size": 8, "blocks": "all", "augment": "none"}}]
    plants = [("not_finite", {"what": "an input", "step": 2}), ("trace_updates", {})]
    life = Life(tmp_path, settings={"plan": plan}, plants=plants)
    assert life.end() == 1
    assert re.search(r"update 2: (the loss|a gradient) is not finite", life.log()), "an activation may hide a NaN"
    assert re.search(r"rows whose loss or gradient is not finite: \S+", life.log()), life.log()


def test_the_check_of_files_would_notice(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([1.0, np.inf]))
    with pytest.raises(AssertionError, match=r"x\.npz"):
        holds_only_finite(tmp_path)
