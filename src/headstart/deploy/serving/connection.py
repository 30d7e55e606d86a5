"""A connection that ends when its client is too slow, and that a stopping server lets finish what it began.

uvicorn bounds the time between two requests; here also the time for a request's head and for taking the reply.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from headstart.deploy.serving.limits import Limits

GLANCE_SECONDS = 0.5  # between two looks at a connection
LAST_WORDS_SECONDS = 1.0  # for a request that is on its way when the server stops
STOPPING_SECONDS = 2.0  # for the rest of a body when the server stops


def protocol(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol for HTTP/1.1 with these limits."""

    class Connection(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._stopping = False
            self._since = self.loop.time()  # that a head is awaited, or that the reply makes no way
            self._unsent = 0
            self._look_again: asyncio.TimerHandle | None = None
            if len(self.connections) > limits.connections:
                self.transport.abort()
                return
            self._look()

        def connection_lost(self, error: Exception | None) -> None:
            if self._look_again is not None:
                self._look_again.cancel()
            super().connection_lost(error)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._stopping and not self._is_idle():
                self._make_last()

        def on_response_complete(self) -> None:
            self._since = self.loop.time()
            super().on_response_complete()

        def shutdown(self) -> None:
            """Called once when the server stops: what was sent to us by now is still answered."""
            self._stopping = True
            if self._is_idle():
                self.loop.call_later(LAST_WORDS_SECONDS, self._leave)
            else:
                self._make_last()
                if self.cycle.more_body:
                    self.loop.call_later(STOPPING_SECONDS, self._leave_unfinished)

        def _is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _make_last(self) -> None:
            """The reply says that it is the last: a client that is not told would send its next request in vain."""
            self.cycle.keep_alive = False
            self.cycle.default_headers = [*self.cycle.default_headers, (b"connection", b"close")]

        def _leave(self) -> None:
            if self._is_idle() and not self.transport.is_closing():
                super().shutdown()

        def _leave_unfinished(self) -> None:
            if not self._is_idle() and self.cycle.more_body:
                self.transport.abort()

        def _look(self) -> None:
            """End the connection where nothing has moved for too long; look again a little later."""
            now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
            # uvicorn ends what is silent between two requests; this ends what trickles, and what does not read.
            waiting = unsent == self._unsent if unsent else self._is_idle()
            if self._unsent != unsent or not waiting:
                self._since = now
            self._unsent = unsent
            if now - self._since > limits.receive_seconds:
                self.transport.abort()
                return
            self._look_again = self.loop.call_later(GLANCE_SECONDS, self._look)

    return Connection
