"""A role's own metrics: made from the table in contract/series.py, exposed on the node's loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)

from node.contract import HostError
from node.contract.plan import Role
from node.contract.series import SERIES, Series
from node.contract.settings import ROLE_PORT

LOOPBACK: Final = "127.0.0.1"
SECONDS_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)

# Series called *_created would stand beside each counter and histogram, and in no table.
disable_created_metrics()  # type: ignore[no-untyped-call]

_Metric = TypeVar("_Metric", Gauge, Counter, Histogram)


class RoleMetrics:
    """The series of one role.

    A gauge is exposed from its first use on: until then nobody knows its value, and 0 would be a lie.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self._registry = CollectorRegistry()
        self._made: dict[str, Gauge | Counter | Histogram] = {}
        for name, series in SERIES.items():
            if series.by == role and not series.labels:
                if series.kind == "counter":
                    self.counter(name)
                elif series.kind == "histogram":
                    self.histogram(name)

    def gauge(self, name: str, **labels: str) -> Gauge:
        def make(series: Series) -> Gauge:
            return Gauge(name, series.help, series.labels, registry=self._registry)

        return self._metric(name, "gauge", Gauge, make, labels)

    def counter(self, name: str, **labels: str) -> Counter:
        def make(series: Series) -> Counter:
            return Counter(name, series.help, series.labels, registry=self._registry)

        return self._metric(name, "counter", Counter, make, labels)

    def histogram(self, name: str, **labels: str) -> Histogram:
        def make(series: Series) -> Histogram:
            return Histogram(
                name, series.help, series.labels, registry=self._registry, buckets=SECONDS_BUCKETS
            )

        return self._metric(name, "histogram", Histogram, make, labels)

    def text(self) -> bytes:
        """All in Prometheus' text format."""
        return generate_latest(self._registry)

    @contextmanager
    def exposed(self, port: int = ROLE_PORT) -> Iterator[int]:
        """Answer on loopback from a thread of its own, so that a busy role is still seen."""
        try:
            server, thread = start_http_server(port, LOOPBACK, self._registry)
        except OSError as error:
            raise HostError(
                f"cannot expose the metrics of {self.role} on {LOOPBACK}:{port}: {error.strerror}",
                "something else in this node listens there: end it",
            ) from error
        try:
            yield server.server_port
        finally:
            server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which else looks twice a second
            server.shutdown()
            server.server_close()
            thread.join()

    def _metric(
        self,
        name: str,
        kind: str,
        expected: type[_Metric],
        make: Callable[[Series], _Metric],
        labels: dict[str, str],
    ) -> _Metric:
        series = SERIES.get(name)
        if series is None or series.by != self.role or series.kind != kind:
            raise ValueError(f"{name} is no {kind} of the {self.role} in contract/series.py")
        metric = self._made.get(name)
        if metric is None:
            metric = self._made[name] = make(series)
        assert isinstance(metric, expected)
        return metric.labels(**labels) if labels else metric


def role_port(roles: Sequence[Role], role: Role) -> int:
    """Where a role of a node exposes its metrics; a node of several roles has a port for each."""
    return ROLE_PORT + list(roles).index(role)
