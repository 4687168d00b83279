"""Starts plans: a typed door to the launcher.

The launcher is executed from a sealed copy in memory: what a container finds behind /proc/PID/exe while it is
being made can then neither be written to nor is it a file of the host (CVE-2019-5736). The plan goes in another such
file. What happens is told through a socket, which closes when the workload has been executed, or when its process has
died before: the kernel tells which as long as that is not reaped, and its last word, in memory that is shared, after.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from errno import ECANCELED, EINVAL, EXDEV
from functools import cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import TestbedError
from runtime.launcher.messages import FAILED, GO, PID, SYNC
from runtime.plan.constants import TIME_OFFSETS
from runtime.plan.encode import encode
from runtime.plan.steps import PLAN_FD, SYNC_FD, TIMES_FD, NoteTimes, Plan, Step, Write
from runtime.processes import executed

STATIC_BINARY = Path(__file__).resolve().parent / "testbed-launcher"

_MESSAGE = struct.Struct("=Iiq")
_TIME_BYTES = 8
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# Above every descriptor that a plan uses: sources are moved here when they lie where a target will be.
_ABOVE_TARGETS = 128


class Spawned(Struct, frozen=True):
    """A started child: ``pid``, which is the child's until it is reaped, and when it was cloned and had executed
    (CLOCK_MONOTONIC)."""

    pid: int
    cloned_ns: int
    executed_ns: int


class StepTimes(Struct, frozen=True):
    """When the steps of a performed plan ended, in nanoseconds of CLOCK_MONOTONIC: ``ended_ns`` by their index, 0 for
    one that was not performed, or by which the process was gone: an exec. ``begun_ns`` is when the launcher was
    started, ``child_ns`` when the cloned process began."""

    plan: Plan
    begun_ns: int
    ended_ns: tuple[int, ...]
    child_ns: int
    executed_ns: int

    def list_durations_ns(self) -> Iterator[tuple[Step | None, int]]:
        """Yield each step in order with what it took; None stands for the clone. What passed until the launcher had
        read the plan is the first step's; the last step's, an exec, lasts until the workload ran."""
        last_ns = self.begun_ns
        ends = list(zip(self.plan.steps(), self.ended_ns, strict=True))
        parents = len(self.plan.parent)
        marks = [*ends[:parents], (None, self.child_ns), *ends[parents:]]
        for number, (step, ended_ns) in enumerate(marks, 1):
            end_ns = ended_ns or (self.executed_ns if number == len(marks) else 0)
            if end_ns:
                yield step, max(0, end_ns - last_ns)
                last_ns = end_ns


def find_clock_shift_ns(plan: Plan) -> int:
    """Return by how much CLOCK_MONOTONIC differs for the child of a plan that puts it into a time namespace."""
    lines = (
        line.split()
        for step in plan.parent
        if isinstance(step, Write) and step.path == TIME_OFFSETS
        for line in step.data
    )
    return next((int(secs) * 1_000_000_000 + int(nanosecs) for name, secs, nanosecs in lines if name == "monotonic"), 0)


_timed: ContextVar[list[StepTimes] | None] = ContextVar("_timed", default=None)


@contextmanager
def time_steps() -> Iterator[list[StepTimes]]:
    """Within, the steps of each plan that this thread has performed are timed; the list grows by one with each plan
    whose workload has been executed. A plan grows by one step, and each step by a system call; otherwise nothing is
    timed, and costs nothing."""
    times: list[StepTimes] = []
    token = _timed.set(times)
    try:
        yield times
    finally:
        _timed.reset(token)


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


@contextmanager
def memory_file(name: str, content: bytes = b"") -> Iterator[int]:
    """A file in memory, at its beginning, with this content."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        if content:
            os.write(descriptor, content)
            os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


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
        self._times: mmap.mmap | None = None
        self._begun_ns = 0

    def __enter__(self) -> Launch:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with self._asking_for_times(), memory_file("testbed-plan", encode(self.plan)) as plan:
                self._launcher_pid = self.parent.start(plan, theirs.fileno(), self.descriptors, self.own)
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
        return self

    @contextmanager
    def _asking_for_times(self) -> Iterator[None]:
        """Have the plan begin with the step that notes times, if this thread is to know them, and give it memory."""
        if _timed.get() is None:
            yield
            return
        self.plan = replace(self.plan, parent=(NoteTimes(TIMES_FD), *self.plan.parent))
        size = _TIME_BYTES * (sum(1 for _ in self.plan.steps()) + 1)
        with memory_file("testbed-times", bytes(size)) as file:
            self._times = mmap.mmap(file, size)
            self.descriptors = {**self.descriptors, TIMES_FD: file}
            self._begun_ns = time.monotonic_ns()
            yield

    def _note_times(self) -> None:
        """Add to the list of whoever has asked for times."""
        times = _timed.get()
        if self._times is not None and times is not None:
            executed_ns = time.monotonic_ns()
            *noted_ns, child_ns = struct.unpack(f"={len(self._times) // _TIME_BYTES}q", self._times)
            shift_ns, parents = find_clock_shift_ns(self.plan), len(self.plan.parent)
            ended_ns = (*noted_ns[:parents], *(noted and noted - shift_ns for noted in noted_ns[parents:]))
            times.append(StepTimes(self.plan, self._begun_ns, ended_ns, child_ns - shift_ns, executed_ns))

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
        if executed(self.pid) is False:
            raise not_executed(self.parent.reap(self.pid))
        self._note_times()
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
