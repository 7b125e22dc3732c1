"""What Prometheus is told at /metrics; a registry for each service, none for the whole process."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

KIND = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_JOBS = (1, 2, 4, 8, 16, 32, 64)


@final
class Figures:
    """size: how many items the index has now · generation: which generation it is at."""

    def __init__(self, size: Callable[[], float], generation: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "seeall_requests", "Requests by route and status.", ["route", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "seeall_request_seconds", "From the first byte of a request to the last of its answer.", ["route"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batch = Histogram(
            "seeall_batch_size", "Queries embedded and searched together.", buckets=_JOBS, registry=self._registry
        )
        self._open = Gauge("seeall_requests_open", "Requests being answered.", registry=self._registry)
        items = Gauge("seeall_index_items", "Items in the index.", registry=self._registry)
        items.set_function(size)
        at = Gauge("seeall_index_generation", "The generation of the index that is served.", registry=self._registry)
        at.set_function(generation)

    def began(self) -> None:
        """A request came."""
        self._open.inc()

    def ended(self, route: str, method: str, status: int, seconds: float) -> None:
        """It was answered. route: as the documentation writes it, so that there are few"""
        self._open.dec()
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, size: int) -> None:
        """So many queries were answered together."""
        self._batch.observe(size)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
