"""Starts plans: a typed door to the launcher.

The launcher is executed from a sealed copy in memory: what a container finds behind /proc/PID/exe while it is
being made can then neither be written to nor is it a file of the host (CVE-2019-5736). The plan goes in another such
file. What happens is told through a socket, which closes when the workload has been executed.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import ECANCELED, EXDEV
from functools import cache
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from runtime.errors import TestbedError
from runtime.launcher.messages import FAILED, GO, PID, SYNC
from runtime.plan.encode import encode
from runtime.plan.steps import PLAN_FD, SYNC_FD, Plan
from runtime.processes import executed

STATIC_BINARY = Path(__file__).resolve().parent / "testbed-launcher"

_MESSAGE = struct.Struct("=Iiq")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# Above every descriptor that a plan uses: sources are moved here when they lie where a target will be.
_ABOVE_TARGETS = 128


class Spawned(Struct, frozen=True):
    """A started child: ``pid``, which is the child's until it is reaped, and when it was cloned and had executed
    (CLOCK_MONOTONIC)."""

    pid: int
    cloned_ns: int
    executed_ns: int


class StepError(TestbedError):
    """A step of a plan failed: its ``step`` (index; -1 the clone itself, -2 reading the plan: it holds a number that no
    step takes), and the kernel's ``errno``."""

    def __init__(self, plan: Plan, step: int, errno: int) -> None:
        self.step = step
        self.errno = errno
        self.failed = list(plan.steps())[step] if step >= 0 else None
        whole = "read the plan" if step == -2 else "clone the first process"
        what = f"step {step}: {self.failed.describe()}" if self.failed else whole
        led_away = errno == EXDEV and getattr(self.failed, "inside", False)
        hint = "a link in the root leads over a mount there; make it a directory" if led_away else ""
        super().__init__(f"{what}: {os.strerror(errno)}", hint)


def not_executed() -> TestbedError:
    """What is to be said of a process that ended without a word before it executed its program."""
    return TestbedError(
        "the container's first process was killed before it executed its program",
        "its memory limit may be too low for the kernel's own part of it, or its seccomp filter forbids what"
        " executing takes",
    )


class Message(Struct, frozen=True):
    """What the launcher said: its ``kind``, a ``number``, a ``value``, and a descriptor that came with it, or -1."""

    kind: int
    number: int
    value: int
    descriptor: int = -1


def _sealed(name: str, content: bytes, seals: int) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, content)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


@cache
def _launcher() -> int:
    """The sealed copy, made once a process."""
    return _sealed("testbed-launcher", STATIC_BINARY.read_bytes(), _SEALS)


def receive(channel: socket.socket) -> Message | None:
    """The next message, or None when the other side has closed."""
    try:
        data, control, _, _ = channel.recvmsg(_MESSAGE.size, 32)
    except ConnectionResetError:
        return None
    if len(data) < _MESSAGE.size:
        return None
    descriptor = -1
    for level, what, payload in control:
        if level == socket.SOL_SOCKET and what == socket.SCM_RIGHTS:
            descriptor = array.array("i", payload[:4])[0]
            os.set_inheritable(descriptor, False)
    kind, number, value = _MESSAGE.unpack(data)
    return Message(kind, number, value, descriptor)


def send_go(channel: socket.socket) -> None:
    """Give the word that a Sync or WaitStart step waits for. Raises TestbedError when the process is gone."""
    try:
        channel.send(_MESSAGE.pack(GO, 0, 0))
    except (BrokenPipeError, ConnectionResetError) as error:
        raise TestbedError("the container's first process has ended before it was started") from error


