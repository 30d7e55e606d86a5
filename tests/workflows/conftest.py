"""Toys of the workflows' tests: pictures that any network tells apart, and a quick ``fit`` on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.core.events import Event
from headstart.core.run import Run

CLASSES = ("dark", "red", "stripes")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a flush guards against, a power cut, no test can see."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def short_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.workflows import rate

    monkeypatch.setattr(rate, "SWEEP", {**rate.SWEEP, "steps": 24, "repeats": 1})


@pytest.fixture(scope="session")
def pictures() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Draws X (N, size, size, channels) uint8 and the labels y (N,) of three kinds of noisy pictures.

    ``hard`` shares the kinds out by so little that a network has to learn them.
    """

    def make(
        n: int = 48, seed: int = 0, size: int = 32, channels: int = 3, hard: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        values = rng.integers(90, 160, (n, size, size, channels)).astype(np.float64)
        kinds = np.arange(n) % 3
        values[kinds == 0] -= 70 * hard
        values[kinds == 1, ..., : 1 if channels > 1 else None] += 90 * hard
        values[kinds == 2, :, ::4] += 90 * hard
        return values.clip(0, 255).astype(np.uint8), np.array(CLASSES)[kinds]

    return make


class Fitted:
    """Calls ``headstart.fit`` with what makes it quick, and keeps the events of the last call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []

    def __call__(self, data: Any, plan: Any = "probe", *, resume: bool = False, listen: Any = None, **own: Any) -> Run:
        quick = {
            "backbone": "builtin/tiny",
            "image_size": 32,
            "output_dir": str(self.folder),
            "device": "cpu",
            "precision": "fp32",
            "baseline": False,
            "normalisation_check": False,
            "force": True,
        }
        self.events = []

        def on_event(event: Event) -> None:
            self.events.append(event)
            if listen is not None:
                listen(event)

        return headstart.fit(data, plan=plan, resume=resume, on_event=on_event, **{**quick, **own})

    def said(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def kinds(self) -> set[str]:
        """The codes of all notices."""
        return {getattr(event, "kind", "") for event in self.events}

    @staticmethod
    def weights(run: Run) -> dict[str, Any]:
        """The tensors of the run's model."""
        from safetensors.torch import load_file

        return load_file(run.model_folder / "model.safetensors")

    @staticmethod
    def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
        """Whether two sets of tensors are equal bit for bit."""
        import torch

        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def fit(tmp_path: Path) -> Fitted:
    return Fitted(tmp_path / "runs")


@pytest.fixture(scope="module")
def fit_once(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """For runs that several tests of a file look at."""
    return Fitted(tmp_path_factory.mktemp("runs"))
