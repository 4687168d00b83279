"""Reads HTTP/1.1 responses as they arrive (RFC 9112): enough to know the status and where one ends."""

from __future__ import annotations

import re

# Of the headers, of the line before a chunk, and of what may follow the last one.
MAXIMUM_HEAD_BYTES = 65536
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_LENGTH_DIGITS = 15


class MalformedResponse(ValueError):
    """The server's bytes are not an HTTP/1.x response."""


class ResponseReader:
    """Takes the bytes of one response in pieces; ``status`` and ``keep_alive`` are set once it is complete.

    It stores no more than the headers and the last piece, however long the body is.
    ``surplus`` then says whether more came than belongs to it, which nobody has asked for: such a server answers
    requests that were not made, and its times cannot be told from each other.
    ``bodiless`` is for answers to HEAD, which carry the headers of a body and none of it.
    """

    __slots__ = ("_buffer", "_body_at", "_length", "_chunked", "_bodiless", "status", "keep_alive", "surplus")

    def __init__(self, bodiless: bool = False) -> None:
        self._bodiless = bodiless
        self.reset()

    def reset(self) -> None:
        """Forget all, ready for the connection's next response."""
        self._buffer = b""
        self._body_at = -1
        self._length: int | None = 0
        self._chunked = False
        self.status = 0
        self.keep_alive = True
        self.surplus = False

    def feed(self, data: bytes) -> bool:
        """Take ``data`` in; whether the response is complete now. Raises MalformedResponse."""
        if self._body_at >= 0:
            self._let_go()
        self._buffer = self._buffer + data if self._buffer else data
        while self._body_at < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAXIMUM_HEAD_BYTES:
                    raise MalformedResponse("the headers do not end")
                return False
            self._read_head(self._buffer[:end].lower())
            if 100 <= self.status < 200:
                self._buffer = self._buffer[end + 4 :]
                continue
            self._body_at = end + 4
        if self._chunked:
            return self._is_last_chunk_in()
        if self._length is None:
            return False
        return self._ends_at(self._body_at + self._length)

    def close(self) -> bool:
        """The server closed the connection; whether that is how this response ends (RFC 9112, 6.3)."""
        self.keep_alive = False
        return self._body_at >= 0 and not self._chunked and self._length is None

    @property
    def untouched(self) -> bool:
        """Whether no byte of a response has arrived yet."""
        return not self._buffer and self._body_at < 0

    def _let_go(self) -> None:
        """Forget the part of the body that is here: of a chunk, what is to come is a chunk of its own."""
        here = self._buffer[self._body_at :]
        self._body_at = 0
        if not self._chunked:
            self._length = None if self._length is None else self._length - len(here)
            self._buffer = b""
            return
        line, end, data = here.partition(b"\r\n")
        size = _chunk_size(line) if end else 0
        if size:
            gone = min(len(data), size - 1)
            here = b"%x\r\n%b" % (size - gone, data[gone:])
        elif len(here) > MAXIMUM_HEAD_BYTES:
            raise MalformedResponse("a chunk's line, or what follows the last chunk, does not end")
        self._buffer = here

    def _read_head(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        version, _, rest = lines[0].partition(b" ")
        if version not in (b"http/1.1", b"http/1.0") or not rest[:3].isdigit():
            raise MalformedResponse(f"not a status line: {lines[0][:80]!r}")
        self.status = int(rest[:3])
        headers = {name.rstrip(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        connection = headers.get(b"connection", b"")
        self.keep_alive = b"keep-alive" in connection if version == b"http/1.0" else b"close" not in connection
        self._chunked = False
        if self._bodiless or self.status in (204, 304) or self.status < 200:
            self._length = 0
        elif b"chunked" in headers.get(b"transfer-encoding", b""):
            self._chunked = True
        elif b"content-length" in headers:
            length = headers[b"content-length"]
            if not length.isdigit() or len(length) > _LENGTH_DIGITS:
                raise MalformedResponse(f"Content-Length: {length[:80]!r}")
            self._length = int(length)
        else:
            self._length = None

    def _is_last_chunk_in(self) -> bool:
        """Step over the chunks that are wholly here, keeping the next one's position in ``_body_at``."""
        while True:
            end = self._buffer.find(b"\r\n", self._body_at)
            if end < 0:
                return False
            size = _chunk_size(self._buffer[self._body_at : end])
            if size == 0:
                # Trailers, if there are any, end with an empty line as the headers do.
                last = self._buffer.find(b"\r\n\r\n", end)
                return last >= 0 and self._ends_at(last + 4)
            if len(self._buffer) < end + 2 + size + 2:
                return False
            self._body_at = end + 2 + size + 2

    def _ends_at(self, end: int) -> bool:
        """Whether the response, which ends there, is in; what lies behind is surplus."""
        if len(self._buffer) > end:
            self.surplus = True
            self.keep_alive = False
        return len(self._buffer) >= end


def _chunk_size(line: bytes) -> int:
    """The size that the line before a chunk gives (RFC 9112, section 7.1). Raises MalformedResponse."""
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise MalformedResponse(f"chunk size: {line[:20]!r}")
    return int(match[1], 16)
