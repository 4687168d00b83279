"""HTTP as a client of registries needs it: over kept connections, with limits on all that a server can do.

A server may be slow, endless, cut connections, answer 5xx or redirect. So each wait has a limit, a body must keep a
least rate, redirects are few and take no credentials to another host, and what may work a little later is tried again.
``http.client`` reads heads and bodies; its reads go through a ``_Metered`` stream, which has the limits.
"""

from __future__ import annotations

import http.client
import io
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from runtime import __version__
from runtime.errors import in_words
from runtime.output import shortened
from runtime.registry.errors import CutError, RegistryError
from runtime.registry.proxies import proxy_for

CONNECT_S = 20.0
# A head must be there so many seconds after the request; then, of a body, LEAST_BYTES in each so many seconds of
# waiting. What we ourselves take to unpack does not count.
HEAD_S = 60.0
STALL_S = 30.0
LEAST_BYTES = 30 << 10
ATTEMPTS = 5
_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 20.0
REDIRECTS = 5
_REDIRECTIONS = (301, 302, 303, 307, 308)
# distribution-spec and RFC 9110: what a registry may get over. A 500 is often a storage's timeout.
_PASSING = (408, 429, 500, 502, 503, 504)
_BLOCK_BYTES = 1 << 18
# More than a head with all that is read along with its end.
_HEAD_BYTES = 1 << 20
# The rest of a body that is read, rather than its connection given up.
_DRAINED_BYTES = 1 << 16
# Where engines keep the certificates of a registry's own authority (containers-certs.d(5)).
CERTIFICATES = ("/etc/containers/certs.d", "/etc/docker/certs.d")
_USER_AGENT = f"testbed/{__version__}"


class Part(Struct, frozen=True):
    """A body: so many bytes of a file from an offset on."""

    file: io.BufferedReader
    offset: int
    size: int


Body: TypeAlias = bytes | Part | None


class Limits(Struct, frozen=True):
    """How patient a client is, in seconds, and how often it tries. Tests are less so."""

    head_s: float = HEAD_S
    stall_s: float = STALL_S
    least_bytes: int = LEAST_BYTES
    attempts: int = ATTEMPTS
    pause_s: float = _PAUSE_S


def pause_s(attempt: int, asked: str, first_s: float, chance: Callable[[], float] = random.random) -> float:
    """Return how long to wait after the attempt with this number (from 1): twice as long each time, give or take a
    quarter, or what the server's ``Retry-After`` asks, up to 20 seconds."""
    if asked.isascii() and asked.isdigit():
        return min(float(asked[:6]), _LONGEST_PAUSE_S)
    return min(first_s * float(1 << (attempt - 1)) * (0.75 + 0.5 * chance()), _LONGEST_PAUSE_S)


