"""From an export to a server that answers, and its end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.core.events import Event, Notice
from headstart.deploy import folder
from headstart.deploy.predictor import Predictor
from headstart.deploy.serving import server
from headstart.deploy.serving.app import Service
from headstart.deploy.serving.facts import Facts
from headstart.deploy.serving.limits import Limits

Emit = Callable[[Event], None]


@dataclass(frozen=True)
class Prepared:
    """A model that is loaded, and an address that is bound."""

    service: Service
    bound: socket.socket
    address: str

    @property
    def facts(self) -> Facts:
        return self.service.facts

    def answer(self, on_start: Callable[[], None]) -> tuple[int, int]:
        """Answer until SIGINT or SIGTERM; how many items were answered, and how many were accepted and given up.

        Args:
            on_start: called when the first request can be answered.
        """
        with self.bound:
            server.serve(self.service, self.bound, on_start=on_start)
        return self.service.batcher.answered, self.service.batcher.given_up


def prepare(
    path: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    names: Sequence[str] = (),
    variant: str | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    on_event: Emit,
) -> Prepared:
    """Load the best accepted variant of an export and bind an address for it.

    Args:
        path: an export, or a run that has one.
        variant: that answers, by name and whatever its verdict, instead.
        names: that the server may be called by, besides ``localhost``, ``host`` and addresses.

    Raises:
        ArtefactError: there is no export, or it is damaged.
        ConfigError: the address cannot be listened on.
    """
    place = folder.exported(Path(path), "only an export can be served")
    bound = server.listen(host, port)
    try:
        predictor = Predictor(place, variant=variant, threads=threads, on_event=on_event)
        service = Service(predictor, limits, names=[host, *names])
    except BaseException:
        bound.close()
        raise
    if service.facts.batch_rows == 1:
        why = f"in a batch its probabilities move by up to {service.facts.batch_gap:.1g}"
        on_event(Notice("info", "batches", f"every item is answered alone: {why}"))
    if not server.is_loopback(bound):
        what = f"everyone who can reach {host} can use this server: it asks for no password"
        on_event(Notice("warning", "address", what, "without --host only this machine can"))
    return Prepared(service, bound, server.address_of(bound, host))
