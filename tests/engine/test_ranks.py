"""What ranks tell each other, each call by itself: two gloo processes under torchrun that hold different values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.distributed

DRIVER = """
import math

import numpy as np
import torch
from torch import nn

from headstart.core.errors import TrainingError
from headstart.engine.runtime import Runtime

runtime = Runtime("cpu")
rank = runtime.rank
assert (runtime.world, runtime.is_main) == (2, rank == 0)

assert runtime.agree(rank == 1), "what one rank says is not heard"
assert not runtime.agree(False)
assert runtime.mean(float(rank)) == 0.5
assert math.isnan(runtime.mean(math.nan if rank else 1.0))
assert runtime.tell("né" if rank == 0 else "another, and longer") == "né"
assert runtime.tell("the longer one" if rank == 0 else "other") == "the longer one"

parts = nn.ModuleList([nn.BatchNorm1d(3), nn.BatchNorm1d(3).eval()])
for part in parts:
    part.running_mean.fill_(4.0 * rank)
    part.num_batches_tracked.fill_(7)
runtime.average(parts)
assert parts[0].running_mean.tolist() == [2.0] * 3, "no mean of both"
assert parts[0].running_var.tolist() == [1.0] * 3
assert parts[0].num_batches_tracked == 7
assert parts[1].running_mean.tolist() == [4.0 * rank] * 3, "what does not move is not averaged"

layer = nn.Linear(2, 2)
nn.init.constant_(layer.weight, 3.0 + rank)
runtime.share(layer)
assert layer.weight.tolist() == [[3.0, 3.0], [3.0, 3.0]], "not the first rank's"
nn.init.zeros_(layer.bias)
runtime.insist_equal(layer, "here")
part = nn.BatchNorm1d(2)
part.running_var[0] += 1e-7 * rank
try:
    runtime.insist_equal(part, "here")
except TrainingError as error:
    assert "ranks 1 hold other weights" in str(error)
else:
    raise AssertionError("a buffer that differs in its last bit is not seen")

order = np.array([4, 0, 3, 1, 2])
mine = runtime.share_of(order)
assert len(mine) == 3 - rank
values = torch.as_tensor(mine)[:, None] * torch.tensor([1.0, 10.0])
assert runtime.gather(mine, values, 5).tolist() == [[i, 10.0 * i] for i in range(5)]
most = np.arange(4) if rank == 0 else np.array([4])
assert runtime.gather(most, torch.as_tensor(most), 5).tolist() == [0, 1, 2, 3, 4], "the tokens of a rank's texts"
for wrong in (mine[:1], np.zeros_like(mine)):
    try:
        runtime.gather(wrong, values[: len(wrong)], 5)
    except AssertionError as error:
        assert "5 rows expected" in str(error)
    else:
        raise RuntimeError("rows that are missing or come twice are not seen")
runtime.close()
print(f"done {rank};", flush=True)
"""


def test_two_ranks_are_told_the_same(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, str(tmp_path / "driver.py")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {f"done {rank};" in done.stdout for rank in (0, 1)} == {True}, "lines of two processes may run together"
