"""Probes when a service's port opens and when it first answers as it should, from the host, by the host's clock.

One loop asks all services. Every attempt is a fresh non-blocking connection: a SYN that was dropped would only be
sent again after a second (RFC 6298, section 2), and the moment would be seen that late.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from errno import EINPROGRESS, errorcode

from msgspec import Struct

from runtime.speed import factor
from testbed.load.http1 import MalformedResponse, ResponseReader
from testbed.load.requests import FIRST_FAILURE, is_expected

# How long to wait between two attempts: half a percent of the time that has passed since the request, within
# bounds. The rule is the same for all platforms; it resolves each start equally well relative to its length, and
# leaves an emulated guest, for which answering a SYN is work, in peace.
RESOLUTION_FRACTION = 0.005
SHORTEST_NS = 1_000_000
LONGEST_NS = 10_000_000

CONNECT_TIMEOUT_NS = 100_000_000
ANSWER_TIMEOUT_NS = 5_000_000_000
# The answer to a ready check that is longer is none: a stream without an end would be read for that time.
ANSWER_LIMIT_BYTES = 1 << 20


class Question(Struct, frozen=True):
    """A port of a service to connect to and, with a ``path``, what to ask there over HTTP.

    The answer must have the ``status`` (ANY_STATUS: any), and ``body`` somewhere in its body. It is asked from the
    network of whoever asks or, ``on_host``, from the host's.
    """

    service: str
    address: str
    port: int
    path: str = ""
    status: int = 200
    body: str = ""
    on_host: bool = False

    def message(self) -> bytes:
        """Return the request. HTTP/1.0, to which no server may send chunks (RFC 9112, section 6.1)."""
        return f"GET {self.path} HTTP/1.0\r\nHost: {self.address}:{self.port}\r\nAccept: */*\r\n\r\n".encode()

    def __str__(self) -> str:
        where = f"{self.address}:{self.port}"
        return f"GET http://{where}{self.path}" if self.path else f"connect to {where}"


class Answer(Struct, frozen=True):
    """When the port first took a connection and, if it was asked over HTTP, when the right answer was complete."""

    open_ns: int
    ready_ns: int


# Makes a socket for TCP in the caller's network or, where that is asked for, in the host's.
OpenSocket = Callable[[bool], socket.socket]


def open_here(on_host: bool) -> socket.socket:
    """Return a socket for TCP in the caller's network, which stands for the host's, too."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


class NotReady(Exception):
    """The time is over: what was asked last, and what came of it."""


def interval_ns(elapsed_ns: int) -> int:
    """Return the wait between two attempts, ``elapsed_ns`` after the request."""
    return min(max(round(elapsed_ns * RESOLUTION_FRACTION), SHORTEST_NS), LONGEST_NS)


