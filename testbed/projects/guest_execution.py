"""Runs a further command in a service of a project that runs in virtual machines, by the project's holder."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from msgspec import json

from runtime.console import raw_mode
from runtime.errors import UsageError, WorkloadError
from runtime.launcher import frames
from runtime.spec import Process
from testbed.projects.commands import SOCKET, Received, Refusal, Request
from testbed.projects.record import Member, Project
from testbed.qemu.port import COUNT, NUMBERS, pack

_END_OF_INPUT = b"\x04"  # Ctrl-D


class Refused(WorkloadError):
    """The program was not executed, or its end is not known; ``errno`` as a Refusal's."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, refusal.hint)
        self.errno = refusal.errno


def execute_in_guest(project: Project, member: Member, process: Process, *, terminal: bool) -> int:
    """Run the process beside a service's in its guest, with our standard streams, and return its exit status.

    With a ``terminal`` it gets one of its own, which ours is relayed to. Raises Refused, and UsageError when the
    project's holder does not answer.
    """
    with ExitStack() as undo:
        connection = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            connection.connect(str(project.directory / SOCKET))
        except OSError as error:
            what = f"exec in {member.name}: {project.name}'s holder does not answer: {error.strerror}"
            raise UsageError(what, "./invoke down, and up again") from error
        size = _read_size() if terminal else None
        connection.sendall(pack(0, frames.START, json.encode(Request(member.name, process, size))))
        resized = undo.enter_context(_resizing()) if terminal else -1
        if terminal:
            undo.enter_context(raw_mode(0))
        try:
            return _Exchange(connection, resized, terminal=terminal).run()
        except (ConnectionError, ValueError) as error:
            raise WorkloadError(f"exec in {member.name}: its end is not known: {error}", "./invoke ps") from error


def _read_size() -> tuple[int, int]:
    with suppress(OSError):
        columns, rows = os.get_terminal_size(0)
        return rows, columns
    return 0, 0


@contextmanager
def _resizing() -> Iterator[int]:
    """Within, a descriptor becomes readable when our terminal has another size."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def tell(*_: object) -> None:
        with suppress(BlockingIOError):  # there is word already
            os.write(write, b"\0")

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield read
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(read)
        os.close(write)


class _Exchange:
    """The exchange of frames with the holder until the program has ended."""

    def __init__(self, connection: socket.socket, resized: int, *, terminal: bool) -> None:
        self._connection, self._resized, self._terminal = connection, resized, terminal
        self._received = Received(connection)
        self._wanted = False
        self._open = True
        try:
            os.fstat(0)
        except OSError:
            self._open = False

    def run(self) -> int:
        """Return the program's exit status."""
        while True:
            sources: list[socket.socket | int] = [self._connection]
            sources += [0] if self._wanted and self._open else []
            sources += [self._resized] if self._terminal else []
            ready = [self._connection] if self._received.pending else select.select(sources, [], [])[0]
            if 0 in ready:
                self._pass_input_on()
            if self._resized in ready:
                os.read(self._resized, 64)
                self._send(frames.SIZE, NUMBERS.pack(*_read_size()))
            if self._connection in ready:
                status = self._take()
                if status is not None:
                    return status

    def _send(self, kind: int, data: bytes) -> None:
        with suppress(BrokenPipeError):  # it has ended; how, is on its way
            self._connection.sendall(pack(0, kind, data))

    def _pass_input_on(self) -> None:
        try:
            data = os.read(0, frames.PIECE_BYTES)
        except OSError:  # a terminal that has gone
            data = b""
        self._wanted, self._open = False, bool(data)
        self._send(frames.INPUT, data or (_END_OF_INPUT if self._terminal else b""))

    def _take(self) -> int | None:
        _, kind, content = self._received.next()
        if kind in (frames.OUTPUT, frames.ERRORS):
            _write(1 if kind == frames.OUTPUT else 2, content)
            self._send(frames.TAKEN, COUNT.pack(len(content)))
        elif kind == frames.WANTED:
            self._wanted = True
            if not self._open and not self._terminal:
                self._send(frames.INPUT, b"")
        elif kind == frames.FAILED:
            raise Refused(json.decode(content, type=Refusal))
        elif kind == frames.ENDED:
            return int(NUMBERS.unpack(content)[0])
        return None


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
