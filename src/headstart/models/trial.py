"""The first calls of a network: what it cannot take, or gives that are no features, is told with place and remedy.

Shapes: B rows, T tokens, frames or samples, D features.
"""

from __future__ import annotations

import sysconfig
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headstart.core.errors import BackboneError, HeadstartError
from headstart.models import resume
from headstart.models.intakes.output import REMEDY

if TYPE_CHECKING:
    from headstart.models.backbone import Backbone

PACKAGE = str(Path(__file__).parents[1])
INSTALLED = (PACKAGE, sysconfig.get_paths()["stdlib"], "site-packages", "dist-packages")
WINDOWS = tuple(0.1 * 2**power for power in range(10))  # seconds that are tried, until one is long enough


def features(backbone: Backbone, inputs: Tensor) -> Tensor:
    """Features (B, D) of inputs that the network sees for the first time, in eval mode.

    Raises:
        BackboneError: it fails on them, or what it returns are no features; of sounds the shortest window is named.
    """
    uri = backbone.origin.uri
    try:
        with resume.evaluating(backbone), torch.no_grad():
            found = backbone.features(inputs)
    except (HeadstartError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        what = f"'{uri}' fails on {backbone.spec.described} ({told(error)})"
        window = _shortest(backbone) if backbone.modality == "audio" else None
        remedy = f"it is called as {backbone.intake.CALL}"
        if backbone.origin.library == "own" and getattr(backbone.module, "spec", None) is None:
            remedy += "; one that reads texts or sounds says so: spec = headstart.AudioSpec(rate=16_000), or a TextSpec"
        if window is not None:
            remedy = f"the shortest window that it takes is {window:g} s: seconds={window:g}"
        raise BackboneError(what, where=place(error) or "backbone", remedy=remedy) from error
    if found.dim() != 2 or len(found) != len(inputs) or not found.is_floating_point():
        what = f"'{uri}' gives {found.dtype} {tuple(found.shape)} of {len(inputs)} rows, which are no features"
        raise BackboneError(what, where="backbone", remedy=REMEDY)
    return found


def told(error: BaseException) -> str:
    """The kind of an error and its first line, for a message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"


def place(error: BaseException) -> str:
    """File and line of the last call in somebody's own code: neither ours nor an installed library's; else nothing."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<")]  # frozen, or made by a dataclass
    own = [frame for frame in own if not any(part in frame.filename for part in INSTALLED)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""


def _shortest(backbone: Backbone) -> float | None:
    """Seconds, to a tenth, of the shortest window that the network takes; None where none of those tried is taken."""
    enough = next((seconds for seconds in WINDOWS if _takes(backbone, seconds)), None)
    if enough is None:
        return None
    low, high = round(5 * enough), round(10 * enough)  # tenths
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _takes(backbone, middle / 10) else (middle, high)
    return high / 10


def _takes(backbone: Backbone, seconds: float) -> bool:
    try:
        spec: Any = replace(backbone.spec, seconds=seconds)
        backbone.refit(spec)
        with resume.evaluating(backbone), torch.no_grad():
            return bool(backbone.features(torch.from_numpy(spec.blank(1))).isfinite().all())
    except Exception:  # whatever a network says to too short a sound
        return False
