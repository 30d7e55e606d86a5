"""``doctor``: what this machine can do, what is installed, and traps that are known, each with its remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.core.machine import processor, usable_cores

Status = Literal["ok", "info", "warning", "error"]
WATCHED = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "accelerate",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "pillow",
    "simplejpeg",
    "scikit-learn",
    "pandas",
    "datasets",
    "soundfile",
    "soxr",
    "onnx",
    "onnxruntime",
    "openvino",
    "pydantic",
    "typer",
    "rich",
)
LOW_DISK_GB, LOW_MEMORY_GB = 2.0, 2.0
HUB_SECONDS, WALK_SECONDS = 3.0, 1.0
PRODUCT_SIDE = 512  # of the matrices that tell this machine's speed


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    topic: str
    name: str
    value: str
    status: Status = "ok"
    remedy: str = ""


def examine(*, hub: bool = True) -> list[Check]:
    """Look at everything; a few seconds at most."""
    return [*machine(), *devices(), *packages(), *caches(), *traps(), *(reach_hub() if hub else ())]


def machine() -> Iterator[Check]:
    """The processor, memory and disk."""
    yield Check("machine", "python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    model, features = processor()
    yield Check("machine", "processor", f"{model} ({', '.join(features) or 'no vector extensions known'})")
    cores, usable = os.cpu_count() or 1, usable_cores()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    yield Check("machine", "cores", f"{usable:g} usable of {cores}")
    if wanted.isdecimal() and int(wanted) > max(1, round(usable)):
        remedy = f"unset OMP_NUM_THREADS, or set it to {max(1, round(usable))}"
        yield Check("machine", "threads", f"OMP_NUM_THREADS={wanted} is more than the cores", "warning", remedy)
    elif wanted == "1" and usable >= 2:
        remedy = "unset OMP_NUM_THREADS to use all cores"
        yield Check("machine", "threads", "OMP_NUM_THREADS=1: one core does all the work", "warning", remedy)
    from headstart.data.canvases import free_bytes

    memory = free_bytes() / 1e9
    low = memory < LOW_MEMORY_GB
    remedy = "close other programs; smaller batch_size and image_size need less" if low else ""
    yield Check("machine", "memory", f"{memory:.1f} GB free", "warning" if low else "ok", remedy)
    free = shutil.disk_usage(".").free / 1e9
    low = free < LOW_DISK_GB
    remedy = "runs go to output_dir, caches to HEADSTART_CACHE" if low else ""
    yield Check("machine", "disk", f"{free:.0f} GB free here", "warning" if low else "ok", remedy)


def devices() -> Iterator[Check]:
    """Accelerators, and how fast this machine multiplies in two precisions."""
    try:
        import torch
    except ImportError as error:
        yield Check("devices", "torch", f"cannot be imported ({error})", "error", "pip install 'headstart[train]'")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Check("devices", f"cuda:{index}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        yield Check("devices", "mps", "Apple graphics processor")
    else:
        yield Check("devices", "accelerator", "none: training runs on the processor", "info")
    from headstart.engine.precision import product_seconds

    fp32, bf16 = (product_seconds(dtype, side=PRODUCT_SIDE) for dtype in (torch.float32, torch.bfloat16))
    ratio = fp32 / bf16
    verdict = (
        f"bf16 is {ratio:.1f} times as fast as fp32"
        if ratio >= 1
        else f"bf16 is {1 / ratio:.1f} times slower than fp32"
    )
    gflops = 2 * PRODUCT_SIDE**3 / fp32 / 1e9
    remark = "a run measures its own network before it chooses"
    yield Check("devices", "speed", f"{gflops:.0f} GFLOP/s in fp32, {verdict} ({remark})", "info")


def packages() -> Iterator[Check]:
    """Installed versions beside the lowest that can work and those that were tested."""
    tested, lowest = tested_versions(), lowest_versions()
    for name in WATCHED:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            extra = "openvino" if name == "openvino" else "train,data"
            yield Check("packages", name, "not installed", "info", f"pip install 'headstart[{extra}]'")
            continue
        low, known = lowest.get(name, ""), tested.get(name, ())
        if low and _parts(version) < _parts(low):
            yield Check("packages", name, f"{version} is older than {low}", "error", f"pip install '{name}>={low}'")
        elif known and version.partition("+")[0] not in known:
            yield Check("packages", name, f"{version} (tested with {' and '.join(known)})", "info")
        else:
            yield Check("packages", name, version)


def tested_versions() -> dict[str, tuple[str, ...]]:
    """The versions of ``constraints.txt``, which lies in the package, or beside the sources; by name."""
    here = Path(__file__).resolve().parents[1]
    file = next((path for path in (here, here.parents[1]) if (path / "constraints.txt").is_file()), None)
    found: dict[str, tuple[str, ...]] = {}
    for line in (file / "constraints.txt").read_text(encoding="utf-8").splitlines() if file else ():
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", line)
        if match:
            found[match[1]] = (*found.get(match[1], ()), match[2])
    return found


def lowest_versions() -> dict[str, str]:
    """The lower bounds of this package's own requirements."""
    try:
        required = importlib.metadata.requires("headstart") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    matches = (re.match(r"([A-Za-z0-9._-]+)[^;]*?>=\s*([0-9][^,;\s]*)", line) for line in required)
    return {match[1].lower(): match[2] for match in matches if match}


