"""A closed loop of requests: each connection asks again as soon as it has its answer.

It finds out what a server can do at most, and says nothing of latency under a load that does not wait
(testbed.load.open_loop says why); a figure of it is an upper bound.
"""

from __future__ import annotations

import selectors
import socket
import time

from runtime.errors import WorkloadError
from testbed.load.http1 import MalformedResponse, ResponseReader
from testbed.load.requests import Request, is_expected

_PIECE_BYTES = 1 << 16
_PATIENCE_S = 5.0


class _Connection:
    """One that asks, waits for the whole answer, and asks again."""

    def __init__(self, address: str, port: int, request: Request, selector: selectors.BaseSelector) -> None:
        self._where = address, port
        self._message = request.compose(address, port)
        self._expected = request.expect_status
        self._reader = ResponseReader(request.is_bodiless)
        self._selector = selector
        self._socket: socket.socket | None = None

    def ask(self) -> None:
        """Send a request; over a new connection where the server ends them after an answer."""
        if self._socket is not None and not self._reader.keep_alive:
            self.close()
        self._reader.reset()
        if self._socket is None:
            self._socket = socket.create_connection(self._where, timeout=_PATIENCE_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(self._socket, selectors.EVENT_READ, self)
        self._socket.sendall(self._message)

    def is_answered(self) -> bool:
        """Take what has come; whether that completes the right answer. Raises WorkloadError for any other."""
        assert self._socket is not None
        data = self._socket.recv(_PIECE_BYTES)
        try:
            complete = self._reader.feed(data) if data else self._reader.close()
        except MalformedResponse as error:
            raise WorkloadError(f"not an answer of HTTP: {error}") from error
        if not data and not complete:
            raise WorkloadError("the server closed a connection before the answer's end")
        if complete and not is_expected(self._reader.status, self._expected):
            raise WorkloadError(f"it answered {self._reader.status}, not {self._expected}")
        return complete

    def close(self) -> None:
        """End the connection; harmless without one."""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None


def count_answers(address: str, port: int, request: Request, connections: int, warmup_s: float, load_s: float) -> float:
    """Return how many requests a second a server answers to so many connections, counted after the warm-up.

    Raises WorkloadError for an answer that is not right, or none.
    """
    with selectors.DefaultSelector() as selector:
        opened = [_Connection(address, port, request, selector) for _ in range(connections)]
        try:
            for one in opened:
                one.ask()
            _serve(selector, warmup_s)
            began_s = time.monotonic()
            count = _serve(selector, load_s)
            return count / (time.monotonic() - began_s)
        except OSError as error:
            raise WorkloadError(f"ask {address}:{port}: {error.strerror or error}") from error
        finally:
            for one in opened:
                one.close()


def _serve(selector: selectors.BaseSelector, seconds: float) -> int:
    """Go on for so long; return how many answers were complete."""
    count, deadline_s = 0, time.monotonic() + seconds
    while (left_s := deadline_s - time.monotonic()) > 0:
        ready = selector.select(min(left_s, _PATIENCE_S))
        if not ready and seconds > _PATIENCE_S:
            raise WorkloadError(f"no answer within {_PATIENCE_S:g} s")
        for key, _ in ready:
            if key.data.is_answered():
                count += 1
                key.data.ask()
    return count