class Launch:
    """A plan that is being performed; a context manager, at whose end the socket is closed and the launcher reaped.

    ``descriptors`` maps numbers that the plan expects (0, 1 and 2 among them) to descriptors of ours. ``pid`` is the
    child's, 0 until it is known.
    """

    def __init__(self, plan: Plan, descriptors: Mapping[int, int]) -> None:
        self.plan, self.descriptors = plan, descriptors
        self.pid = self.cloned_ns = 0
        self._failure: Message | None = None

    def __enter__(self) -> Launch:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            plan = _sealed("testbed-plan", encode(self.plan), 0)
            try:
                self._launcher_pid = self._spawn({**self.descriptors, SYNC_FD: theirs.fileno(), PLAN_FD: plan})
            finally:
                os.close(plan)
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
        return self

    def _spawn(self, descriptors: Mapping[int, int]) -> int:
        moved: list[int] = []
        actions: list[tuple[int, int, int]] = []
        try:
            for target, source in descriptors.items():
                if source != target and source in descriptors:
                    source = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _ABOVE_TARGETS)
                    moved.append(source)
                actions.append((os.POSIX_SPAWN_DUP2, source, target))
            return os.posix_spawn(
                f"/proc/self/fd/{_launcher()}",
                ("testbed-launcher", "--start"),
                {},
                file_actions=actions,
            )
        finally:
            for descriptor in moved:
                os.close(descriptor)

    def next(self) -> Message | None:
        """The next message that is for the caller; None once the workload has been executed.

        Raises StepError when a step failed, TestbedError when the child was killed before; no child is left then.
        """
        while (message := receive(self.channel)) is not None:
            if message.kind == PID:
                self.pid, self.cloned_ns = message.number, message.value
            elif message.kind == FAILED:
                self._failure = self._failure or message  # what fails on the other side follows from it
            else:
                return message
        if self._failure is not None or not self.pid:
            self._reap(self.pid)
            failure = self._failure or Message(FAILED, -1, ECANCELED)
            raise StepError(self.plan, failure.number, failure.value)
        if not executed(self.pid):
            self._reap(self.pid)
            raise not_executed()
        return None

    @property
    def launcher_pid(self) -> int:
        """The launcher's own pid, which is there until ``known_pid``."""
        return self._launcher_pid

    def known_pid(self) -> int:
        """The child's pid, for whoever answers its first message. The launcher tells it once it has cloned, and ends;
        raises TestbedError when it ended, killed, without a word."""
        if not self.pid:
            self._reap(self._launcher_pid)
            self._launcher_pid = 0
            self.channel.setblocking(False)
            with suppress(BlockingIOError):
                message = receive(self.channel)
                if message is not None and message.kind == PID:
                    self.pid, self.cloned_ns = message.number, message.value
            self.channel.setblocking(True)
            if not self.pid:
                raise TestbedError("the launcher ended before it said which process it had started")
        return self.pid

    def go(self) -> None:
        """Answer a Sync step."""
        send_go(self.channel)

    def give_up(self) -> None:
        """Leave a Sync step unanswered: the child ends, and is reaped."""
        self.channel.close()
        self._reap(self.pid)

    @staticmethod
    def _reap(pid: int) -> None:
        if pid:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.channel.close()
        self._reap(self._launcher_pid)


def launch(plan: Plan, *, stdin: int, stdout: int, stderr: int, answer: Callable[[int], None] | None = None) -> Spawned:
    """Perform ``plan``; return when its child has executed the workload.

    The three descriptors become the child's standard ones. ``answer`` is called with the child's pid at each Sync step
    of the plan; when it raises, the child goes no further. Raises StepError when a step fails; then no child is left,
    but what the parent's steps made is for the caller to undo.
    """
    with Launch(plan, {0: stdin, 1: stdout, 2: stderr}) as starting:
        while (message := starting.next()) is not None:
            if message.kind != SYNC or answer is None:
                raise TestbedError(f"the launcher asked for an answer ({message.kind}) that this plan's parent has not")
            try:
                answer(starting.known_pid())
            except BaseException:
                starting.give_up()
                raise
            starting.go()
        executed_ns = time.monotonic_ns()
        return Spawned(starting.pid, starting.cloned_ns, executed_ns)
