"""What the probes' program prints, read: it comes out of a rung, and may be anything."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from msgspec import Struct

_MOST_BYTES = 4 << 20
State = Literal["begun", "ended", "hung", "crashed"]
_LINE = re.compile(
    r"(?:^|\s)(?:(begin|hang) ([a-z-]{1,64})|end ([a-z-]{1,64}) (-|E[A-Z0-9]{1,20}) ([!-~]{1,200})"
    r"|crash ([a-z-]{1,64}) ([0-9]{1,3})|(done) ([0-9a-f]{8}))\s*$"
)


class Trace(Struct, frozen=True):
    """How far an attempt came: ``errno`` is what the kernel answered ("" where it did what it tried), ``got`` what it
    got, and ``signal`` what it crashed by."""

    name: str
    state: State
    errno: str = ""
    got: str = ""
    signal: int = 0


class Printed(Struct, frozen=True):
    """All that was printed: the attempts by name, and whether the program came to its end."""

    traces: dict[str, Trace]
    done: bool


def read_printed(log: Path) -> str:
    """Return the beginning of a log; "" while there is none."""
    try:
        with log.open("rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""


def parse_lines(text: str, names: Collection[str], token: str) -> Printed:
    """Return what a log says of these attempts; lines that are none of the program's are left out, as a console has
    more to say. What is said of an attempt first counts."""
    known, traces, done = frozenset(names), dict[str, Trace](), False
    for line in text.splitlines():
        found = _LINE.search(line[:512])
        if found is None:
            continue
        kind, one, ended, errno, got, crashed, number, last, said = found.groups()
        done = done or (last == "done" and said == token)
        name = one or ended or crashed
        if name not in known or (name in traces and traces[name].state != "begun"):
            continue
        if kind == "begin":
            traces[name] = Trace(name, "begun")
        elif kind == "hang":
            traces[name] = Trace(name, "hung")
        elif crashed:
            traces[name] = Trace(name, "crashed", signal=int(number))
        else:
            traces[name] = Trace(name, "ended", errno.removeprefix("-"), "" if got == "-" else got)
    return Printed(traces, done)
