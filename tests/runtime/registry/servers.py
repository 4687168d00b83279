"""Registries for tests, on loopback: Debian's docker-registry, and a server before it that fails as it is told."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.docker_registry import docker_registry
from runtime.errors import PrerequisiteError


@contextmanager
def debian_registry(folder: Path, more: str = "") -> Iterator[str]:
    """Run docker-registry with its data in ``folder``, and yield its host and port. The test is skipped without it."""
    with ExitStack() as undo:
        try:
            address = undo.enter_context(docker_registry(folder, more))
        except PrerequisiteError as error:
            pytest.skip(str(error))
        yield address


class Exchange(BaseHTTPRequestHandler):
    """One request to a faulty server, and what can become of it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Faulty

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        self.length = length
        if not self.server.rule(self):
            self.forward()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_one

    def upstream(self) -> tuple[int, dict[str, str], bytes]:
        """The answer of the registry behind."""
        connection = http.client.HTTPConnection(self.server.behind, timeout=30)
        sent = {
            name: value for name, value in self.headers.items() if name not in ("Host", "Authorization", "Connection")
        }
        connection.request(self.command, self.path, self.rfile.read(self.length) if self.length else None, sent)
        answer = connection.getresponse()
        body = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name not in ("Date", "Connection")}
        connection.close()
        if "Location" in headers:
            headers["Location"] = headers["Location"].replace(f"//{self.server.behind}/", f"//{self.server.host}/")
        return answer.status, headers, body

    def forward(self) -> None:
        self.answer(*self.upstream())

    def answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.begin(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def cut(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        pass


Rule = Callable[[Exchange], bool]


class Faulty(ThreadingHTTPServer):
    """A server that passes on what ``rule`` does not take, and keeps in mind what it was asked."""

    daemon_threads = True

    def __init__(self, behind: str = "", rule: Rule = lambda _: False) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.behind, self.rule = behind, rule
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.host = f"127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is what is tested here."""

    def asked(self, method: str) -> list[str]:
        return [path for one, path, _ in self.requests if one == method]


@contextmanager
def faulty(behind: str = "", rule: Rule = lambda _: False) -> Iterator[Faulty]:
    """Run a faulty server before the registry at ``behind``."""
    with Faulty(behind, rule) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that does to each connection what ``answer`` does, and yield its host and port."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve_one(connection: socket.socket) -> None:
        with connection, suppress(OSError, ssl.SSLError):
            answer(connection)

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listening.accept()
                threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
