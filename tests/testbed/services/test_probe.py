"""The readiness probe against real sockets: what it sees, and how soon."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from testbed.load.requests import ANY_STATUS
from testbed.services.probe import Answer, NotReady, Question, ask, interval_ns

OK = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nready"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwait"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def probe(
    *questions: Question,
    timeout_s: float = 5.0,
    may_ask: Callable[[str], bool] = lambda service: True,
    watch: Callable[[], None] = lambda: None,
) -> tuple[Answer, ...]:
    return ask(questions, requested_ns=time.monotonic_ns(), timeout_s=timeout_s, may_ask=may_ask, watch=watch)


def serve(listener: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    """Answer one request a connection until the listener is shut down."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, suppress(ConnectionError):  # the one who asked has heard enough
            request = connection.recv(65536)
            if request:
                connection.sendall(answer(request))


@contextmanager
def http_server(answer: Callable[[bytes], bytes], port: int = 0, after_s: float = 0.0) -> Iterator[int]:
    """A server on loopback that listens ``after_s`` from now; its answers come from ``answer``."""
    port = port or free_port()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))

    def run() -> None:
        time.sleep(after_s)
        listener.listen()
        serve(listener, answer)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield port
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_a_port_that_opens_late_is_seen_within_milliseconds() -> None:
    lags_ms = []
    for _ in range(5):
        port, opened_ns = free_port(), 0

        def listen(port: int = port) -> None:
            nonlocal opened_ns
            time.sleep(0.2)
            listener = socket.create_server(("127.0.0.1", port))
            opened_ns = time.monotonic_ns()
            time.sleep(0.2)
            listener.close()

        thread = threading.Thread(target=listen)
        thread.start()
        (answer,) = probe(Question("redis", "127.0.0.1", port))
        thread.join()
        assert answer.ready_ns == answer.open_ns
        lags_ms.append((answer.open_ns - opened_ns) / 1e6)
    assert statistics.median(lags_ms) < 5


def test_ready_is_the_first_right_answer_not_the_open_port() -> None:
    requests: list[bytes] = []
    ready_s = time.monotonic() + 0.3

    def answer(request: bytes) -> bytes:
        requests.append(request)
        return OK if time.monotonic() >= ready_s else UNAVAILABLE

    with http_server(answer) as port:
        (first,) = probe(Question("web", "127.0.0.1", port, "/health", 200, "ready"))
    assert requests[0].startswith(b"GET /health HTTP/1.0\r\n")
    assert first.open_ns / 1e9 < ready_s - 0.2
    assert 0 <= first.ready_ns / 1e9 - ready_s < 0.05


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (UNAVAILABLE, "HTTP status 503, not 200"),
        (OK.replace(b"ready", b"ROUGH"), "has no 'ready'"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 500\r\n\r\nready", "closed before the answer's end"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP: not a status line"),
        (b"", "closed before the answer's end"),
    ],
)
def test_a_wrong_answer_is_not_ready_and_the_error_says_why(raw: bytes, problem: str) -> None:
    with http_server(lambda request: raw) as port, pytest.raises(NotReady) as raised:
        probe(Question("web", "127.0.0.1", port, "/", 200, "ready"), timeout_s=0.2)
    assert problem in str(raised.value)
    assert f"GET http://127.0.0.1:{port}/" in str(raised.value)


def test_it_asks_by_the_sockets_that_it_is_given() -> None:
    asked: list[bool] = []

    def open_socket(on_host: bool) -> socket.socket:
        asked.append(on_host)
        return socket.socket()

    with http_server(lambda request: OK) as port:
        questions = [Question("web", "127.0.0.1", port, on_host=on_host) for on_host in (False, True)]
        began_ns, always = time.monotonic_ns(), lambda service: True
        ask(questions, requested_ns=began_ns, timeout_s=5, may_ask=always, watch=lambda: None, open_socket=open_socket)
    assert {*asked} == {False, True}


def test_on_the_host_it_does_not_answer_itself() -> None:
    """The kernel may choose the very port that is asked for, and then connects a socket to itself."""

    def bound(on_host: bool) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
        return made

    port = free_port()
    question = Question("web", "127.0.0.1", port, on_host=True)
    began_ns, always = time.monotonic_ns(), lambda service: True
    with pytest.raises(NotReady, match="connect: to itself"):
        ask([question], requested_ns=began_ns, timeout_s=0.1, may_ask=always, watch=lambda: None, open_socket=bound)


