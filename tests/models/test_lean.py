"""Networks are imported without torch's compiler, train without it, and work with it when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import sys, types
import torch
from headstart.models import backbone, lean
net = backbone.load(f"{sys.argv[2]}/resnet18", pretrained=False)
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
with lean.without_compiler():
    from torch._dynamo.utils import counters  # what is not the question is there at once
import torch._dynamo
assert counters is torch._dynamo.utils.counters
assert not isinstance(sys.modules[lean.ASKED], lean._Later)
"""
TEXTS = """
import sys
import torch
from headstart.engine import optimisers
from headstart.models import backbone, lean
net = backbone.load(sys.argv[1])
for name in optimisers.NAMES:
    named = [(name, parameter) for name, parameter in net.named_parameters() if "encoder" in name]
    groups = [{"params": [parameter for _, parameter in named], "names": [name for name, _ in named], "lr": 0.1}]
    optimizer = optimisers.build(name, groups)
    optimizer.zero_grad()
    sum(parameter.sum() for _, parameter in named).backward()
    optimisers.clip(net.parameters(), 1.0)
    optimizer.step()
assert lean.COMPILER not in sys.modules
"""
INSIDE = """
import sys
import torch
from headstart.models import lean
with lean.without_compiler():
    kept = sys.modules[lean.COMPILER]
    with lean.without_compiler():
        assert kept is sys.modules[lean.COMPILER]
    assert kept is sys.modules[lean.COMPILER], "another user is still inside"
    alone = torch.compiler.disable(lambda x: x.tolist() and x + torch.compiler.is_compiling())
    other = torch.compiler.disable(reason="why")(lambda x: x)
    constant = torch.compiler.assume_constant_result(lambda: 2)
    inside = torch.compiler.allow_in_graph(lambda x: x * 2)
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
    assert kept is sys.modules[lean.COMPILER], "a module inside it is loaded alone"
assert not {lean.COMPILER, lean.ASKED} & sys.modules.keys()
assert torch._dynamo.is_compiling() is False
assert not isinstance(sys.modules[lean.COMPILER], lean._Later)
assert kept.disable is torch._dynamo.disable
from torch._dynamo import _trace_wrapped_higher_order_op as masks
assert masks.TransformGetItemToIndex is TransformGetItemToIndex
assert id(inside) in torch._dynamo.trace_rules._allowed_callable_ids
assert torch.compile(lambda x: alone(x) + constant(), backend="eager")(torch.zeros(1)).item() == 2
assert other(3) == 3
assert torch._dynamo._trace_wrapped_higher_order_op is masks
late = kept.known["disable"](lambda x: x.tolist() and x + torch.compiler.is_compiling())
assert torch.compile(lambda x: late(x) + 1, backend="eager")(torch.zeros(1)).item() == 1, "told late"
"""
FAILS = """
import sys
import torch
from headstart.models import lean
try:
    with lean.without_compiler():
        raise RuntimeError
except RuntimeError:
    assert not {lean.COMPILER, lean.ASKED} & sys.modules.keys()
sys.modules["absent"] = None
try:
    lean.library("absent")
except ModuleNotFoundError:
    sys.exit(0)
sys.exit("an absent library was found")
"""
MODULES = """
import sys
import torch
from headstart.models import lean
with lean.without_compiler():
    import torch._dynamo.eval_frame, torch._dynamo.exc
    frame, exc = sys.modules["torch._dynamo.eval_frame"], sys.modules["torch._dynamo.exc"]
import torch._dynamo
assert torch._dynamo.OptimizedModule is frame.OptimizedModule
assert torch._dynamo.exc.Unsupported is exc.Unsupported
assert isinstance(torch.compile(torch.nn.Linear(2, 2), backend="eager"), frame.OptimizedModule)
"""


@pytest.mark.parametrize(
    ("program", "library"),
    [
        *((BEGIN + more, library) for more in ("", DETECTION, COMPILER) for library in ("torchvision", "timm")),
        (OTHERS, ""),
        (INSIDE, ""),
        (MODULES, ""),
        (FAILS, ""),
        (TEXTS, "transformers"),
        (TEXTS + COMPILER, "transformers"),
    ],
)
def test_the_compiler_comes_when_it_is_needed(program: str, library: str, tmp_path: Path) -> None:
    if library == "transformers":
        from transformers import BertConfig, BertModel

        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
        BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path)
        (tmp_path / "vocab.txt").write_text("\n".join(words))
    command = [sys.executable, "-c", program, str(tmp_path), library]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
