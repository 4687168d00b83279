"""One request over HTTP that may take its service minutes, and its whole answer, which is bounded."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from msgspec import Struct

from testbed.load.http1 import MalformedResponse, ResponseReader

# What a program says of its work is a page at most.
ANSWER_LIMIT_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0
_PIECE_BYTES = 65536
_WATCH_INTERVAL_S = 0.2


class Exchange(Struct, frozen=True):
    """An answer as it came: its status and body. ``began_ns`` is when the request was sent, ``ended_ns`` when the last
    byte of the answer was there, both of CLOCK_MONOTONIC."""

    status: int
    body: bytes
    began_ns: int
    ended_ns: int

    @property
    def seconds(self) -> float:
        return (self.ended_ns - self.began_ns) / 1e9


class NoAnswer(Exception):
    """There is no answer, or none that is one: why."""


def fetch(address: str, port: int, path: str, timeout_s: float, watch: Callable[[], None] = lambda: None) -> Exchange:
    """GET ``path`` and return the answer.

    ``watch`` is called a few times a second while the service works, and may raise. Raises NoAnswer when there is none
    within ``timeout_s``, when it is too long, or not of HTTP.
    """
    # HTTP/1.0, to which no server may send chunks (RFC 9112, section 6.1): what follows the headers is the body.
    message = f"GET {path} HTTP/1.0\r\nHost: {address}:{port}\r\nAccept: */*\r\n\r\n".encode()
    reader = ResponseReader()
    received = bytearray()
    try:
        with socket.create_connection((address, port), timeout=min(timeout_s, CONNECT_TIMEOUT_S)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began_ns = time.monotonic_ns()
            connection.sendall(message)
            connection.settimeout(_WATCH_INTERVAL_S)
            while not _receive(connection, reader, received):
                if time.monotonic_ns() - began_ns > timeout_s * 1e9:
                    raise NoAnswer(f"no answer within {timeout_s:g} s")
                watch()
            ended_ns = time.monotonic_ns()
    except MalformedResponse as error:
        raise NoAnswer(f"not an answer of HTTP: {error}") from error
    except OSError as error:
        raise NoAnswer(error.strerror or str(error)) from error
    return Exchange(reader.status, bytes(received.partition(b"\r\n\r\n")[2]), began_ns, ended_ns)


def _receive(connection: socket.socket, reader: ResponseReader, received: bytearray) -> bool:
    """Take what has come; whether the answer is whole now. Raises NoAnswer."""
    try:
        data = connection.recv(_PIECE_BYTES)
    except TimeoutError:
        return False
    received += data
    if len(received) > ANSWER_LIMIT_BYTES:
        raise NoAnswer(f"the answer is longer than {ANSWER_LIMIT_BYTES >> 20} MiB")
    if data:
        return reader.feed(data)
    if not reader.close():
        raise NoAnswer("the connection was closed before the answer's end")
    return True
