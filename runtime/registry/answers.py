"""An answer of HTTP, whose waits and lengths have limits.

``http.client`` reads heads and bodies; its reads go through a ``_Metered`` stream, which ends what is slow or endless.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from runtime.registry.addresses import shown, words_of
from runtime.registry.errors import CutError, RegistryError

# A head must be there so many seconds after the request; then, of a body, LEAST_BYTES in each so many seconds of
# waiting. What we ourselves take to unpack does not count.
HEAD_S = 60.0
STALL_S = 30.0
LEAST_BYTES = 30 << 10
ATTEMPTS = 5
PAUSE_S = 0.25
BLOCK_BYTES = 1 << 18
# More than a head with all that is read along with its end.
_HEAD_BYTES = 1 << 20
# The rest of a body that is read, rather than its connection given up.
_DRAINED_BYTES = 1 << 16


class Limits(Struct, frozen=True):
    """How patient a client is, in seconds, and how often it tries. Tests are less so."""

    head_s: float = HEAD_S
    stall_s: float = STALL_S
    least_bytes: int = LEAST_BYTES
    attempts: int = ATTEMPTS
    pause_s: float = PAUSE_S


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


class Response(http.client.HTTPResponse):
    """A response that is read through a _Metered stream, and whose head must come within a time."""

    def __init__(self, limits: Limits, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> None:
        super().__init__(sock, debuglevel, method)
        self.fp.close()
        self._limits = limits
        self.metered = _Metered(sock, limits.head_s)
        self.fp = io.BufferedReader(self.metered, BLOCK_BYTES)

    def begin(self) -> None:
        super().begin()
        self.metered.restrict(self._limits.stall_s, self._limits.least_bytes)


class Answer:
    """A server's answer, whose body is still to be read. It is a context, which gives the connection back, or up."""

    def __init__(self, url: str, response: Response, done: Callable[[bool], None]) -> None:
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
        while chunk := self.read1(min(BLOCK_BYTES, most_bytes + 1 - found.tell())):
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
            raise CutError(f"{shown(self.url)}: {words_of(error)}") from error

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
