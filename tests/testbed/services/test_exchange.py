"""One request that may take long: what is an answer, and what is none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from testbed.services.exchange import ANSWER_LIMIT_BYTES, NoAnswer, fetch

Serve = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer the next connection by a function of it, in a thread; the port."""
    listeners: list[socket.socket] = []

    def start(answer: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            with suppress(OSError):
                connection = listener.accept()[0]
                with connection:
                    connection.recv(65536)
                    answer(connection)

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


def test_the_answer_is_whole_however_it_comes(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        for piece in (b"HTTP/1.1 200 OK\r\nCont", b"ent-Length: 6\r\n\r\nab", b"cd", b"ef"):
            connection.sendall(piece)
            time.sleep(0.05)

    exchange = fetch("127.0.0.1", serve(answer), "/run", 5)
    assert (exchange.status, exchange.body) == (200, b"abcdef")
    assert 0.15 <= exchange.seconds < 5


def test_a_connection_that_closes_ends_an_answer_without_a_length(serve: Serve) -> None:
    exchange = fetch("127.0.0.1", serve(lambda one: one.sendall(b"HTTP/1.0 503 No\r\n\r\nwhy\r\n\r\nnot")), "/", 5)
    assert (exchange.status, exchange.body) == (503, b"why\r\n\r\nnot")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "closed before"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nabc", "closed before"),
        (b"SSH-2.0-server\r\n", "not an answer of HTTP"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + bytes(2 * ANSWER_LIMIT_BYTES), "longer than 1 MiB"),
    ],
)
def test_what_is_no_answer_says_so(sent: bytes, reason: str, serve: Serve) -> None:
    with pytest.raises(NoAnswer, match=reason):
        fetch("127.0.0.1", serve(lambda one: one.sendall(sent)), "/run", 5)


def test_a_trickle_ends_with_the_time(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.01)

    began_s = time.monotonic()
    with pytest.raises(NoAnswer, match=r"no answer within 0\.5 s"):
        fetch("127.0.0.1", serve(answer), "/run", 0.5)
    assert time.monotonic() - began_s < 3


def test_whoever_watches_may_end_the_wait(serve: Serve) -> None:
    def watch() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        fetch("127.0.0.1", serve(lambda _: time.sleep(2)), "/run", 30, watch)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NoAnswer, match="refused"):
        fetch("127.0.0.1", port, "/run", 5)
