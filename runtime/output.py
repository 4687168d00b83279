"""This module keeps a workload's output in bounded logs and removes what a terminal would interpret from its text.

A workload decides what it writes and how much. Its standard output is a pipe and never the log itself, which it could
make as long as it likes. The reader of the pipe passes the output on to a BoundedLog.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# The beginning and the end of an instance's output are stored.
HEAD_BYTES = 1 << 20
TAIL_BYTES = 1 << 20
# These limit what an error quotes of the output.
QUOTED_LINES = 20
QUOTED_CHARACTERS = 400
_QUOTED_BYTES = 1 << 16
LONGEST_LINE = 2000  # characters
# ECMA-48: control sequences (CSI), strings (OSC, DCS, SOS, PM, APC) up to their end, then the shorter ones.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)


def printable(text: str) -> str:
    """Remove escape sequences and control characters (of ECMA-48 and of Unicode) from the text.

    Line breaks and tabs stay. Lines longer than LONGEST_LINE lose their middle.
    """
    if text.isascii() and text.isprintable() and len(text) <= LONGEST_LINE:
        return text
    text = "".join(c for c in _ESCAPE.sub("", text) if c in "\n\t" or c.isprintable())
    return "\n".join(map(_without_middle, text.split("\n")))


def _without_middle(line: str) -> str:
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


def shortened(line: str, characters: int = QUOTED_CHARACTERS) -> str:
    """Return the line as an error or a report quotes it: printable, and cut with a mark where it is too long."""
    line = printable(line[: 4 * characters]).replace("\n", " ")
    return line if len(line) <= characters else f"{line[:characters]} ..."


def last_lines(path: Path, lines: int = QUOTED_LINES) -> list[str]:
    """Return the last lines of a file of any size that a workload has written, as an error quotes them."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - _QUOTED_BYTES))
            text = stream.read(_QUOTED_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return []
    found = text.removesuffix("\n").split("\n") if text else []
    return [shortened(line.rstrip("\r")) for line in found[-lines:]]


class BoundedLog:
    """A file that keeps the first ``head`` and the last ``tail`` bytes written to it, and says how many it lacks.

    Between writes it is at most ``head`` + 2 ``tail`` bytes and one line long. It is valid at any moment, so a kill
    loses nothing that was written. What the file already contains counts. Its methods raise OSError, never
    TestbedError.
    """

    def __init__(self, path: Path, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> None:
        self.path = path
        self.dropped = 0
        self._head, self._tail = head, tail
        self._marker = b""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._size = os.lseek(self._file, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        """The size is the current length of the file, in bytes."""
        return self._size

    @property
    def closed(self) -> bool:
        return self._file < 0

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._file, rest, self._size)
            self._size += written
            rest = rest[written:]
            if self._size > self._head + 2 * self._tail:
                self._drop()

    def close(self) -> None:
        """Cut the file down to its head and tail and close it. Further calls do nothing."""
        if self._file < 0:
            return
        try:
            if self._size > self._head + self._tail + len(self._marker):
                self._drop()
        finally:
            os.close(self._file)
            self._file = -1

    def _drop(self) -> None:
        kept = os.pread(self._file, self._tail, self._size - self._tail)
        kept = kept[kept.find(b"\n", 0, len(kept) // 2) + 1 :]  # starts at the beginning of a line, if one is near
        self.dropped += self._size - self._head - len(self._marker) - len(kept)
        self._marker = f"\n[... {self.dropped} bytes are not stored here ...]\n".encode()
        end = self._marker + kept
        os.pwrite(self._file, end, self._head)
        self._size = self._head + len(end)
        os.ftruncate(self._file, self._size)