class _Metered(io.RawIOBase):
    """A socket's stream whose reads together wait at most ``limit_s`` for each ``least`` bytes (0: for all bytes)."""

    def __init__(self, connected: socket.socket, limit_s: float) -> None:
        self._socket = connected
        self._open = connected.makefile("rb", buffering=0)  # http.client closes the socket when no request is to follow
        self._waited_s, self._bytes, self._limit_s, self._least = 0.0, 0, limit_s, 0

    def restrict(self, limit_s: float, least: int) -> None:
        self._waited_s, self._bytes, self._limit_s, self._least = 0.0, 0, limit_s, least

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left_s = self._limit_s - self._waited_s
        slow = f"less than {self._least} bytes" if self._least else "no answer"
        if left_s <= 0:
            raise TimeoutError(f"{slow} in {self._limit_s:g} s")
        began = time.monotonic()
        self._socket.settimeout(left_s)
        try:
            count = self._socket.recv_into(buffer)
        except TimeoutError as error:
            raise TimeoutError(f"{slow} in {self._limit_s:g} s") from error
        self._waited_s += time.monotonic() - began
        self._bytes += count
        if self._least and self._bytes >= self._least:
            self._waited_s, self._bytes = 0.0, 0
        if not self._least and self._bytes > _HEAD_BYTES:
            raise OSError("its answer has no end")
        return count

    def close(self) -> None:
        self._open.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response that is read through a _Metered stream, and whose head must come within a time."""

    def __init__(self, limits: Limits, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> None:
        super().__init__(sock, debuglevel, method)
        self.fp.close()
        self._limits = limits
        self.metered = _Metered(sock, limits.head_s)
        self.fp = io.BufferedReader(self.metered, _BLOCK_BYTES)

    def begin(self) -> None:
        super().begin()
        self.metered.restrict(self._limits.stall_s, self._limits.least_bytes)


class Answer:
    """A server's answer, whose body is still to be read. It is a context, which gives the connection back, or up."""

    def __init__(self, url: str, response: _Response, done: Callable[[bool], None]) -> None:
        self.url, self.status = url, response.status
        self._response = response
        self._done: Callable[[bool], None] | None = done

    def header(self, name: str) -> str:
        """Return a header, empty without it."""
        return self._response.headers.get(name, "")

    @property
    def size(self) -> int | None:
        """The bytes that are still to come, where the head says so."""
        return self._response.length

    def read(self, most_bytes: int) -> bytes:
        """Return the whole body. Raises RegistryError if it is longer than ``most_bytes``, CutError if it is cut."""
        found = io.BytesIO()
        while chunk := self.read1(min(_BLOCK_BYTES, most_bytes + 1 - found.tell())):
            found.write(chunk)
            if found.tell() > most_bytes:
                raise RegistryError(f"{shown(self.url)}: the answer is longer than {most_bytes} bytes")
        if self.size:
            raise CutError(f"{shown(self.url)}: the connection ended within the answer")
        return found.getvalue()

    def read1(self, most_bytes: int) -> bytes:
        """Return the next bytes, none at the end. Raises CutError."""
        try:
            return self._response.read1(most_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CutError(f"{shown(self.url)}: {_words(error)}") from error

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back, if the body's end is near, or else close it."""
        if self._done is None:
            return
        done, self._done = self._done, None
        whole = self._response.isclosed()
        with suppress(RegistryError):
            if not whole and self.size is not None and self.size <= _DRAINED_BYTES:
                self.read(_DRAINED_BYTES)
                whole = True
        self._response.close()
        done(whole and not self._response.will_close)


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
    ) -> _Response:
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
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock.settimeout(self.limits.head_s)
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had read all
            connection.request(method, target, _reader(body), sent)
        response = connection.getresponse()
        assert isinstance(response, _Response)
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
                at_host, at_port, timeout=CONNECT_S, context=context, blocksize=_BLOCK_BYTES
            )
            if proxy:
                tunnel = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
                connection.set_tunnel(host, port or 443, tunnel)
        else:
            connection = http.client.HTTPConnection(at_host, at_port, timeout=CONNECT_S, blocksize=_BLOCK_BYTES)
        connection.response_class = partial(_Response, self.limits)  # type: ignore[assignment]
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


def origin(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of an address: what credentials are for (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"https": 443}.get(parts.scheme, 80)


def check_address(target: str, source: str) -> None:
    """Raise RegistryError unless a server at ``source`` may send us to ``target``: never from HTTPS to HTTP."""
    try:
        scheme, host, _ = origin(target)
    except ValueError:
        scheme = host = ""
    if not host or scheme not in ("http", "https") or not target.isascii() or not target.isprintable() or " " in target:
        raise RegistryError(f"{shown(source)}: sends us on to {shortened(target)!r}, which is not an address of HTTP")
    if scheme == "http" and urlsplit(source).scheme == "https":
        raise RegistryError(f"{shown(source)}: sends us on to {shown(target)}, which is not encrypted")


def shown(url: str) -> str:
    """Return an address for a person: without the query and the user, which may be secret."""
    parts = urlsplit(url)
    return shortened(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def explain(error: Exception, method: str, url: str) -> tuple[str, str]:
    """Return the message and the hint for a request that got no answer."""
    hint = ""
    if isinstance(error, ssl.SSLCertVerificationError):
        place = f"{CERTIFICATES[0]}/{urlsplit(url).netloc}/ca.crt"
        hint = f"add its authority's certificate to the system's, or as {place}"
    elif isinstance(error, ssl.SSLError):
        hint = "if it speaks plain HTTP, say so: --plain-http, or `insecure = true` in registries.conf"
    elif isinstance(error, ConnectionRefusedError | socket.gaierror):
        hint = "is that its address, and does it run? Proxies come from https_proxy, http_proxy and no_proxy"
    return f"{method} {shown(url)}: {_words(error)}", hint


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection ended without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended within the answer"
    return shortened(in_words(error) or type(error).__name__)
