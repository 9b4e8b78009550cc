"""The box from inside: the same class, and threads that live in nodes."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from node.contract import UsageError
from node.namespace import NodeThread, enter
from orchestrator.boxes.box import Box, Node

SOON_S = 20.0


@pytest.fixture(scope="module")
def nodes() -> tuple[Node, Node]:
    """They end with the box. The kernel removes a namespace's cables only some time after it, so names are not used twice."""
    box = Box.current()
    box.add_bridge("inside")
    return (
        box.add_node("inside1", {"inside": "10.79.0.1/24"}),
        box.add_node("inside2", {"inside": "10.79.0.2/24"}),
    )


def network_of_this_thread() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_a_node_is_entered_without_leaving_the_box(nodes: tuple[Node, Node]) -> None:
    here = os.readlink("/proc/self/ns/pid")
    said = nodes[0].run(["sh", "-c", "readlink /proc/self/ns/pid /proc/self/ns/net"], timeout_s=SOON_S)
    pid, net = said.stdout.split()
    assert pid == here
    assert net != network_of_this_thread()


def test_a_thread_enters_a_node_alone(nodes: tuple[Node, Node]) -> None:
    before = network_of_this_thread()
    with NodeThread("inside1") as first, NodeThread("inside2") as second:
        inside = {first.call(network_of_this_thread), second.call(network_of_this_thread)}
        assert len(inside | {before}) == 3
        assert first.call(threading.get_ident) == first.call(threading.get_ident)
    assert network_of_this_thread() == before


def test_threads_in_two_nodes_talk_over_the_bridge(nodes: tuple[Node, Node]) -> None:
    with NodeThread("inside1") as first, NodeThread("inside2") as second:
        server = first.call(socket.create_server, ("10.79.0.1", 0))
        client = second.call(socket.create_connection, server.getsockname(), SOON_S)
        with server, client:
            peer, address = server.accept()
            peer.close()
            assert address[0] == "10.79.0.2"


def test_what_fails_in_a_node_fails_here(nodes: tuple[Node, Node]) -> None:
    with NodeThread("inside1") as first, pytest.raises(ZeroDivisionError):
        first.call(divmod, 1, 0)


def test_a_node_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="no node called 'nowhere'"):
        enter("nowhere")
    with pytest.raises(UsageError, match="no node called 'nowhere'"):
        NodeThread("nowhere")
