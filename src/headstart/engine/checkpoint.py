"""Checkpoints without pickle: safetensors and JSON in a folder that counts only once its manifest is written.

A checkpoint is written beside its place, flushed, renamed; the manifest with the SHA-256 of every file comes last.
A damaged or half-written one is skipped, aloud, and the one before it is taken.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from headstart.core import manifest
from headstart.core.errors import ArtefactError, TrainingError
from headstart.core.storage import free_bytes
from headstart.models.weights import write as save_tensors

KEPT = 2
FILES = ("tensors.safetensors", "facts.json")


class Checkpoints:
    """The checkpoints of one stage, in ``folder/step-00000042``; the newest ``KEPT`` are kept."""

    def __init__(self, folder: Path, *, warn: Callable[[str], None] = lambda message: None) -> None:
        self.folder = folder
        self.warn = warn

    def save(self, step: int, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> Path:
        """Write one checkpoint and prune the oldest, after reading the new one back.

        Raises:
            TrainingError: the disk is full or not writable; nothing before it is lost.
        """
        place = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".{place.name}.tmp-{os.getpid()}"
        try:
            self._clear_leftovers()
            temporary.mkdir(parents=True)
            save_tensors(temporary / "tensors.safetensors", tensors)
            manifest.write_json(temporary / "facts.json", {"step": step, **facts})
            manifest.seal(temporary)
            manifest.check(temporary, *FILES)
            if place.exists():
                os.replace(place, self.folder / f".{place.name}.tmp-old")  # a kill while removing it must not show
            os.replace(temporary, place)
            self._clear_leftovers()
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            size = sum(tensor.nbytes for tensor in tensors.values())
            raise TrainingError(
                f"the checkpoint could not be written ({error.strerror or error}); it needs {size / 1e6:.1f} MB, "
                f"{free_bytes(self.folder) / 1e6:.1f} MB are free",
                where=str(place),
                remedy="free some space and run the same command with --resume; earlier checkpoints are intact",
            ) from error
        for old in self._places()[:-KEPT]:
            shutil.rmtree(old)
        return place

    def latest(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and facts of the newest sound checkpoint, or None; damaged ones are named through ``warn``."""
        for place in reversed(self._places()):
            try:
                manifest.check(place, *FILES)
                return load_tensors(place / "tensors.safetensors"), manifest.read_json(place / "facts.json")
            except ArtefactError as error:
                self.warn(f"checkpoint {place.name} is damaged ({error}); the one before it is taken")
        return None

    def clear(self) -> None:
        """Remove all checkpoints: the stage is done, and what else lies beside them counts instead."""
        self._clear_leftovers()
        for place in self._places():
            shutil.rmtree(place, ignore_errors=True)

    def _places(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.exists() else []

    def _clear_leftovers(self) -> None:
        for left in self.folder.glob(".step-*.tmp-*"):
            shutil.rmtree(left, ignore_errors=True)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read safetensors into memory of its own.

    Raises:
        ArtefactError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"cannot be read ({error})", where=str(path)) from error
