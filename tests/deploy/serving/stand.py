"""A server to test against: in this process, or in one of its own where torch cannot be imported."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from headstart.deploy.predictor import Predictor
from headstart.deploy.serving.app import Service
from headstart.deploy.serving.limits import Limits

from .. import torchless

PLACE = "http://localhost:8000"
# As `headstart serve`, with limits that a test chooses, and a model that takes its time.
SERVER = """
import json, time
from headstart.deploy.predictor import Predictor
from headstart.deploy.serving.limits import Limits
from headstart.workflows.serve import prepare
place, limits, seconds = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
known = Predictor.answer
def answer(self, values):
    time.sleep(seconds)
    return known(self, values)
Predictor.answer = answer
server = prepare(place, port=0, threads=1, limits=Limits(**limits), on_event=lambda event: None)
print(server.address, flush=True)
print(server.answer(lambda: print("ready", flush=True)))
"""


def picture(kind: int = 0, seed: int = 0, size: int = 32, form: str = "PNG") -> bytes:
    """A file of one of the classes of ``draw``."""
    values = np.random.default_rng(seed).integers(90, 160, (size, size, 3)).astype(np.float64)
    values[...] -= 70 * (kind == 0)
    values[..., 0] += 90 * (kind == 1)
    values[:, ::4] += 90 * (kind == 2)
    out = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(out, form)
    return out.getvalue()


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"{place}.png", content)) for place, content in enumerate(contents)]


@contextlib.asynccontextmanager
async def client(service: Service, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application itself, without sockets."""
    async with service.app.router.lifespan_context(service.app):
        transport = httpx.ASGITransport(service.app, **settings)
        async with httpx.AsyncClient(transport=transport, base_url=PLACE, timeout=30) as made:
            yield made


def asked(exported: Path, act: Callable[[httpx.AsyncClient, Service], Coroutine[Any, Any, Any]], **limits: Any) -> Any:
    """What ``act`` returns, given a client of a new service of this export."""

    async def run() -> Any:
        service = Service(Predictor(exported, threads=1), Limits(**limits))
        async with client(service) as made:
            return await act(made, service)

    return asyncio.run(run())


class Running:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address
        self.port = int(address.rpartition(":")[2])

    def stop(self) -> tuple[int, str, str]:
        """SIGTERM, and exit code, output, errors."""
        self.process.send_signal(signal.SIGTERM)
        out, errors = self.process.communicate(timeout=40)
        return self.process.returncode, out, errors


@contextlib.contextmanager
def running(exported: Path, *, seconds: float = 0.0, **limits: Any) -> Iterator[Running]:
    told = json.dumps({**asdict(Limits()), **limits})
    command = [sys.executable, "-W", "error", "-c", torchless.BAN + SERVER, str(exported), told, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert process.stdout.readline().strip() == "ready", process.communicate()[1]
            yield Running(process, address)
        finally:
            process.kill()
