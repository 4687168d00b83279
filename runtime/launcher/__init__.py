"""Starts plans: a typed door to the launcher.

The launcher is executed from a sealed copy in memory: what a container finds behind /proc/PID/exe while it is
being made can then neither be written to nor is it a file of the host (CVE-2019-5736). The plan goes in another such
file. What happens is told through a socket, which closes when the workload has been executed, or when its process has
died before: the kernel tells which as long as that is not reaped, and its last word, in memory that is shared, after.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from errno import ECANCELED, EINVAL, EXDEV
from functools import cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol

from msgspec import Struct

from runtime.errors import TestbedError
from runtime.launcher.memory import memory_file
from runtime.launcher.messages import FAILED, GO, PID, SYNC
from runtime.launcher.times import NotedTimes, note_times
from runtime.plan.encode import encode
from runtime.plan.steps import PLAN_FD, SYNC_FD, TIMES_FD, Plan, Step
from runtime.processes import await_executed

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
        super().__init__(f"{what}: {os.strerror(errno)}", _hint(self.failed, errno))


def _hint(failed: Step | None, errno: int) -> str:
    """What to do about a step that failed, where its errno says that."""
    if errno == EXDEV and getattr(failed, "inside", False):
        return "a link in the root leads over a mount there; make it a directory"
    if errno == EINVAL and getattr(failed, "userns", None):
        return (
            "this kernel cannot map ids on the file system there; on ext4 and XFS it can from Linux 5.12 on, on EROFS"
            " from 5.19, on tmpfs from 6.3 (mount_setattr(2))"
        )
    return ""


def not_executed(status: int = -1) -> TestbedError:
    """What is to be said of a process that ended without a word before it executed its program; ``status`` is its exit
    status (128 + n when signal n ended it), where that is known."""
    known = f" (exit status {status})" if status >= 0 else ""
    return TestbedError(
        f"the container's first process was killed before it executed its program{known}",
        "its memory limit may be too low for the kernel's own part of it, or its seccomp filter forbids what"
        " executing takes",
    )


class Message(Struct, frozen=True):
    """What the launcher said: its ``kind``, a ``number``, a ``value``, and a descriptor that came with it, or -1."""

    kind: int
    number: int
    value: int
    descriptor: int = -1


def last_word() -> AbstractContextManager[int]:
    """A file in which a created container's first process, which gets it by ``send_go``, leaves its last word."""
    return memory_file("testbed-last-word", bytes(_MESSAGE.size))


def read_last_word(descriptor: int) -> Message:
    """What the process has come to: FAILED with a step and its errno; EXECUTING when nothing but execve was left; or
    kind 0."""
    return Message(*_MESSAGE.unpack(os.pread(descriptor, _MESSAGE.size, 0)))


@cache
def sealed_launcher() -> int:
    """A descriptor of the sealed copy, which is made once a process."""
    descriptor = os.memfd_create("testbed-launcher", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, STATIC_BINARY.read_bytes())
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


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


def send_go(channel: socket.socket, last_word: int | None = None) -> None:
    """Give the word that a Sync step waits for, or WaitStart, which takes the file for its last word with it. Raises
    TestbedError when the process is gone."""
    try:
        socket.send_fds(channel, [_MESSAGE.pack(GO, 0, 0)], [] if last_word is None else [last_word])
    except (BrokenPipeError, ConnectionResetError) as error:
        raise TestbedError("the container's first process has ended before it was started") from error


class Parent(Protocol):
    """Whose children the launcher and the container's first process become."""

    def start(self, plan: int, channel: int, given: Mapping[int, int], own: Mapping[int, int]) -> int:
        """Start the launcher; return its process id.

        ``plan`` and ``channel`` become its PLAN_FD and SYNC_FD; descriptors of ours are ``given``, and the parent's
        ``own``, by the numbers that they have there."""
        ...

    def reap(self, pid: int) -> int:
        """Wait for a child to end; its exit status, -1 for what is no child."""
        ...

    def reap_later(self, pid: int) -> None:
        """Do so without waiting for it, for a child that is about to end."""
        ...

    def await_message(self, channel: int) -> None:
        """Return when there is something to read."""