class _Attempts:
    """The attempts to get one question answered, one at a time."""

    def __init__(self, question: Question, open_socket: OpenSocket) -> None:
        self.question = question
        self._open_socket = open_socket
        self.problem = "not asked: its first process has not been seen"
        self.open_ns = 0
        self.ready_ns = 0
        self.due_ns = 0
        self._socket: socket.socket | None = None
        self._deadline_ns = 0
        self._sent = False
        self._reader = ResponseReader()
        self._received = b""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def watched(self) -> tuple[int, int] | None:
        """Return the descriptor and the poll(2) events to wait for, None between attempts."""
        if self._socket is None:
            return None
        return self._socket.fileno(), select.POLLIN if self._sent else select.POLLOUT

    def begin_or_expire(self, now_ns: int, pause_ns: int) -> None:
        """Begin an attempt when one is due; give one up that has taken too long."""
        if self._socket is None and now_ns >= self.due_ns:
            self._socket = self._open_socket(self.question.on_host)
            self._socket.setblocking(False)
            self._sent, self._received, self._reader = False, b"", ResponseReader()
            self._deadline_ns = now_ns + CONNECT_TIMEOUT_NS
            problem = self._socket.connect_ex((self.question.address, self.question.port))
            if problem not in (0, EINPROGRESS):
                self._fail(f"connect: {errorcode.get(problem, problem)}", now_ns + pause_ns)
        elif self._socket is not None and now_ns >= self._deadline_ns:
            self._fail("no answer" if self._sent else "connect: no answer", now_ns)

    def advance(self, now_ns: int, pause_ns: int) -> None:
        """Go on after news of the socket: the connection is made or refused, or bytes of the answer are there."""
        assert self._socket is not None
        try:
            if self._sent:
                self._receive(now_ns, pause_ns)
            elif problem := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._fail(f"connect: {errorcode.get(problem, problem)}", now_ns + pause_ns)
            else:
                self._connected(now_ns)
        except OSError as error:
            self._fail(f"HTTP: {error.strerror}", now_ns + pause_ns)
        except MalformedResponse as error:
            self._fail(f"HTTP: {error}", now_ns + pause_ns)

    def _connected(self, now_ns: int) -> None:
        assert self._socket is not None
        if self.question.on_host and self._socket.getsockname() == self._socket.getpeername():
            self._fail("connect: to itself", now_ns)  # by the kernel's choice of a port, at which nobody listens
            return
        self.open_ns = self.open_ns or now_ns
        if self.question.path:
            self._socket.send(self.question.message())
            self._sent = True
            self._deadline_ns = now_ns + round(ANSWER_TIMEOUT_NS * factor())
        else:
            self.ready_ns = now_ns
            self.close()

    def _receive(self, now_ns: int, pause_ns: int) -> None:
        assert self._socket is not None
        data = self._socket.recv(65536)
        self._received += data
        if len(self._received) > ANSWER_LIMIT_BYTES:
            self._fail(f"HTTP: the answer is longer than {ANSWER_LIMIT_BYTES >> 20} MiB", now_ns + pause_ns)
            return
        if not (self._reader.feed(data) if data else self._reader.close()):
            if not data:
                self._fail("HTTP: connection closed before the answer's end", now_ns + pause_ns)
            return
        body = self._received.partition(b"\r\n\r\n")[2]
        if not is_expected(self._reader.status, self.question.status):
            wanted = self.question.status or f"one below {FIRST_FAILURE}"
            self._fail(f"HTTP status {self._reader.status}, not {wanted}", now_ns + pause_ns)
        elif self.question.body.encode() not in body:
            self._fail(f"HTTP body {body[:60]!r} has no {self.question.body!r}", now_ns + pause_ns)
        else:
            self.ready_ns = now_ns
            self.close()

    def _fail(self, problem: str, due_ns: int) -> None:
        self.problem = problem
        self.due_ns = due_ns
        self.close()


def ask(
    questions: Sequence[Question],
    *,
    requested_ns: int,
    timeout_s: float,
    may_ask: Callable[[str], bool],
    watch: Callable[[], None],
    open_socket: OpenSocket = open_here,
) -> tuple[Answer, ...]:
    """Ask until every question has the right answer; one Answer a question, in order.

    A service is asked once ``may_ask`` says so: before its first process runs, packets would only queue up for
    it. ``watch`` is called again and again and may raise. Sockets are ``open_socket``'s. Raises NotReady ``timeout_s``
    after ``requested_ns``, both on CLOCK_MONOTONIC.
    """
    asking = [_Attempts(question, open_socket) for question in questions]
    deadline_ns = requested_ns + round(timeout_s * 1e9)
    with ExitStack() as undo:
        for attempts in asking:
            undo.callback(attempts.close)
        while open_ones := [attempts for attempts in asking if not attempts.ready_ns]:
            now_ns = time.monotonic_ns()
            if now_ns >= deadline_ns:
                raise NotReady("; ".join(f"{attempts.question}: {attempts.problem}" for attempts in open_ones))
            watch()
            pause_ns = interval_ns(now_ns - requested_ns)
            for attempts in open_ones:
                if may_ask(attempts.question.service):
                    attempts.begin_or_expire(now_ns, pause_ns)
            _wait(open_ones, pause_ns)
    return tuple(Answer(attempts.open_ns, attempts.ready_ns) for attempts in asking)


def _wait(asking: Sequence[_Attempts], pause_ns: int) -> None:
    """Wait for news of the attempts under way, at most ``pause_ns``, and act on it."""
    poll = select.poll()
    by_descriptor: dict[int, _Attempts] = {}
    for attempts in asking:
        if watched := attempts.watched():
            poll.register(*watched)
            by_descriptor[watched[0]] = attempts
    news = poll.poll(pause_ns / 1e6)
    now_ns = time.monotonic_ns()
    for descriptor, _ in news:
        by_descriptor[descriptor].advance(now_ns, pause_ns)
