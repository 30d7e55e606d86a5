"""torchvision is imported without torch's compiler, and works with it when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import sys, types
import torch
from headstart.models import backbone, lean
net = backbone.load("torchvision/resnet18", pretrained=False)
loaded = {name for name in ("torch._dynamo", "sympy", "triton") if name in sys.modules}
assert not loaded, loaded
assert "torchvision" in sys.modules
assert lean.ASKED not in sys.modules
"""
DETECTION = """
import torchvision
maps, boxes = torch.rand(1, 2, 8, 8), torch.tensor([[0.0, 1.0, 1.0, 6.0, 5.0]])
torch.use_deterministic_algorithms(True)  # the way on which it asks
found = torchvision.ops.roi_align(maps.requires_grad_(), boxes, (2, 2))
assert found.shape == (1, 2, 2, 2)
question = sys.modules["torchvision.ops.roi_align"].is_compile_supported
import torch._dynamo.utils
assert question("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
"""
COMPILER = """
import torch._dynamo
assert not isinstance(torch._dynamo.utils, lean._Later)
assert torch._dynamo.utils.counters is not None
assert torch.compiler.disable(lambda: 3)() == 3
"""
OTHERS = """
import sys
import torch
from headstart.models import lean
sys.modules[lean.ASKED] = lean._Later(lean.ASKED)
from torch._dynamo.utils import counters  # what is not the question is there at once
import torch._dynamo
assert counters is torch._dynamo.utils.counters
assert not isinstance(sys.modules[lean.ASKED], lean._Later)
"""


@pytest.mark.parametrize("program", [BEGIN, BEGIN + DETECTION, BEGIN + COMPILER, OTHERS])
def test_the_compiler_comes_when_it_is_needed(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
