"""A process in which torch and everything else beyond the base install cannot be imported."""

from __future__ import annotations

import subprocess
import sys

BAN = """
import importlib.metadata
import sys

BANNED = {"torch", "torchvision", "timm", "transformers", "accelerate", "safetensors", "onnx", "onnxscript", "pandas",
          "sklearn", "scipy", "openvino", "huggingface_hub"}

class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise ModuleNotFoundError(f"{name} is not installed here")

def version(name, known=importlib.metadata.version):
    if name in BANNED:
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

sys.meta_path.insert(0, Ban())
importlib.metadata.version = version
"""
COMMAND = "from headstart.cli import run\nsys.exit(run(sys.argv[1:], traceback=True))"


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``code`` does there; ``sys`` is imported."""
    started = [sys.executable, "-W", "error", "-c", BAN + code, *arguments]
    return subprocess.run(started, capture_output=True, text=True, check=False, timeout=120)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command line does there."""
    return python(COMMAND, *arguments)
