"""Device, ranks and precision: the only place that knows Accelerate.

One process needs nothing but torch; under ``torchrun`` the same calls synchronise the ranks. A stage is wrapped once,
with one optimizer, and its loss is the forward of what is wrapped: anything else lets ranks drift apart silently.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.core.errors import ConfigError, TrainingError
from headstart.models import identity


class Runtime:
    """Where computation happens. ``precision`` is ``fp32`` or ``bf16`` (autocast; weights stay fp32)."""

    def __init__(self, device: str = "auto", precision: str = "fp32") -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.precision = precision
        self._accelerator: Any = None
        self.device = choose_device(device)
        if self.world > 1:
            self._open()

    @property
    def rank(self) -> int:
        return int(os.environ.get("RANK", "0")) if self.world > 1 else 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, learner: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Prepare one learner and its optimizer for one stage."""
        learner.to(self.device)
        if self.world == 1:
            return learner, optimizer
        accelerator = self._open()
        accelerator.free_memory()  # of the stage before
        return accelerator.prepare(learner), optimizer

    def backward(self, loss: torch.Tensor) -> None:
        if self._accelerator is None:
            loss.backward()
        else:
            self._accelerator.backward(loss)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 autocast where that is the precision of the run."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def choices(self) -> dict[str, Any]:
        """What decides how sums are rounded: recorded with every checkpoint."""
        return {"precision": self.precision, "threads": torch.get_num_threads(), "torch": str(torch.__version__)}

    @contextlib.contextmanager
    def exactly(self) -> Iterator[None]:
        """fp32 inside: what is reported is what the saved model answers, not what training is fast in."""
        usual, self.precision = self.precision, "fp32"
        try:
            yield
        finally:
            self.precision = usual

    @contextlib.contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Gradients are exchanged once per update: on the last micro-batch."""
        if self._accelerator is None or last:
            yield
        else:
            with self._accelerator.no_sync(wrapped):
                yield

    def share_of(self, order: np.ndarray) -> np.ndarray:
        """This rank's part of an ordered list of rows."""
        return order[self.rank :: self.world]

    def gather(self, rows: np.ndarray, values: torch.Tensor, total: int) -> torch.Tensor:
        """Values of all ranks, put in their place by row: (total, …). Every row must have come exactly once.

        The ranks may hold numbers of rows that differ (the tokens of their texts).
        """
        if self.world > 1:
            accelerator = self._open()
            index = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
            longest = int(accelerator.gather(torch.tensor([len(index)], device=self.device)).max())
            padded = torch.full((longest,), -1, dtype=torch.int64, device=self.device)
            padded[: len(index)] = index
            buffer = values.new_zeros((longest, *values.shape[1:])).to(self.device)
            buffer[: len(index)] = values.to(self.device)
            index, values = accelerator.gather(padded), accelerator.gather(buffer)
            rows, values = index[index >= 0].cpu().numpy(), values[index >= 0].cpu()
        if len(rows) != total or len(np.unique(rows)) != total:
            raise AssertionError(f"{total} rows expected, {len(rows)} came, {len(np.unique(rows))} of them different")
        result = values.new_empty((total, *values.shape[1:]))
        result[torch.as_tensor(rows, dtype=torch.int64)] = values
        return result

    def agree(self, flag: bool) -> bool:
        """True on every rank as soon as it is true on one."""
        if self.world == 1:
            return flag
        votes = self._open().gather(torch.tensor([int(flag)], device=self.device))
        return bool(votes.any())

    def mean(self, value: float) -> float:
        """The mean of the ranks' numbers; not a number on every rank as soon as it is on one."""
        if self.world == 1:
            return value
        return float(self._open().reduce(torch.tensor(value, dtype=torch.float64, device=self.device), "mean"))

    def average(self, module: nn.Module) -> None:
        """Give every rank the mean of the buffers that training moves: BatchNorm's statistics of the whole batch."""
        moving = [part for part in module.modules() if part.training] if self.world > 1 else []
        buffers = [each for part in moving for each in part.buffers(recurse=False) if each.is_floating_point()]
        if not buffers:
            return
        flat = self._open().reduce(torch.cat([each.detach().flatten() for each in buffers]), "mean")
        with torch.no_grad():
            for each, value in zip(buffers, flat.split([each.numel() for each in buffers]), strict=True):
                each.copy_(value.view_as(each))

    def share(self, module: nn.Module) -> None:
        """Give every rank the first rank's parameters: what was solved on each could differ in the last bit."""
        if self.world > 1:
            from accelerate.utils import broadcast

            self._open()
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.copy_(broadcast(parameter.detach().clone()))

    def insist_equal(self, module: nn.Module, where: str) -> None:
        """Compare all parameters and buffers over the ranks, bit for bit.

        Raises:
            TrainingError: the ranks have drifted apart.
        """
        if self.world == 1:
            return
        raw = bytearray.fromhex(identity.digest(module.state_dict().items()))
        found = self._open().gather(torch.frombuffer(raw, dtype=torch.uint8).to(self.device)).view(self.world, -1)
        apart = [rank for rank in range(self.world) if not torch.equal(found[rank], found[0])]
        if apart:
            raise TrainingError(
                f"ranks {', '.join(map(str, apart))} hold other weights than rank 0",
                where=where,
                remedy="nothing of this stage is kept; do all ranks run the same versions on the same data?",
            )

    def tell(self, text: str) -> str:
        """The first rank's text on every rank."""
        if self.world == 1:
            return text
        raw = list(text.encode())
        lengths = self._open().gather(torch.tensor([len(raw)], device=self.device))
        buffer = torch.zeros(int(lengths.max()), dtype=torch.uint8, device=self.device)
        buffer[: len(raw)] = torch.tensor(raw, dtype=torch.uint8)
        told = self._open().gather(buffer)[: int(lengths[0])]
        return bytes(told.tolist()).decode()

    def wait(self) -> None:
        if self.world > 1:
            self._open().wait_for_everyone()

    def close(self) -> None:
        """Leave the process group, where this run opened it."""
        if self._accelerator is not None:
            self._accelerator.end_training()
            self._accelerator = None

    def _open(self) -> Any:
        if self._accelerator is None:
            from accelerate import Accelerator, DistributedDataParallelKwargs

            # buffers are averaged after every update (``average``); rank 0's alone would forget the others' rows
            kept = DistributedDataParallelKwargs(broadcast_buffers=False)
            cpu = self.device.type == "cpu"
            self._accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[kept])
            self.device = self._accelerator.device
        return self._accelerator


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: the named device is not here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"no device '{name}' ({reason})", where="device", remedy="known: auto, cpu, cuda, cuda:0, mps"
        ) from error
    return device
