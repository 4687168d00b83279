"""Whole lines of a stream whose bytes come in pieces."""

from __future__ import annotations

from collections.abc import Callable

# A longer line is given in parts, each after the prefix.
_LINE_BYTES = 4096


class Lines:
    """Gives ``take`` the lines of a stream once they are whole, each after the ``prefix``."""

    def __init__(self, take: Callable[[list[bytes]], None], prefix: str = "") -> None:
        self._take, self._prefix = take, prefix.encode()
        self._pending = b""

    def feed(self, data: bytes) -> None:
        """Take what has come; nothing is the end of the stream."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        while len(self._pending) > _LINE_BYTES:
            lines.append(self._pending[:_LINE_BYTES])
            self._pending = self._pending[_LINE_BYTES:]
        if not data and self._pending:
            lines, self._pending = [self._pending], b""
        if lines:
            self._take([self._prefix + line for line in lines])