class Ourselves:
    """We are the parent."""

    def start(self, plan: int, channel: int, given: Mapping[int, int], own: Mapping[int, int]) -> int:
        descriptors = {**given, SYNC_FD: channel, PLAN_FD: plan}
        moved: list[int] = []
        actions: list[tuple[int, int, int]] = []
        try:
            for target, source in descriptors.items():
                if source != target and source in descriptors:
                    source = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _ABOVE_TARGETS)
                    moved.append(source)
                actions.append((os.POSIX_SPAWN_DUP2, source, target))
            return os.posix_spawn(
                f"/proc/self/fd/{sealed_launcher()}",
                ("testbed-launcher", "--start"),
                {},
                file_actions=actions,
            )
        finally:
            for descriptor in moved:
                os.close(descriptor)

    def reap(self, pid: int) -> int:
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return -1
        return code if code >= 0 else 128 - code

    def reap_later(self, pid: int) -> None:
        self.reap(pid)

    def await_message(self, channel: int) -> None:
        return


OURSELVES = Ourselves()


class Launch:
    """A plan that is being performed; a context manager, at whose end the socket is closed and the launcher reaped.

    ``descriptors`` maps numbers that the plan expects (0, 1 and 2 among them) to descriptors of ours, ``own`` to the
    parent's. ``pid`` is the child's, 0 until it is known.
    """

    def __init__(
        self,
        plan: Plan,
        descriptors: Mapping[int, int],
        parent: Parent = OURSELVES,
        own: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.plan, self.descriptors, self.parent, self.own = plan, descriptors, parent, own
        self.pid = self.cloned_ns = 0
        self._launcher_pid = 0
        self._failure: Message | None = None
        self._noted: NotedTimes | None = None

    def __enter__(self) -> Launch:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with note_times(self.plan) as self._noted, ExitStack() as opened:
                if self._noted is not None:
                    self.plan = self._noted.plan
                    self.descriptors = {**self.descriptors, TIMES_FD: self._noted.descriptor}
                plan = opened.enter_context(memory_file("testbed-plan", encode(self.plan)))
                self._launcher_pid = self.parent.start(plan, theirs.fileno(), self.descriptors, self.own)
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
        return self

    def next(self) -> Message | None:
        """The next message that is for the caller; None once the workload has been executed.

        Raises StepError when a step failed, TestbedError when the child was killed before; no child is left then.
        """
        while (message := self._receive()) is not None:
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
        if await_executed(self.pid) is False:
            raise not_executed(self.parent.reap(self.pid))
        if self._noted is not None:
            self._noted.conclude()
        return None

    def _receive(self) -> Message | None:
        self.parent.await_message(self.channel.fileno())
        return receive(self.channel)

    @property
    def launcher_pid(self) -> int:
        """The launcher's own pid, which is there until ``known_pid``."""
        return self._launcher_pid

    def known_pid(self) -> int:
        """The child's pid, for whoever answers its first message. The launcher tells it once it has cloned, and ends;
        raises TestbedError when it ended, killed, without a word."""
        if not self.pid:
            self.reap_launcher()
            self.channel.setblocking(False)
            with suppress(BlockingIOError):
                message = receive(self.channel)
                if message is not None and message.kind == PID:
                    self.pid, self.cloned_ns = message.number, message.value
            self.channel.setblocking(True)
            if not self.pid:
                raise TestbedError("the launcher ended before it said which process it had started")
        return self.pid

    def reap_launcher(self) -> None:
        """Wait for the launcher itself, which ends once it has cloned; harmless when that has been done."""
        self._reap(self._launcher_pid)
        self._launcher_pid = 0

    def go(self) -> None:
        """Answer a Sync step."""
        send_go(self.channel)

    def give_up(self) -> None:
        """Leave a Sync step unanswered: the child ends, and is reaped."""
        self.channel.close()
        self._reap(self.pid)

    def _reap(self, pid: int) -> None:
        if pid:
            self.parent.reap(pid)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.channel.close()
        if self._launcher_pid:
            self.parent.reap_later(self._launcher_pid)


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
