from __future__ import annotations

import re
import socket
import threading
import urllib.request
from http.server import ThreadingHTTPServer
from socketserver import BaseServer

import pytest

from node.contract import HostError
from node.contract.plan import Role
from node.contract.series import SERIES
from node.metrics import RoleMetrics, role_port


def names(text: bytes) -> set[str]:
    found = {
        line.partition("{")[0].partition(" ")[0] for line in text.decode().splitlines() if line[0] != "#"
    }
    return {re.sub("_(bucket|sum|count)$", "", name) for name in found}


@pytest.mark.parametrize("role", ["trainer", "aggregator"])
def test_a_role_can_use_its_whole_table_and_shows_nothing_else(role: Role) -> None:
    metrics = RoleMetrics(role)
    table = {name: series for name, series in SERIES.items() if series.by == role}
    for name, series in table.items():
        labels = dict.fromkeys(series.labels, "x")
        if series.kind == "gauge":
            metrics.gauge(name, **labels).set(1)
        elif series.kind == "counter":
            metrics.counter(name, **labels).inc()
        else:
            metrics.histogram(name, **labels).observe(1)
    assert names(metrics.text()) == set(table)


def test_a_gauge_that_nobody_set_is_not_shown() -> None:
    metrics = RoleMetrics("aggregator")
    assert "shoal_accuracy" not in names(metrics.text())
    assert "shoal_rounds_completed_total" in names(metrics.text())
    metrics.gauge("shoal_accuracy").set(0.5)
    assert b"\nshoal_accuracy 0.5\n" in metrics.text()


@pytest.mark.parametrize("name", ["shoal_train_loss", "shoal_rounds_completed_total", "shoal_nothing"])
def test_what_is_no_gauge_of_the_role_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is no gauge of the aggregator"):
        RoleMetrics("aggregator").gauge(name)


def test_labels_are_given_at_once_or_afterwards() -> None:
    metrics = RoleMetrics("aggregator")
    metrics.counter("shoal_updates_total", outcome="accepted").inc()
    metrics.counter("shoal_updates_total").labels(outcome="accepted").inc()
    assert b'shoal_updates_total{outcome="accepted"} 2.0' in metrics.text()


def test_it_answers_on_loopback_as_long_as_it_is_exposed() -> None:
    metrics = RoleMetrics("trainer")
    metrics.gauge("shoal_train_loss").set(2.5)
    with (
        metrics.exposed(0) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply,
    ):
        assert b"shoal_train_loss 2.5" in reply.read()
    with socket.create_server(("127.0.0.1", port)) as taken:
        with pytest.raises(HostError, match=f"127.0.0.1:{port}"), metrics.exposed(port):
            pass
        assert taken.fileno() > 0


def test_its_end_does_not_wait_until_the_server_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = ThreadingHTTPServer.serve_forever
    monkeypatch.setattr(BaseServer, "serve_forever", lambda self: serve(self, poll_interval=60.0))

    def expose() -> None:
        with RoleMetrics("trainer").exposed(0):
            pass

    exposing = threading.Thread(target=expose, daemon=True)
    exposing.start()
    exposing.join(20.0)
    assert not exposing.is_alive()


def test_roles_of_one_node_have_ports_of_their_own() -> None:
    roles: tuple[Role, ...] = ("aggregator", "trainer")
    assert len({role_port(roles, role) for role in roles}) == 2
    assert role_port(("trainer",), "trainer") == 7071