@pytest.mark.parametrize("status", [b"204 No Content", b"301 Moved", b"404 Not Found"])
def test_any_status_is_any_but_a_failure_of_the_server(status: bytes) -> None:
    with http_server(lambda request: b"HTTP/1.0 " + status + b"\r\nContent-Length: 0\r\n\r\n") as port:
        probe(Question("web", "127.0.0.1", port, "/", ANY_STATUS))
    with http_server(lambda request: UNAVAILABLE) as port, pytest.raises(NotReady, match="503, not one below 500"):
        probe(Question("web", "127.0.0.1", port, "/", ANY_STATUS), timeout_s=0.2)


@pytest.mark.parametrize("answers", [False, True])
def test_an_answer_has_the_time_that_the_host_takes(
    answers: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow host a first answer that came too late would be asked for again, for ever."""
    if answers:
        request.getfixturevalue("slow_host")
    monkeypatch.setattr("testbed.services.probe.ANSWER_TIMEOUT_NS", 50_000_000)

    def answer(_: bytes) -> bytes:
        time.sleep(0.2)
        return OK

    with http_server(answer) as port:
        if answers:
            assert probe(Question("web", "127.0.0.1", port, "/", 200, "ready"))[0].ready_ns
        else:
            with pytest.raises(NotReady, match="no answer"):
                probe(Question("web", "127.0.0.1", port, "/", 200, "ready"), timeout_s=0.6)


def test_an_answer_without_an_end_is_none() -> None:
    """It would be read for five seconds, as fast as the server sends."""

    def answer(_: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (4 << 20)

    with http_server(answer) as port, pytest.raises(NotReady, match="longer than 1 MiB"):
        probe(Question("web", "127.0.0.1", port, "/"), timeout_s=0.5)


def test_the_error_names_a_port_that_never_opens() -> None:
    port = free_port()
    began_s = time.monotonic()
    with pytest.raises(NotReady, match=f"connect to 127.0.0.1:{port}: connect: ECONNREFUSED"):
        probe(Question("redis", "127.0.0.1", port), timeout_s=0.2)
    assert 0.2 <= time.monotonic() - began_s < 1


def test_a_body_that_ends_with_the_connection_is_whole() -> None:
    with http_server(lambda request: b"HTTP/1.0 200 OK\r\n\r\nready") as port:
        (answer,) = probe(Question("web", "127.0.0.1", port, "/", 200, "ready"))
    assert answer.ready_ns >= answer.open_ns > 0


def test_dropped_syns_do_not_cost_the_second_until_they_are_sent_again() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fill = [socket.socket() for _ in range(2)]  # a full backlog drops SYNs as an absent guest does
        for connection in fill:
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        accepted_s = 0.0

        def accept() -> None:
            nonlocal accepted_s
            time.sleep(0.35)
            accepted_s = time.monotonic()
            for _ in range(2):  # the kernel queues one more than the backlog says
                listener.accept()[0].close()

        thread = threading.Thread(target=accept)
        thread.start()
        (answer,) = probe(Question("web", "127.0.0.1", listener.getsockname()[1]))
        thread.join()
        for connection in fill:
            connection.close()
    assert 0 < answer.open_ns / 1e9 - accepted_s < 0.2


def test_nothing_is_sent_before_the_first_process_runs() -> None:
    allowed_s = time.monotonic() + 0.2
    with http_server(lambda request: OK) as port:
        (answer,) = probe(
            Question("web", "127.0.0.1", port, "/", 200, "ready"),
            may_ask=lambda service: time.monotonic() >= allowed_s,
        )
    assert answer.open_ns / 1e9 >= allowed_s
    with pytest.raises(NotReady, match="its first process has not been seen"):
        probe(Question("web", "127.0.0.1", 1), may_ask=lambda service: False, timeout_s=0.05)


def test_several_services_are_asked_at_once() -> None:
    with http_server(lambda request: OK, after_s=0.3) as late, http_server(lambda request: OK) as early:
        first, second = probe(
            Question("web", "127.0.0.1", late, "/", 200, "ready"), Question("redis", "127.0.0.1", early)
        )
    assert first.open_ns - second.open_ns > 200e6


def test_what_the_watch_raises_ends_it() -> None:
    def watch() -> None:
        raise RuntimeError("its first process has ended")

    with pytest.raises(RuntimeError, match="has ended"):
        probe(Question("web", "127.0.0.1", 1), watch=watch)


def test_the_interval_is_a_part_of_the_time_gone_within_bounds() -> None:
    assert [interval_ns(round(s * 1e9)) for s in (0.01, 0.4, 1.0, 60.0)] == [
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
    ]
