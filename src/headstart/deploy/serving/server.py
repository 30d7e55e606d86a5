"""The server as a process: its address, its signals, and an end at which every accepted request has its answer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from headstart.core import process
from headstart.core.errors import ConfigError
from headstart.deploy.serving.app import Service
from headstart.deploy.serving.connection import protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DRAIN_SECONDS = 0.3  # between the first "not ready" and the closed door: balancers look elsewhere meanwhile
SETTLE_SECONDS = 0.02  # until connections that were taken last are known
HEAD_BYTES = 16_384  # of a request


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound; port 0 takes a free one.

    Raises:
        ConfigError: the address is not this machine's, or taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        remedy = "--port 0 takes a free one" if taken else "see --host and --port"
        raise ConfigError(f"cannot listen ({error})", where=f"{host}:{port}", remedy=remedy) from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def address_of(bound: socket.socket, host: str) -> str:
    """For people: ``http://127.0.0.1:8000``."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound.getsockname()[1]}"


def serve(service: Service, bound: socket.socket, *, on_start: Callable[[], None]) -> None:
    """Answer requests until SIGINT or SIGTERM; returns when every request that was accepted is answered.

    Args:
        on_start: called when the first request can be answered.
    """
    # With a heap a thread, what decoding large pictures leaves behind is not given back: in the course of 10,000
    # hostile requests the process took up to 111 MB instead of 104.
    process.one_heap()
    asyncio.run(_server(service, on_start).serve(sockets=[bound]))


def _server(service: Service, on_start: Callable[[], None]) -> _Server:
    limits = service.limits
    config = uvicorn.Config(
        service.app,
        http=protocol(limits),
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        log_level="critical",  # what went wrong is in the reply and in /metrics; no client can fill a log
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=limits.idle_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=limits.request_seconds,  # type: ignore[arg-type]
        backlog=1024,
    )
    return _Server(config, service, on_start)


def _accepted(bound: socket.socket) -> Iterator[socket.socket]:
    """Connections that the system has let in and nobody has taken yet: closing the door would cut them off."""
    bound.setblocking(False)
    while True:
        try:
            link, _ = bound.accept()
        except OSError:  # none is left
            return
        link.setblocking(False)
        yield link


class _Server(uvicorn.Server):
    """uvicorn's, which is not ready before it closes, and does not die of the signal that it obeyed."""

    def __init__(self, config: uvicorn.Config, service: Service, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._on_start = service, on_start

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._asked) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.sleep(DRAIN_SECONDS)
        loop = asyncio.get_running_loop()
        late = [link for bound in sockets or () for link in _accepted(bound)]
        for server in self.servers:  # nothing is awaited in between: who comes now is refused, not lost
            server.close()
        for link in late:
            await loop.connect_accepted_socket(self._connection, link)
        await asyncio.sleep(SETTLE_SECONDS)
        await super().shutdown(sockets=sockets)

    def _connection(self) -> asyncio.Protocol:
        """As uvicorn makes one for a socket that asyncio has accepted."""
        known = {"server_state": self.server_state, "app_state": self.lifespan.state}
        made: asyncio.Protocol = self.config.http_protocol_class(config=self.config, **known)  # type: ignore[call-arg]
        return made

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:  # asked twice
            self.force_exit = True
            return
        self.should_exit, self._service.ready = True, False
