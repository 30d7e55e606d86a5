"""Read weight files without running code from them, and put them into a network, strictly.

Shapes: S classes, D features.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core import manifest
from headstart.core.errors import BackboneError, TrainingError
from headstart.models.backbone import SourceHead

MAX_HEADER = 8 * 1024 * 1024  # bytes; a thousand layers need a tenth of it
CONTAINERS = ("state_dict", "model_state_dict", "state_dict_ema", "model_ema", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.module.", "backbone.")


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of a state dict written by ``torch.save``, by name, on the CPU.

    Raises:
        BackboneError: no such file, damaged, more than tensors inside, or a value is not finite.
    """
    if not path.is_file():
        raise BackboneError("no such weights file", where=str(path))
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    check_finite(state, str(path))
    return state


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        TrainingError: a tensor is not finite: nothing of it reaches the disk.
        OSError: the disk is full or broken.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    bad = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise TrainingError(f"not written: {len(bad)} tensors are not finite, such as {bad[0]}", where=str(path))
    plain = {name: value.detach().to("cpu").contiguous().clone() for name, value in tensors.items()}

    def fill(temporary: Path) -> None:
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        temporary.chmod(0o644)  # safetensors makes it readable by its owner only

    manifest.write_atomically(path, fill)


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raises BackboneError where a weight is NaN or infinite."""
    bad = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise BackboneError(f"weights are not finite: {_some(bad)}", where=where)


def install(
    module: nn.Module, state: Mapping[str, Tensor], *, classifier: str, where: str, labels: tuple[str, ...] = ()
) -> SourceHead | None:
    """Load ``state`` into ``module``, whose classifier was taken off, and return the classifier in the file, if any.

    Raises:
        BackboneError: keys are missing, unexpected or of another shape; the message names them and the file's classes.
    """
    wanted = module.state_dict()
    found = _stripped(state, wanted)
    weight = found.pop(f"{classifier}.weight", None)
    bias = found.pop(f"{classifier}.bias", None)
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in found and name not in optional]
    unexpected = [name for name in found if name not in wanted]
    reshaped = [
        f"{name} {tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in found.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    if missing or unexpected or reshaped:
        raise _misfit(where, missing, unexpected, reshaped, weight)
    complete = OrderedDict(found)
    complete._metadata = getattr(wanted, "_metadata", {})  # type: ignore[attr-defined]  # MNASNet wants its version
    module.load_state_dict(complete, strict=not optional)
    if weight is None or weight.dim() != 2:
        return None
    known = labels if len(labels) == len(weight) else ()
    return SourceHead(weight.float(), torch.zeros(len(weight)) if bias is None else bias.float(), known)


def head_of(linear: nn.Linear, labels: tuple[str, ...]) -> SourceHead:
    """A classifier that was taken off, as a value."""
    bias = torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach().clone()
    return SourceHead(linear.weight.detach().clone(), bias, labels if len(labels) == linear.out_features else ())


def check_header(path: Path) -> None:
    """Raises BackboneError where a safetensors file's header has an impossible length or is not JSON."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, path.stat().st_size - 8):
            raise BackboneError("not a safetensors file (its header has an impossible length)", where=str(path))
        try:
            json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise BackboneError("not a safetensors file (its header is not JSON)", where=str(path)) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_header(path)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise BackboneError(f"damaged safetensors file ({error})", where=str(path)) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file raises nearly anything
        raise BackboneError(
            f"cannot be read as plain tensors ({type(error).__name__})",
            where=str(path),
            remedy="only state dicts are read, because other pickles run code when loaded; save "
            "model.state_dict(), best as safetensors (safetensors.torch.save_file)",
        ) from error
    for name in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not content:
        raise BackboneError(f"holds a {type(content).__name__}, not a state dict", where=str(path))
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise BackboneError(f"holds more than tensors: {_some(others)}", where=str(path))
    return {str(name): value for name, value in content.items()}


def _stripped(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """``state`` without a wrapper's prefix (DDP, compile, Lightning), where that makes more names fit."""
    best = dict(state)
    fits = sum(name in wanted for name in best)
    for prefix in PREFIXES:
        inner = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        count = sum(name in wanted for name in inner)
        if count > fits:
            best, fits = inner, count
    return best


def _misfit(
    where: str, missing: list[str], unexpected: list[str], reshaped: list[str], weight: Tensor | None
) -> BackboneError:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_some(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    if reshaped:
        parts.append(f"{len(reshaped)} of another shape ({_some(reshaped)})")
    classes = f"; its classifier has {len(weight)} classes" if weight is not None else ""
    return BackboneError(
        f"the weights do not fit this architecture: {', '.join(parts)}{classes}",
        where=where,
        remedy="name the architecture the file was made from (`headstart models` lists them)",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def sha(path: Path | None) -> str:
    """Hex SHA-256 of a weights file, empty where there is none."""
    return "" if path is None else manifest.sha256(path)
