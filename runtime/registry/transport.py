"""HTTP as a client of registries needs it: over kept connections, with limits on all that a server can do.

A server may be slow, endless, cut connections, answer 5xx or redirect. So each wait has a limit, a body must keep a
least rate (runtime.registry.answers), redirects are few and take no credentials to another host, and what may work a
little later is tried again.
"""

from __future__ import annotations

import http.client
import io
import os
import random
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from runtime import __version__
from runtime.registry.addresses import CERTIFICATES, check_address, explain, origin, shown
from runtime.registry.answers import BLOCK_BYTES, Answer, Limits, Response
from runtime.registry.errors import CutError, RegistryError
from runtime.registry.proxies import proxy_for

CONNECT_S = 20.0
_LONGEST_PAUSE_S = 20.0
REDIRECTS = 5
_REDIRECTIONS = (301, 302, 303, 307, 308)
# distribution-spec and RFC 9110: what a registry may get over. A 500 is often a storage's timeout.
_PASSING = (408, 429, 500, 502, 503, 504)
_USER_AGENT = f"testbed/{__version__}"


class Part(Struct, frozen=True):
    """A body: so many bytes of a file from an offset on."""

    file: io.BufferedReader
    offset: int
    size: int


Body: TypeAlias = bytes | Part | None


def pause_s(attempt: int, asked: str, first_s: float, chance: Callable[[], float] = random.random) -> float:
    """Return how long to wait after the attempt with this number (from 1): twice as long each time, give or take a
    quarter, or what the server's ``Retry-After`` asks, up to 20 seconds."""
    if asked.isascii() and asked.isdigit():
        return min(float(asked[:6]), _LONGEST_PAUSE_S)
    return min(first_s * float(1 << (attempt - 1)) * (0.75 + 0.5 * chance()), _LONGEST_PAUSE_S)


