"""Reads what the services of a project have written, and goes on reading while they write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.lease import STATE_ROOT, is_held
from runtime.output import HEAD_BYTES, LONGEST_LINE, TAIL_BYTES
from testbed.projects.record import Project

# A log is bounded (runtime.output.BoundedLog): its head, up to two tails, and what says how much is missing.
_LARGEST_BYTES = HEAD_BYTES + 3 * TAIL_BYTES
_PIECE_BYTES = 1 << 16
_LOOK_S = 0.1

# Takes the name of an instance and a line of it.
Write = Callable[[str, str], None]


class _Reader:
    """What is new in a log, in whole lines. One that became shorter has lost its middle: its end is read on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._begun = b""

    def read(self, *, to_end: bool = False) -> list[str]:
        """Return the lines that are new; ``to_end``, also the last one that has no end yet."""
        try:
            with self._path.open("rb") as stream:
                size = stream.seek(0, 2)
                if size < self._offset:
                    self._offset, self._begun = size, b""
                stream.seek(self._offset)
                data = stream.read(_LARGEST_BYTES)
        except FileNotFoundError:
            data = b""
        self._offset += len(data)
        *lines, self._begun = (self._begun + data).split(b"\n")
        if self._begun and (to_end or len(self._begun) > LONGEST_LINE):
            lines, self._begun = [*lines, self._begun], b""
        return [line.decode(errors="replace").rstrip("\r") for line in lines]


def read_logs(project: Project, instances: Sequence[str], write: Write, *, tail: int | None = None) -> None:
    """Pass on what these instances have written, one after the other; of each only the last ``tail`` lines."""
    for name in instances:
        lines = _Reader(project.log_path(name)).read(to_end=True)
        for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
            write(name, line)


def follow_logs(
    project: Project, instances: Sequence[str], write: Write, *, tail: int | None = None, root: Path = STATE_ROOT
) -> None:
    """Do so and go on, as they write, until the project has ended."""
    readers = {name: _Reader(project.log_path(name)) for name in instances}
    shown = tail
    while True:
        ended = not is_held(project.directory.name, root)
        for name, reader in readers.items():
            lines = reader.read(to_end=ended)
            for line in lines if shown is None else lines[max(0, len(lines) - shown) :]:
                write(name, line)
        if ended:
            return
        shown = None
        time.sleep(_LOOK_S)
