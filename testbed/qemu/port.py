"""The host's end of a guest's port for commands: it has programs executed in the guest, and takes what they write.

Frames (runtime.launcher.frames) go through a socket that QEMU connects to. What comes from a guest is bounded: no frame
is larger than it may be, no program has more under way than it was allowed, and a guest that breaks that, or does not
take what it is sent, is not talked to any more. Each program is waited for with a limit of time.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.launcher import StepError, frames
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from runtime.speed import scale

HEADER = struct.Struct("<III")
NUMBERS = struct.Struct("<ii")
COUNT = struct.Struct("<I")
_CHUNK_BYTES = 1 << 16
# A guest that is busy takes its time; one that has hung takes nothing.
_SEND_S = 10.0
_START_S = 20.0
# Takes a frame of a program: its number, its kind, its content. It is called in the port's own thread, and must not
# wait.
Take = Callable[[int, int, bytes], None]


def pack(number: int, kind: int, data: bytes = b"") -> bytes:
    """Return a frame."""
    return HEADER.pack(number, kind, len(data)) + data


class Reader:
    """Takes frames apart as their bytes come."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the frames that are whole now: number, kind, content. Raises ValueError for one that is too large."""
        self._pending += data
        whole, at = [], 0
        while len(self._pending) - at >= HEADER.size:
            number, kind, size = HEADER.unpack_from(self._pending, at)
            if size > self._most_bytes:
                raise ValueError(f"a frame of {size} bytes")
            if len(self._pending) - at < HEADER.size + size:
                break
            at += HEADER.size
            whole.append((number, kind, bytes(self._pending[at : at + size])))
            at += size
        del self._pending[:at]
        return whole


class _Program:
    """A program that was asked for; ``allowed`` bytes of it may still come."""

    def __init__(self, plan: Plan, take: Take) -> None:
        self.plan, self.take, self.allowed = plan, take, frames.CREDIT_BYTES


class Port:
    """One guest's port, from before QEMU starts until ``close``; any thread may use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listening.bind(str(path))
            self._listening.listen(1)
        except OSError as error:
            self._listening.close()
            raise TestbedError(f"listen for a guest's port at {path}: {error}") from error
        self._connection: socket.socket | None = None
        self._programs: dict[int, _Program] = {}
        self._last = 0
        self._lost = ""
        self._changing, self._sending = threading.Lock(), threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="port", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether QEMU has connected to it, and it has not been lost since."""
        return self._connection is not None and not self._lost

    def begin(self, plan: Plan, take: Take) -> int:
        """Have the guest perform the plan; return the program's number. ``take`` gets its frames, at the end of which
        comes ENDED or FAILED. Raises UsageError for a plan that is too large, WorkloadError when the guest cannot be
        told."""
        encoded = encode(plan)
        if len(encoded) > frames.PLAN_BYTES:
            raise UsageError(
                f"execute a command of {len(encoded)} bytes in a guest: more than the guest takes, {frames.PLAN_BYTES}",
                "give it less by its arguments, and the rest by its input",
            )
        with self._changing:
            self._last += 1
            number = self._last
            self._programs[number] = _Program(plan, take)
        try:
            self.send(number, frames.START, encoded)
        except BaseException:
            self._programs.pop(number, None)
            raise
        return number

    def send(self, number: int, kind: int, data: bytes = b"") -> None:
        """Send a frame of a program. Raises WorkloadError when the guest does not take it."""
        if kind == frames.TAKEN and (program := self._programs.get(number)) is not None:
            with self._changing:
                program.allowed += COUNT.unpack(data)[0]
        if self._connection is None or self._lost:
            raise WorkloadError(f"its port for commands is lost: {self._lost or 'nobody has connected to it'}")
        try:
            with self._sending:
                self._connection.sendall(pack(number, kind, data))
        except OSError as error:
            self._lose(f"the guest takes nothing: {error}")
            raise WorkloadError(f"its port for commands is lost: {self._lost}") from error

    def forget(self, number: int) -> None:
        """End a program that nobody waits for any more; what still comes of it goes nowhere."""
        if self._programs.pop(number, None) is not None:
            with suppress(WorkloadError):
                self.send(number, frames.KILL)

    def run(self, plan: Plan, timeout_s: float) -> int | None:
        """Have the guest perform the plan, whose output goes nowhere, and return the program's exit status; None when
        it took longer, and was killed. Raises StepError when a step fails, WorkloadError when the guest does not
        answer."""
        outcome = Outcome(self, plan)
        try:
            outcome.wait_started()
            return outcome.wait(timeout_s)
        finally:
            self.forget(outcome.number)

    def close(self) -> None:
        """End the thread, and tell all who wait that the port is gone."""
        os.write(self._wake_write, b"\0")
        self._thread.join()
        for descriptor in (self._wake_read, self._wake_write):
            os.close(descriptor)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.register(self._listening, selectors.EVENT_READ)
            reader = Reader(frames.PIECE_BYTES)
            ended = False
            while not ended:
                for key, _ in selector.select():
                    if key.fileobj is self._listening:
                        self._accept(selector)
                    elif key.fileobj == self._wake_read:
                        ended = True
                    elif not self._receive(reader):
                        selector.unregister(key.fileobj)
        self._listening.close()
        self.path.unlink(missing_ok=True)
        self._lose("the machine has ended")
        if self._connection is not None:
            self._connection.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        """Exchange the listener for its one connection."""
        connection, _ = self._listening.accept()
        connection.settimeout(scale(_SEND_S))
        selector.unregister(self._listening)
        selector.register(connection, selectors.EVENT_READ)
        self._connection = connection

    def _receive(self, reader: Reader) -> bool:
        """Take what has come; False at the port's end."""
        assert self._connection is not None
        try:
            data = self._connection.recv(_CHUNK_BYTES)
            if not data:
                raise ValueError("the machine has ended")
            for number, kind, content in reader.feed(data):
                self._give(number, kind, content)
        except (OSError, ValueError) as error:
            self._lose(str(error))
            return False
        return True

    def _give(self, number: int, kind: int, content: bytes) -> None:
        program = self._programs.get(number)
        if program is None:
            return
        if kind in (frames.OUTPUT, frames.ERRORS):
            with self._changing:
                program.allowed -= len(content)
            if program.allowed < 0:
                raise ValueError("it sends more than it may")
        elif kind in (frames.FAILED, frames.ENDED):
            if len(content) != NUMBERS.size:
                raise ValueError(f"an end of {len(content)} bytes")
            self._programs.pop(number, None)
        program.take(number, kind, content)

    def _lose(self, why: str) -> None:
        """Talk to the guest no more; whoever waits for a program hears of it by an end that has no status."""
        with self._changing:
            self._lost = self._lost or why
            programs, self._programs = self._programs, {}
        for number, program in programs.items():
            program.take(number, frames.ENDED, b"")