def caches() -> Iterator[Check]:
    """Where downloads and decoded pictures are kept, and how large they are."""
    from headstart.data.canvases import default_folder

    home = Path.home()
    hub = Path(os.environ.get("HF_HOME") or home / ".cache" / "huggingface")
    torch_home = Path(os.environ.get("TORCH_HOME") or home / ".cache" / "torch")
    for name, folder in (("headstart", default_folder()), ("Hub", hub), ("torch", torch_home)):
        size = folder_bytes(folder)
        shown = "empty" if not size else f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
        yield Check("caches", name, f"{folder}: {shown}")


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below; what is counted after a second, where there are very many."""
    deadline = time.monotonic() + WALK_SECONDS
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                continue
        if time.monotonic() > deadline:
            break
    return total


def traps() -> Iterator[Check]:
    """Combinations that are known to break or to slow down."""
    if importlib.util.find_spec("torchaudio") is not None and not _imports("torchaudio"):
        yield Check("traps", "torchaudio", "is installed and cannot be imported, which breaks transformers' pipelines",
                    "error", "pip uninstall torchaudio (Headstart does not need it)")  # fmt: skip
    if _installed("optimum") and _parts(_installed("transformers") or "0") >= (5,):
        yield Check("traps", "optimum", "does not work with transformers 5", "warning", "pip uninstall optimum")
    missing = [name for name in ("torch", "numpy", "transformers") if not has_bytecode(name)]
    if missing:
        why = " (PYTHONDONTWRITEBYTECODE is set)" if sys.dont_write_bytecode else ""
        yield Check(
            "traps", "bytecode", f"{', '.join(missing)}: not compiled, so every start compiles again{why}", "warning",
            f"env -u PYTHONDONTWRITEBYTECODE {sys.executable} -m compileall -q -j 0 {_site_packages()}",
        )  # fmt: skip
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        yield Check("traps", "offline", "HF_HUB_OFFLINE is set: nothing new is downloaded", "info")


def has_bytecode(package: str) -> bool:
    """Whether a package's compiled file is there; True where the package is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return True
    return Path(importlib.util.cache_from_source(spec.origin)).is_file()


def reach_hub() -> Iterator[Check]:
    """Whether the Hub answers, within seconds."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "headstart"})
    started = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=HUB_SECONDS):
            yield Check("network", "Hub", f"{address} answers in {1000 * (time.monotonic() - started):.0f} ms")
    except (urllib.error.URLError, OSError, ValueError) as error:
        remedy = "local files, cached weights and builtin/ backbones work without it; --offline asks for nothing"
        yield Check(
            "network", "Hub", f"{address} cannot be reached ({getattr(error, 'reason', error)})", "info", remedy
        )


def _imports(package: str) -> bool:
    """Try an import in its own process: a broken library must not break this one."""
    done = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _site_packages() -> str:
    spec = importlib.util.find_spec("numpy")
    return str(Path(spec.origin).parents[1]) if spec and spec.origin else "site-packages"


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