class Transport:
    """Connections to servers, kept between requests. Any thread may use it; ``close`` ends what others do with it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._busy: set[http.client.HTTPConnection] = set()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._closed = threading.Event()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. A thread that waits for one gets a CutError."""
        self._closed.set()
        with self._lock:
            ended = [*self._busy, *(one for kept in self._idle.values() for one in kept)]
            self._idle.clear()
        for connection in ended:
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            if connection not in self._busy:
                connection.close()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        authorization: str = "",
        body: Body = None,
        attempts: int = 0,
    ) -> Answer:
        """Return the answer to a request, after redirects, whatever its status.

        What may pass is tried ``attempts`` times (0: as often as the limits say), then an answer is returned as it is.
        With 1 the request is never sent twice.
        Raises RegistryError without an answer, for a redirect from HTTPS to HTTP, and for too many of them.
        """
        attempts = attempts or self.limits.attempts
        for attempt in range(1, attempts + 1):
            asked = ""
            try:
                answer = self._redirected(method, url, headers, authorization, body, attempts > 1)
                if answer.status not in _PASSING or attempt == attempts:
                    return answer
                asked = answer.header("Retry-After")
                answer.close()
            except CutError as error:
                is_nobody = isinstance(error.__cause__, ConnectionRefusedError | socket.gaierror)
                if attempt == attempts or self._closed.is_set() or (is_nobody and attempt > 1):
                    raise
            self.wait(attempt, asked)
        raise AssertionError("there is at least one attempt")

    def wait(self, attempt: int, asked: str = "") -> None:
        """Wait before the next attempt. Raises CutError if the transport is closed meanwhile."""
        if self._closed.wait(pause_s(attempt, asked, self.limits.pause_s)):
            raise CutError("interrupted")

    def _redirected(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str, body: Body, again: bool
    ) -> Answer:
        here, path = url, [shown(url)]
        while True:
            own = {"Authorization": authorization} if authorization and origin(here) == origin(url) else {}
            answer = self._send(method, here, {**headers, **own}, body, again)
            if answer.status not in _REDIRECTIONS or not answer.header("Location"):
                return answer
            if method not in ("GET", "HEAD") and answer.status not in (307, 308):
                return answer
            target = urljoin(here, answer.header("Location"))
            answer.close()
            path.append(shown(target))
            check_address(target, here)
            if body and origin(target) != origin(url):
                raise RegistryError(f"{path[0]}: sends what is for it on to another host, {path[-1]}")
            if len(path) > REDIRECTS + 1:
                raise RegistryError(f"{path[0]}: more than {REDIRECTS} redirects, the last one to {path[-1]}")
            here = target

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body, again: bool) -> Answer:
        """Send one request, and read the head of the answer. If that may be done ``again``, a kept connection that the
        server has closed meanwhile is replaced."""
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc)
        while True:
            connection, is_kept = self._take(key)
            try:
                response = self._ask(connection, method, url, headers, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._drop(connection)
                if is_kept and again and not isinstance(error, TimeoutError) and not self._closed.is_set():
                    continue
                kind = RegistryError if isinstance(error, ssl.SSLError) else CutError
                raise kind(*explain(error, method, url)) from error
            except BaseException:
                self._drop(connection)
                raise
            return Answer(url, response, lambda whole, one=connection: self._give(key, one, whole))  # type: ignore[misc]

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
    ) -> Response:
        proxy = proxy_for(url)
        parts = urlsplit(url)
        target = url if proxy and parts.scheme == "http" else (parts.path or "/") + (parts.query and f"?{parts.query}")
        sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
        if proxy and proxy.authorization and parts.scheme == "http":
            sent["Proxy-Authorization"] = proxy.authorization
        size = body.size if isinstance(body, Part) else len(body or b"")
        if size or method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = str(size)
        if connection.sock is None:
            connection.connect()
            assert connection.sock is not None
            if self._closed.is_set():
                raise ConnectionAbortedError("interrupted")
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock.settimeout(self.limits.head_s)
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had read all
            connection.request(method, target, _reader(body), sent)
        response = connection.getresponse()
        assert isinstance(response, Response)
        return response

    def _take(self, key: tuple[str, str]) -> tuple[http.client.HTTPConnection, bool]:
        if self._closed.is_set():
            raise CutError("interrupted")
        with self._lock:
            kept = self._idle.get(key)
            connection = kept.pop() if kept else None
            is_kept = connection is not None
            if connection is None:
                connection = self._connection(*key)
            self._busy.add(connection)
        return connection, is_kept

    def _give(self, key: tuple[str, str], connection: http.client.HTTPConnection, whole: bool) -> None:
        if not whole or self._closed.is_set():
            self._drop(connection)
            return
        with self._lock:
            self._busy.discard(connection)
            self._idle.setdefault(key, []).append(connection)

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _connection(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        parts = urlsplit(f"{scheme}://{netloc}")
        proxy = proxy_for(f"{scheme}://{netloc}")
        host, port = parts.hostname or "", parts.port
        at_host, at_port = (proxy.host, proxy.port) if proxy else (host, port)
        connection: http.client.HTTPConnection
        if scheme == "https":
            context = self._context(netloc)
            connection = http.client.HTTPSConnection(
                at_host, at_port, timeout=CONNECT_S, context=context, blocksize=BLOCK_BYTES
            )
            if proxy:
                tunnel = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
                connection.set_tunnel(host, port or 443, tunnel)
        else:
            connection = http.client.HTTPConnection(at_host, at_port, timeout=CONNECT_S, blocksize=BLOCK_BYTES)
        connection.response_class = partial(Response, self.limits)  # type: ignore[assignment]
        return connection

    def _context(self, netloc: str) -> ssl.SSLContext:
        """Return the context that trusts the system's authorities, and those that are kept for this host alone."""
        context = self._contexts.get(netloc)
        if context is None:
            context = self._contexts[netloc] = ssl.create_default_context()
            for folder in CERTIFICATES:
                for file in sorted(Path(folder, netloc).glob("*.crt")):
                    with suppress(OSError, ssl.SSLError):
                        context.load_verify_locations(file)
        return context


class _PartReader:
    """The bytes of a Part as a file, for http.client to read."""

    def __init__(self, part: Part) -> None:
        self._part, self._at = part, part.offset

    def read(self, most_bytes: int) -> bytes:
        chunk = os.pread(
            self._part.file.fileno(), min(most_bytes, self._part.offset + self._part.size - self._at), self._at
        )
        self._at += len(chunk)
        return chunk


def _reader(body: Body) -> Any:
    return _PartReader(body) if isinstance(body, Part) else body
