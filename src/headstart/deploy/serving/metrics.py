"""What the server counts, for Prometheus; in a registry of its own, so that several can live in one process."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

__all__ = ["CONTENT_TYPE", "Metrics"]
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16)


class Metrics:
    """Requests, items, batches and the queue. Labels take few values, whatever clients send."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry, "namespace": "headstart"}
        self.requests = Counter("requests", "Requests by path and status.", ("path", "status"), **own)
        self.seconds = Histogram("request_seconds", "From the head to the reply.", ("path",), buckets=SECONDS, **own)
        self.items = Counter("items", "Items by outcome: answered, unreadable, failed, dropped.", ("outcome",), **own)
        self.batches = Histogram("batch_rows", "Items that the model answered at once.", buckets=ROWS, **own)
        self.model_seconds = Counter("model_seconds", "Spent in the model.", **own)
        self.queue = Gauge("queue_items", "Items that were accepted and are not answered yet.", **own)
        self.model = Info("model", "What answers.", **own)

    def text(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self.registry)
