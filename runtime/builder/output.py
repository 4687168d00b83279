"""Show a build step's output line by line as it comes, and keep its end for an error."""

from __future__ import annotations

import codecs
import os
import re
from collections import deque
from collections.abc import Callable

from runtime.output import printable

KEPT_LINES = 20
# The limits of one line and of a whole step. The end of a longer output is kept all the same.
LINE_CHARACTERS = 1000
SHOWN_CHARACTERS = 1 << 20


def follow(descriptor: int, show: Callable[[str], None]) -> tuple[str, ...]:
    """Read ``descriptor`` to its end, give ``show`` every line with a letter in it, and return the last KEPT_LINES."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tail: deque[str] = deque(maxlen=KEPT_LINES)
    shown, rest = 0, ""
    while True:
        chunk = os.read(descriptor, 1 << 16)
        *lines, rest = re.split(r"[\r\n]", rest + decoder.decode(chunk, final=not chunk))
        if not chunk or len(rest) > LINE_CHARACTERS:
            lines, rest = [*lines, rest], ""
        for line in filter(None, (printable(line)[:LINE_CHARACTERS].rstrip() for line in lines)):
            tail.append(line)
            if shown <= SHOWN_CHARACTERS < shown + len(line):
                show(f"(more than {SHOWN_CHARACTERS >> 20} MiB of output: the rest is not shown)")
            shown += len(line)
            if shown <= SHOWN_CHARACTERS:
                show(line)
        if not chunk:
            return tuple(tail)
