"""Ports of the host's loopback that lead to services."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from runtime.errors import PrerequisiteError
from runtime.spec import Resources
from testbed.compose.model import Port, Service
from testbed.projects.forward import LOOPBACK, Forwarder, held_ports, list_listeners, list_wanted, listen


@pytest.fixture
def upper() -> Iterator[int]:
    """The port of a service at 127.0.0.2 that answers with what it got, in capitals, once the client is done."""

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            with connection:
                data = b""
                while piece := connection.recv(65536):
                    data += piece
                connection.sendall(data.upper())

    with socket.create_server(("127.0.0.2", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def ask(port: int, data: bytes) -> bytes:
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


@pytest.mark.parametrize("exposed", [False, True])
def test_a_port_of_a_service_on_the_host_is_nobody_elses(exposed: bool) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
    agent = Service("agent", Resources(), network_mode="host", offers=(Port(port, published="1", exposed=exposed),))
    side = Service("side", Resources(), network_mode="service:agent", offers=(Port(port, "udp"),))
    web = Service("web", Resources(), offers=(Port(port, published=str(port)),))
    said: list[str] = []
    with held_ports((agent, side, web), ("agent", port)) as published:
        (listener,) = list_listeners((agent, side, web), ("web", port), said.append)
    listener.listening.close()
    assert [str(one) for one in published] == [f"http://127.0.0.1:{port}/"]
    assert listener.published.host_port != port and said[0].startswith(f"web: port {port} of this host is taken")
    told = pytest.raises(PrerequisiteError, match=f"agent: port {port} of the host's network, which it is in: Address")
    with socket.create_server((LOOPBACK, port)), told, held_ports((agent,), ("", 0)):
        pass


def test_bytes_go_both_ways_until_both_sides_are_done(upper: int) -> None:
    listener = listen("web", upper, ())
    data = b"abc" * 500_000
    with Forwarder([listener], {"web": "127.0.0.2"}):
        port = listener.published.host_port
        assert ask(port, b"first") == b"FIRST"
        assert ask(port, data) == data.upper()
    with pytest.raises(OSError):
        ask(port, b"after the end")


def test_a_client_of_a_service_that_is_not_there_is_refused(upper: int) -> None:
    listener = listen("web", upper, ())
    with Forwarder([listener], {"web": "127.0.0.3"}), pytest.raises(ConnectionResetError):
        ask(listener.published.host_port, b"x")


def test_a_port_that_is_taken_is_another_one() -> None:
    said: list[str] = []
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        offers = (Port(80, published=str(port)), Port(53, "udp", "53"), Port(6379, exposed=True), Port(port))
        service = Service("web", Resources(), offers=offers)
        listeners = list_listeners([service], ("web", 80), said.append)
        for one in listeners:
            one.listening.close()
    first, second = (one.published for one in listeners)
    assert first.http and not second.http and second.port == port
    assert port not in (first.host_port, second.host_port)
    assert said == [
        f"web: port {port} of this host is taken; it is at {first}",
        "web: port 53/udp is not forwarded, only TCP is",
    ]


@pytest.mark.parametrize(
    ("published", "wanted"),
    [("", (80,)), ("8080", (8080,)), ("8000-8002", (8000, 8001, 8002)), ("0", (80,)), ("x", (80,))],
)
def test_which_ports_are_tried(published: str, wanted: tuple[int, ...]) -> None:
    assert list_wanted(Port(80, published=published)) == wanted
