"""Ports of the host's loopback that lead to services."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from runtime.errors import PrerequisiteError
from testbed.projects.forward import LOOPBACK, Forwarder, listen


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


def test_bytes_go_both_ways_until_both_sides_are_done(upper: int) -> None:
    listener = listen("web", upper)
    data = b"abc" * 500_000
    with Forwarder([listener], {"web": "127.0.0.2"}):
        port = listener.published.host_port
        assert ask(port, b"first") == b"FIRST"
        assert ask(port, data) == data.upper()
    with pytest.raises(OSError):
        ask(port, b"after the end")


def test_a_client_of_a_service_that_is_not_there_is_refused(upper: int) -> None:
    listener = listen("web", upper)
    with Forwarder([listener], {"web": "127.0.0.3"}), pytest.raises(ConnectionResetError):
        ask(listener.published.host_port, b"x")


def test_a_port_that_is_taken_is_another_unless_it_was_asked_for() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        listener = listen("web", port)
        listener.listening.close()
        assert listener.published.host_port not in (0, port) and listener.published.port == port
        with pytest.raises(PrerequisiteError, match=f"publish port 80 of web at 127.0.0.1:{port}: it is taken"):
            listen("web", 80, host_port=port)
