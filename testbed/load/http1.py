"""Reads HTTP/1.1 responses as they arrive (RFC 9112): enough to know the status and where one ends.

The load generator has a reader of its own, in C (generator/http1.c); this one is for those who ask seldom. httptools
parses for it. What it leaves open is decided here: how much may come that does not end, what is surplus, and
what becomes of responses that end with their headers or with the connection.
"""

from __future__ import annotations

from contextlib import suppress

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

# Of the headers, of the line before a chunk, and of what may follow the last one.
MAXIMUM_HEAD_BYTES = 65536
_START = b"HTTP/1."


class MalformedResponse(ValueError):
    """The server's bytes are not an HTTP/1.x response."""


class ResponseReader:
    """Takes the bytes of one response in pieces; ``status`` and ``keep_alive`` are set once it is complete.

    It stores no more than the headers and the piece in which they end, however long the body is.
    ``surplus`` then says whether more came than belongs to it, which nobody has asked for: such a server answers
    requests that were not made, and its times cannot be told from each other. Empty lines are no answer.
    ``bodiless`` is for answers to HEAD, which carry the headers of a body and none of it.
    A reader and its parser refer to each other until a ``reset`` before the response's end, which is due when the
    reader is given up.
    """

    __slots__ = (
        "_bodiless", "_parser", "_head", "_has_body", "_unended_bytes", "_complete", "status", "keep_alive", "surplus",
    )  # fmt: skip

    def __init__(self, bodiless: bool = False) -> None:
        self._bodiless = bodiless
        self._complete = self.keep_alive = False
        self.reset()

    def reset(self) -> None:
        """Forget all, ready for the connection's next response."""
        if self._bodiless or not (self._complete and self.keep_alive):
            self._parser: HttpResponseParser | None = None  # else it stands before the next response already
        self._head = b""
        self._has_body = False
        self._unended_bytes = 0
        self._complete = False
        self.status = 0
        self.keep_alive = True
        self.surplus = False

    def feed(self, data: bytes) -> bool:
        """Take ``data`` in; whether the response is complete now. Raises MalformedResponse."""
        if not self._has_body:
            self._head += data
        if self._parser is None:
            self._parser = HttpResponseParser(self)
        self._unended_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if not self._complete:
                started = self._head.startswith(_START)
                reason = str(error) if started else f"not a status line: {self._head[:80]!r}"
                raise MalformedResponse(reason) from error
            self.surplus = True
        except HttpParserUpgrade as error:
            raise MalformedResponse("a change of the protocol that nobody asked for") from error
        if self._complete:
            self.keep_alive = self.keep_alive and not self.surplus
        elif self._unended_bytes > MAXIMUM_HEAD_BYTES:
            raise MalformedResponse("the headers, a chunk's line, or what follows the last chunk, do not end")
        return self._complete

    def close(self) -> bool:
        """Note that the server closed the connection; whether that is how this response ends (RFC 9112, 6.3)."""
        ends = not self._complete and _Headers(self._head).body_ends_with_connection
        if ends:
            self._end()
        self.keep_alive = False
        return ends

    @property
    def untouched(self) -> bool:
        """Whether no byte of a response has arrived yet."""
        return not self._head

    # What the parser calls while it is fed:

    def on_message_begin(self) -> None:
        """The first byte of a response; of a chunk, ``on_chunk_header``. A complete one has no more of either."""
        if self._complete:
            self.surplus = True

    on_chunk_header = on_message_begin

    def on_headers_complete(self) -> None:
        """The empty line after the headers, with which an answer to HEAD ends."""
        if not self._head.startswith(_START):
            raise MalformedResponse  # the parser knows other protocols too; ``feed`` says what is wrong
        if self._bodiless and not self._complete:
            self._end()
            # The parser takes a connection for lost when no length is given, which this answer does not need.
            self.keep_alive = self.keep_alive or _Headers(self._head).keep_alive

    def on_body(self, body: bytes) -> None:
        """A part of the body, without what frames its chunks."""
        self._has_body = True
        self._unended_bytes = 0
        if self._complete:
            self.surplus = True

    def on_message_complete(self) -> None:
        """The last byte of a response."""
        if not self._complete:
            self._end()

    def _end(self) -> None:
        """The response is complete, unless it is one that the final one follows (RFC 9110, 15.2)."""
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        self.keep_alive = self._parser.should_keep_alive()
        self._complete = not 100 <= self.status < 200


class _Headers:
    """What the headers of the last response in ``data`` say of its end, and of the connection after it."""

    def __init__(self, data: bytes) -> None:
        self.on_message_begin()
        parser = HttpResponseParser(self)
        with suppress(HttpParserError, HttpParserUpgrade):
            parser.feed_data(data)
        is_old = parser.get_http_version() == "1.0"
        self.keep_alive = b"keep-alive" in self._options if is_old else b"close" not in self._options
        self.body_ends_with_connection = self._ended and not self._has_framing

    def on_message_begin(self) -> None:
        self._options: list[bytes] = []
        self._has_framing = self._ended = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name, words = name.lower(), [word.strip() for word in value.lower().split(b",")]
        if name == b"connection":
            self._options += words
        elif name == b"content-length":
            self._has_framing = True
        elif name == b"transfer-encoding" and any(words):
            self._has_framing = [word for word in words if word][-1] == b"chunked"  # else RFC 9112, 6.3

    def on_headers_complete(self) -> None:
        self._ended = True
