"""What the three pretraining scripts share: a seeded run that resumes after a kill, its log, and packing what came out.

    settings = Settings(seed=0, minutes=60, lr=2e-3)
    training = Training(module, Path("runs/image"), settings)
    for step in training:  # goes on after the newest checkpoint; torch's generator is seeded by (seed, step)
        training.update(module(batch(settings.seed, step)))  # the module's output is the loss
    pack(Path("src/headstart/builtin/image"), training.averages(prefix="backbone."), {..., **training.facts()})

A run's folder holds ``checkpoints/step-…`` (safetensors and JSON) and ``log.jsonl``. A run whose length is given in
steps is the same bit for bit whether interrupted or not; with a budget in minutes the schedule follows the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core import manifest
from headstart.engine import optimisers, schedules
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.ema import EMA
from headstart.models.weights import write as write_tensors

TICKS = 1_000_000  # a budget in minutes has no number of steps; the schedule then counts its millionths


@dataclass(frozen=True)
class Settings:
    """How a module trains. The run ends with the first of ``steps`` and ``minutes`` that is reached.

    A minute is one in which this process computed: the smaller of the wall clock and the CPU time, step by step, so
    that waiting for a busy or a sleeping machine costs nothing.
    """

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float | None = 1.0
    ema: float = 0.999
    log_every: int = 50
    save_minutes: float = 2.0


class Training:
    """One run: iterate over it for the numbers of the steps, and call ``update`` with each step's loss."""

    def __init__(self, module: nn.Module, folder: Path, settings: Settings) -> None:
        if settings.steps is None and settings.minutes is None:
            raise ValueError("a run needs a number of steps, or of minutes")
        self.module, self.folder, self.settings = module, folder, settings
        self.schedule = schedules.Schedule(settings.schedule, warmup=settings.warmup)
        self.optimizer = optimisers.build(
            settings.optimizer, _groups(module, settings), betas=settings.betas, momentum=settings.momentum
        )
        self.ema = EMA(module, settings.ema)
        self.checkpoints = Checkpoints(folder / "checkpoints", warn=print)
        self.step, self.seconds, self.skipped = 0, 0.0, 0
        self._sums: dict[str, float] = {}
        self._summed = 0
        self._resume()

    @property
    def progress(self) -> float:
        """Share of the budget that is used, in [0, 1]."""
        shares = []
        if self.settings.steps is not None:
            shares.append(self.step / max(self.settings.steps, 1))
        if self.settings.minutes is not None:
            shares.append(self.seconds / 60 / max(self.settings.minutes, 1e-9))
        return min(1.0, max(shares))

    def __iter__(self) -> Iterator[int]:
        """Numbers of the steps still to take; a checkpoint is written on the way and at the end."""
        clock, saved = _Clock(), self.seconds
        while self.progress < 1:
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
            schedules.apply(self.optimizer, self.schedule, *self._position())
            before = self.step
            yield self.step
            if self.step == before:
                raise RuntimeError("the step ended without update()")
            self.seconds += clock.lap()
            if self.seconds - saved > 60 * self.settings.save_minutes:
                self.save()
                saved = self.seconds
        self.save()

    def update(self, loss: Tensor, **values: float | Tensor) -> None:
        """One optimizer step down the gradient of ``loss``; the means of it and of ``values`` go to the log."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if optimisers.clip(parameters, self.settings.clip).isfinite():
            self.optimizer.step()
            self.ema.update(self.module)
        else:
            self.skipped += 1
        for name, value in {"loss": loss, **values}.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(torch.as_tensor(value).detach())
        self._summed += 1
        self.step += 1
        if self.step % self.settings.log_every == 0:
            means = {name: round(total / self._summed, 5) for name, total in self._sums.items()}
            self.log(lr=self.optimizer.param_groups[0]["lr"], **means)
            self._sums, self._summed = {}, 0

    def log(self, **values: Any) -> None:
        """Append one line to ``log.jsonl``: step, minutes used, and ``values``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"step": self.step, "minutes": round(self.seconds / 60, 3), **values}
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write a checkpoint from which a fresh process goes on."""
        state, settings = optimisers.state_tensors(self.optimizer)
        tensors = {f"module/{name}": value for name, value in self.module.state_dict().items()}
        tensors.update({f"optimizer/{name}": value for name, value in state.items()})
        tensors.update({f"ema/{name}": value for name, value in self.ema.state_tensors().items()})
        facts = {"seconds": self.seconds, "skipped": self.skipped, "optimizer": settings}
        log = {"sums": self._sums, "summed": self._summed}
        self.checkpoints.save(self.step, tensors, {**facts, "log": log, "settings": asdict(self.settings)})

    def averages(self, prefix: str = "") -> dict[str, Tensor]:
        """The moving averages under the names of ``state_dict`` that begin with ``prefix``, which is taken off."""
        state = {**self.module.state_dict(), **self.ema.averages}
        return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}

    def facts(self) -> dict[str, Any]:
        """What the card says about the run."""
        used = asdict(self.settings)
        return {
            "seed": self.settings.seed,
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "hardware": _hardware(self.module),
            "torch": torch.__version__,
            "optimisation": {name: used[name] for name in used if name not in ("seed", "log_every", "save_minutes")},
        }

    def _position(self) -> tuple[int, int]:
        if self.settings.minutes is None:
            assert self.settings.steps is not None
            return self.step, self.settings.steps
        return min(int(self.progress * TICKS), TICKS - 1), TICKS

    def _resume(self) -> None:
        found = self.checkpoints.latest()
        if found is None:
            return
        tensors, facts = found
        self.module.load_state_dict(_part(tensors, "module/"))
        optimisers.load_state(self.optimizer, _part(tensors, "optimizer/"), facts["optimizer"])
        self.ema.load_tensors(_part(tensors, "ema/"))
        self.step, self.seconds, self.skipped = facts["step"], facts["seconds"], facts["skipped"]
        self._sums, self._summed = dict(facts["log"]["sums"]), facts["log"]["summed"]
        for group, fresh in zip(self.optimizer.param_groups, _groups(self.module, self.settings), strict=True):
            group.update(base_lr=fresh["base_lr"], weight_decay=fresh["weight_decay"])  # this call's, not the saved
        self.log(resumed=True)


def pack(folder: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` (fp16; BatchNorm's counters, which nothing reads, left out) and ``card.json``.

    Raises:
        TrainingError: a weight is not finite, or too large for fp16.
    """
    kept = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    halves = {name: value.half() if value.is_floating_point() else value for name, value in kept.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    write_tensors(path, halves)
    facts = {
        "parameters": sum(value.numel() for value in halves.values()),
        "bytes": path.stat().st_size,
        "sha256": manifest.sha256(path),
    }
    manifest.write_json(folder / "card.json", {"licence": "Apache-2.0", **card, **facts})


def add_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    """The options every script has."""
    parser.add_argument("--folder", type=Path, default=Path(folder), help="the run: checkpoints, log, caches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="budget of computing time")
    parser.add_argument("--steps", type=int, help="budget of optimizer steps")


def _groups(module: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only, as usual; the keys that ``engine.optimisers`` saves by."""
    found: list[dict[str, Any]] = []
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    for decay in (True, False):
        chosen = [(name, parameter) for name, parameter in named if (parameter.ndim > 1) == decay]
        if chosen:
            found.append(
                {
                    "params": [parameter for _, parameter in chosen],
                    "names": [name for name, _ in chosen],
                    "lr": settings.lr,
                    "base_lr": settings.lr,
                    "weight_decay": settings.weight_decay if decay else 0.0,
                }
            )
    return found


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _hardware(module: nn.Module) -> str:
    device = next(module.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if os.path.exists("/proc/cpuinfo") else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)"


class _Clock:
    """Seconds since the last lap: of the wall, or of this process's CPU time where that is less."""

    def __init__(self) -> None:
        self.wall, self.busy = time.perf_counter(), time.process_time()

    def lap(self) -> float:
        wall, busy = time.perf_counter(), time.process_time()
        passed = min(wall - self.wall, busy - self.busy)
        self.wall, self.busy = wall, busy
        return passed
