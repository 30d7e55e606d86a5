"""What stands before every route: whose name and page a request may come from, headers of every reply, and counting.

Follows OWASP's advice on DNS rebinding (the Host has to be ours) and cross-site requests (the Origin has to be the
Host), as Go's ``CrossOriginProtection`` does; no reply ever carries a CORS header.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import time
from collections.abc import Collection, Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.deploy.serving.limits import Refusal
from headstart.deploy.serving.metrics import Metrics

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
LOG = logging.getLogger(__name__)
SAFE = ("GET", "HEAD")


class Guard:
    """ASGI middleware.

    Args:
        names: that the server may be called by, besides ``localhost`` and addresses in digits: to trick a browser into
            calling us by an address, no name server helps.
        paths: that are counted by name.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str], paths: Collection[str], metrics: Metrics) -> None:
        self._app, self._paths, self._metrics = app, paths, metrics
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # lifespan; there are no websockets
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        begun, status, begun_reply = time.perf_counter(), 500, False

        async def guarded(message: Message) -> None:
            nonlocal status, begun_reply
            if message["type"] == "http.response.start":
                status, begun_reply = message["status"], True
                message = {**message, "headers": _with_ours(message["headers"])}
            await send(message)

        try:
            refusal = self._fault(scope)
            if refusal is None:
                await self._app(scope, receive, guarded)
            else:
                await refuse(refusal, guarded)
        except Exception as error:
            LOG.error("%s %s: %s: %.200s", scope["method"], path, type(error).__name__, error)
            if not begun_reply:
                await refuse(Refusal(500, "failed", "this should not happen; the server's log names it"), guarded)
        finally:
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - begun)

    def _fault(self, scope: Scope) -> Refusal | None:
        """Why this request is none of ours, or None."""
        given: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name, []).append(value.decode("latin-1"))
        hosts = given.get(b"host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            told = "this server does not answer to that name; --allow-host lets it"
            return Refusal(403, "host", told, close=True)
        origins = given.get(b"origin", [])
        if any(origin.partition("://")[2].lower() != hosts[0].lower() for origin in origins):
            return Refusal(403, "origin", "requests of other sites' pages are not answered", close=True)
        site = given.get(b"sec-fetch-site", ["none"])
        if scope["method"] not in SAFE and not set(site) <= {"same-origin", "none"}:
            return Refusal(403, "origin", "requests of other sites' pages are not answered", close=True)
        return None

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()):
            name = host
        name = name.lower().rstrip(".")
        try:
            ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        except ValueError:
            return name in self._names
        return True


async def refuse(refusal: Refusal, send: Send) -> None:
    """Send a refusal as JSON."""
    body = json.dumps({"problem": refusal.message, "code": refusal.code}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _with_ours(headers: Iterable[tuple[bytes, bytes]]) -> list[Any]:
    """The headers of a reply with those that it does not have itself."""
    given = [(name.lower(), value) for name, value in headers]
    known = {name for name, _ in given}
    return given + [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in known]
