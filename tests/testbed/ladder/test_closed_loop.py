"""A closed loop counts right answers only, over connections that a server keeps or ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runtime.errors import WorkloadError
from testbed.ladder.closed_loop import count_answers
from testbed.load.requests import Request


class Counting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    ends = False
    answered = 0

    def do_GET(self) -> None:
        status = 200 if self.path == "/" else 404
        self.send_response(status)
        self.send_header("Content-Length", "2")
        if self.ends:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"ok")
        type(self).answered += 1

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(ends: bool) -> Iterator[tuple[type[Counting], int]]:
    handler = type("Handler", (Counting,), {"ends": ends, "answered": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield handler, server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("ends", [False, True])
def test_answers_are_counted(ends: bool) -> None:
    with served(ends) as (handler, port):
        rate = count_answers("127.0.0.1", port, Request(), 2, 0.05, 0.2)
        assert 0 < rate * 0.15 < handler.answered


def test_another_answer_is_none() -> None:
    with served(False) as (_, port), pytest.raises(WorkloadError, match="answered 404, not 200"):
        count_answers("127.0.0.1", port, Request(path="/other"), 1, 0.0, 0.2)


def test_nobody_there_is_said() -> None:
    with served(False) as (_, port):
        pass
    with pytest.raises(WorkloadError, match="Connection refused"):
        count_answers("127.0.0.1", port, Request(), 1, 0.0, 0.2)
