"""Exponential moving average of what trains: smoother weights for evaluation at no extra pass over the data.

Polyak & Juditsky 1992; the warm-up of the decay as in TensorFlow's ExponentialMovingAverage and timm's ModelEmaV3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from headstart.core.errors import ArtefactError, ConfigError
from headstart.engine.moving import moving


class EMA:
    """Averages of what can move in a module as it is now: see ``moving`` (BatchNorm's running statistics are in it).

    What is frozen equals its average and is not kept twice. Update t (from 1) averages with the decay
    min(``decay``, (1 + t) / (10 + t)), so that the random start is soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"{decay} is outside (0, 1)", where="ema")
        self.decay = decay
        self.updates = 0
        self.averages = {name: value.detach().clone() for name, value in moving(module).items()}

    def decay_at(self, update: int) -> float:
        """Decay of the ``update``-th update, counted from 1."""
        return min(self.decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def update(self, module: nn.Module) -> bool:
        """Take the module's present values in; False (and nothing changes) where one of them is not finite."""
        values = {name: value.detach() for name, value in self._values(module).items()}
        floating = [name for name, value in values.items() if value.is_floating_point()]
        if not finite([values[name] for name in floating]):
            return False
        self.updates += 1
        share = 1 - self.decay_at(self.updates)
        if floating:
            torch._foreach_lerp_([self.averages[name] for name in floating], [values[name] for name in floating], share)
        for name in values.keys() - set(floating):
            self.averages[name].copy_(values[name])  # counters, such as num_batches_tracked
        return True

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the averages into the module."""
        for name, value in self._values(module).items():
            value.copy_(self.averages[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module holds the averages inside (for evaluation, for saving), and its own values again afterwards."""
        own = {name: value.detach().clone() for name, value in self._values(module).items()}
        self.copy_to(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in self._values(module).items():
                    value.copy_(own[name])

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Contiguous CPU copies of the averages, and the number of updates, for safetensors."""
        state = {f"average/{name}": value.to("cpu", copy=True).contiguous() for name, value in self.averages.items()}
        return {**state, "updates": torch.tensor(self.updates)}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from ``state_tensors``, bit for bit.

        Raises:
            ArtefactError: the names or shapes are another model's; nothing is changed then.
        """
        shapes = {f"average/{name}": value.shape for name, value in self.averages.items()}
        if {name: value.shape for name, value in tensors.items()} != {**shapes, "updates": torch.Size([])}:
            raise ArtefactError("the saved averages belong to another model, or to other thawed blocks")
        for name, value in self.averages.items():
            value.copy_(tensors[f"average/{name}"])
        self.updates = int(tensors["updates"])

    def _values(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """The module's own tensors of which there is an average."""
        own = module.state_dict(keep_vars=True)
        return {name: own[name] for name in self.averages}


def finite(tensors: list[torch.Tensor]) -> bool:
    """Whether every number in these tensors is finite: one pass, one synchronisation."""
    if not tensors:
        return True
    peaks = torch._foreach_norm(tensors, float("inf"))
    return bool(torch.stack([peak.float() for peak in peaks]).isfinite().all())