class Outcome:
    """What becomes of a program; ``write`` gets what it writes, in the port's own thread. ``pid`` is its process in the
    guest, once it is executed."""

    def __init__(self, port: Port, plan: Plan, write: Callable[[bytes], None] = lambda data: None) -> None:
        self._port, self._plan, self._write = port, plan, write
        self.pid = 0
        self._changed = threading.Condition()
        self._begun = False
        self._end: tuple[int, bytes] | None = None
        self.number = port.begin(plan, self._take)

    def _take(self, number: int, kind: int, content: bytes) -> None:
        if kind in (frames.OUTPUT, frames.ERRORS):
            self._write(content)
            with suppress(WorkloadError):
                self._port.send(number, frames.TAKEN, COUNT.pack(len(content)))
            return
        with self._changed:
            if kind == frames.STARTED and len(content) == NUMBERS.size:
                self._begun, (self.pid, _) = True, NUMBERS.unpack(content)
            if kind in (frames.FAILED, frames.ENDED):
                self._write(b"")
                self._end = kind, content
            self._changed.notify_all()

    def wait_started(self) -> None:
        """Wait until the program is executed, or has ended. Raises WorkloadError when the guest does not answer."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._begun or self._end, scale(_START_S)):
                raise WorkloadError(f"the guest has not answered for {scale(_START_S):g} s", "its processes may hang")

    def find_status(self, timeout_s: float) -> int | None:
        """Return as ``wait`` does, and None, too, when nobody knows any more."""
        with suppress(TestbedError):
            return self.wait(timeout_s)
        return None

    def wait(self, timeout_s: float) -> int | None:
        """Return the program's exit status, None when it takes longer. Raises as ``Port.run`` does."""
        with self._changed:
            self._changed.wait_for(lambda: self._end, timeout_s)
        return None if self._end is None else read_end(self._plan, *self._end)


def read_end(plan: Plan, kind: int, content: bytes) -> int:
    """Return the exit status that a program's last frame tells. Raises StepError for a step that failed, WorkloadError
    for an end without a status."""
    if not content:
        raise WorkloadError("the guest, or its port for commands, has ended meanwhile")
    first, second = NUMBERS.unpack(content)
    if kind == frames.ENDED:
        return int(first)
    if not -2 <= first < len(list(plan.steps())):
        raise WorkloadError(f"the guest says that step {first} failed, which there is not")
    raise StepError(plan, first, second)
