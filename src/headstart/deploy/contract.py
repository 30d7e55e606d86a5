"""What every exported file promises: how a file of the user's becomes its input, and what its outputs mean.

It stands in the metadata of the ONNX file itself, so that the file can be moved alone.

Shapes: K classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core import registry
from headstart.core.errors import ArtefactError, HeadstartError
from headstart.deploy import onnxfile

FORMAT = 1
KEY = "headstart"  # of the metadata
INPUT, OUTPUTS = "inputs", ("logits", "probabilities")
MODALITIES = "headstart.data.modalities"
KEYS = {"format", "headstart", "modality", "spec", "classes", "temperature"}


@dataclass(frozen=True)
class Contract:
    """``spec`` is the modality's; ``probabilities`` are the softmax of ``logits`` divided by ``temperature``.

    ``given_from`` is where a row may have several labels: each probability is one of its own (a sigmoid) then, and a
    label is given that reaches this one.
    """

    modality: str
    spec: Any
    classes: tuple[str, ...]
    temperature: float
    given_from: float | None = None

    def to_text(self, version: str) -> str:
        """JSON for the metadata; ``version`` of Headstart wrote it."""
        told = {"format": FORMAT, "headstart": version, "modality": self.modality, "spec": self.spec.to_json()}
        told |= {"classes": list(self.classes), "temperature": self.temperature}
        if self.given_from is not None:
            told |= {"given_from": self.given_from}
        return json.dumps(told, ensure_ascii=False, sort_keys=True)


def read(path: Path) -> Contract:
    """The contract of an ONNX file.

    Raises:
        ArtefactError: not one of our files, damaged, of a newer format, or with weights outside of it.
    """
    text = onnxfile.describe(path).metadata.get(KEY)
    if text is None:
        remedy = "files that `headstart export` writes say how they are to be used"
        raise ArtefactError("an ONNX file that Headstart did not write", where=str(path), remedy=remedy)
    try:
        return _parsed(json.loads(text))
    except (HeadstartError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtefactError(f"its metadata is not a contract ({error})", where=str(path)) from error


def _parsed(stored: Mapping[str, Any]) -> Contract:
    if isinstance(stored, dict) and type(stored.get("format")) is int and stored["format"] > FORMAT:
        raise ArtefactError(
            f"written by a newer Headstart ({stored.get('headstart', '?')})", remedy="upgrade headstart"
        )
    if not isinstance(stored, dict) or set(stored) - {"given_from"} != KEYS:
        raise ValueError("unknown or missing keys")
    classes, temperature = stored["classes"], stored["temperature"]
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes are names")
    if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
        raise ValueError("the temperature is a positive number")
    if stored["modality"] not in registry.names(MODALITIES):
        raise ValueError(f"unknown modality {stored['modality']!r}")
    spec = registry.find(MODALITIES, stored["modality"]).Spec.from_json(stored["spec"])
    given_from = stored.get("given_from")
    if given_from is not None and (type(given_from) is not float or not 0 < given_from < 1):
        raise ValueError("given_from is a probability")
    return Contract(stored["modality"], spec, tuple(classes), float(temperature), given_from)
