"""The process that asked: what a command does is done there, in the caller's own process tree.

A command decides, and tells the client (launcher/client/client.c) what to perform, as plans whose steps are all the
parent's; of each it hears which step failed, or its value. Nothing is done in this process: it can be killed at any
moment, and another can go on.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from errno import EACCES, EAGAIN, EBADF, EBUSY, ECHILD, EIO, ENOENT, ENOTEMPTY, EPERM, EPIPE, ESRCH
from functools import cached_property
from pathlib import Path

from msgspec import Struct

from runtime.cgroups import systemd
from runtime.errors import TestbedError
from runtime.launcher import Launch, StepError, memory_file, sealed_launcher
from runtime.plan import steps as s
from runtime.plan.encode import encode
from runtime.plan.process import search_path
from runtime.processes import wait_exit

_MOST_RECEIVED = 12
_MAGIC = b"TBASK\x01\n\0"
_REQUEST = struct.Struct("<8s4I")
_ANSWER = struct.Struct("<4I")
_OUTCOME = struct.Struct("<iiq")
_LARGEST_REQUEST = 16 << 20
# Whether somebody is there, to be answered with a byte.
QUESTION = _REQUEST.pack(_MAGIC, _REQUEST.size, 0, 0, 0)
# The client takes a planner that says nothing for half a minute to be stuck.
_ALIVE_S = 2.0
# What a client has just begun to say comes within this time.
_SOON_MS = 2
# Nobody may read what is said to a person any more.
_UNREAD = (EPIPE, EBADF, EIO, EAGAIN)


_STREAMS = tuple((f"/dev/{name}", f"fd/{number}") for number, name in enumerate(("stdin", "stdout", "stderr")))


class CallerGone(TestbedError):
    """The client has ended: nothing can be done for it any more, nor undone."""


class Request(Struct, frozen=True, dict=True):
    """What is asked for: the ``arguments`` without the program's name, the ``variables`` of the environment
    (NAME=value) and the file mode ``umask`` of the client, and its process id."""

    arguments: tuple[str, ...]
    variables: tuple[bytes, ...]
    umask: int
    pid: int

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """The environment by name."""
        pairs = (os.fsdecode(variable).partition("=") for variable in self.variables)
        return {name: value for name, equals, value in pairs if equals}


def receive_request(connection: socket.socket, pid: int, before_waiting: Callable[[], None]) -> Request | None:
    """The request of the client ``pid``; None for QUESTION.

    Raises CallerGone when it is cut off, TestbedError for what is none."""
    magic, size, count, umask, _ = _REQUEST.unpack(_exactly(connection, _REQUEST.size, before_waiting))
    if magic != _MAGIC or not _REQUEST.size <= size <= _LARGEST_REQUEST:
        raise TestbedError("a client of another version asked")
    if size == _REQUEST.size:
        return None
    words = _exactly(connection, size - _REQUEST.size, before_waiting).split(b"\0")[:-1]
    if not 0 < count <= len(words):
        raise TestbedError("a client asked without words")
    return Request(tuple(map(os.fsdecode, words[1:count])), tuple(words[count:]), umask, pid)


def _exactly(connection: socket.socket, size: int, before_waiting: Callable[[], None]) -> bytes:
    """So many bytes. ``before_waiting`` is called unless they come at once."""
    parts: list[bytes] = []
    while size > 0:
        if not _is_readable(connection):
            before_waiting()
        try:
            part = connection.recv(min(size, 1 << 20))
        except OSError as error:
            raise CallerGone("the client has ended") from error
        if not part:
            raise CallerGone("the client has ended")
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(_SOON_MS))


class Caller:
    """One client, from its request to its exit status."""

    def __init__(self, connection: socket.socket, request: Request, before_waiting: Callable[[], None]) -> None:
        """``before_waiting`` is called before the client is waited for."""
        self.request = request
        self._before_waiting = before_waiting
        # What the client asks for, to undo what was begun, should this process end before it says more.
        self.undo: tuple[str, ...] = ()
        self._connection = connection
        self._first: list[s.Step] = []
        self._signals_held = False
        self.ended = False

    @property
    def pid(self) -> int:
        return self.request.pid

    @property
    def environment(self) -> Mapping[str, str]:
        return self.request.environment

    @property
    def directory(self) -> str:
        """The client's working directory."""
        return os.readlink(f"/proc/{self.pid}/cwd")

    def path(self, name: str | os.PathLike[str]) -> str:
        """A path as the client means it."""
        path = os.path.join(self.directory, name)
        for prefix, own in (("/proc/self/", ""), ("/dev/fd/", "fd/"), *_STREAMS):
            if path.startswith(prefix):
                return f"/proc/{self.pid}/{own}{path.removeprefix(prefix)}"
        return path

    def perform(self, *steps: s.Step, descriptors: Sequence[int] = ()) -> int:
        """Have the client perform the steps; return the value of the last that has one, or -1.

        ``descriptors`` of ours become its own, from s.RECEIVED_FD on. Raises StepError, CallerGone.
        """
        plan = s.Plan((), (*self._first, *steps))
        self._first.clear()
        if not plan.parent:
            return -1
        self._send(plan, descriptors, self.undo)
        return self._outcome(plan)

    def later(self, *steps: s.Step) -> None:
        """Have the steps performed before the next ones."""
        self._first += steps

    def say(self, descriptor: int, text: str) -> None:
        """Write to one of the client's streams before it does anything else."""
        data = text.encode(errors="backslashreplace")
        self.later(s.WriteDescriptor(descriptor, data, tolerate=_UNREAD if descriptor == 2 else ()))

    def attempt(self, *steps: s.Step, descriptors: Sequence[int] = ()) -> None:
        """Have each of the steps performed, whatever becomes of the others."""
        for step in steps:
            with suppress(StepError):
                self.perform(step, descriptors=descriptors)

    def finish(self, status: int, *steps: s.Step, more: Sequence[str] = ()) -> None:
        """Let the client perform the last steps and end: with ``status``, or, if that is 0, the value of the last one
        that has any; and before that, with ``more``, ask again, for what follows a process that it waited for."""
        plan = s.Plan((), (*self._first, *steps))
        self.ended = True
        self._send(plan, (), more, status=status)

    def keep_alive(self) -> None:
        """Tell the client that somebody is still at work for it. Raises CallerGone."""
        self._write(_ANSWER.pack(0, 0, 0, 0), ())

    def await_message(self, channel: int) -> None:
        """Wait until ``channel`` can be read. Raises CallerGone, when the client ends before."""
        self._before_waiting()
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(self._connection, select.POLLRDHUP)
        while not (ready := dict(poll.poll(_ALIVE_S * 1000))):
            self.keep_alive()
        if channel not in ready:
            raise CallerGone("the client has ended")

    def hold_signals(self) -> None:
        """Have the client hold signals back that a process of its is to get."""
        if not self._signals_held:
            self._signals_held = True
            self.later(s.HoldSignals())

    def start(self, plan: int, channel: int, given: Mapping[int, int], own: Mapping[int, int]) -> int:
        """Have the client start the launcher; return its process id.

        ``plan`` and ``channel`` are descriptors of ours, as those that it is ``given`` by its numbers; ``own`` are the
        client's.
        """
        ours = {s.PLAN_FD: plan, s.SYNC_FD: channel, **given}
        pairs = [(s.RECEIVED_FD + 1 + place, target) for place, target in enumerate(ours)]
        pairs += [(source, target) for target, source in own.items()]
        return self.perform(s.Spawn(s.RECEIVED_FD, tuple(pairs)), descriptors=(sealed_launcher(), *ours.values()))

    def reap(self, pid: int) -> int:
        """The exit status of a child of the client's, when it has ended; 128 + n for signal n. -1 for no child."""
        try:
            return self.perform(s.Reap(pid))
        except StepError:
            return -1

    def reap_later(self, pid: int) -> None:
        """Have the client wait for a child that is about to end, before it does anything else."""
        self.later(s.Reap(pid, tolerate=(ECHILD,)))

    def signal(self, pidfd: int, number: int) -> None:
        """Signal the process of a pidfd of ours. Raises ProcessLookupError."""
        try:
            self.perform(s.SignalProcess(s.RECEIVED_FD, number), descriptors=(pidfd,))
        except StepError as error:
            raise OSError(error.errno, os.strerror(error.errno)) from error

    def signal_all(self, pids: Sequence[int], number: int) -> None:
        """Signal processes by their numbers; those that have ended meanwhile are passed over."""
        for at in range(0, len(pids), _MOST_RECEIVED):
            pidfds: list[int] = []
            try:
                for pid in pids[at : at + _MOST_RECEIVED]:
                    with suppress(ProcessLookupError):
                        pidfds.append(os.pidfd_open(pid))
                self._signal_each(pidfds, number)
            finally:
                for pidfd in pidfds:
                    os.close(pidfd)

    def _signal_each(self, pidfds: Sequence[int], number: int) -> None:
        steps = [s.SignalProcess(s.RECEIVED_FD + n, number, tolerate=(ESRCH, EPERM)) for n in range(len(pidfds))]
        if steps:
            self.perform(*steps, descriptors=pidfds)

    # What runtime.effects.Effects has.

    def write(self, path: Path, text: str) -> None:
        self._on_files(s.Write(str(path), (text,)))

    def remove_directories(self, paths: Iterable[Path], unless_busy: bool = False) -> None:
        tolerate = (ENOENT, EBUSY, ENOTEMPTY, EACCES, EPERM) if unless_busy else (ENOENT,)
        steps = [s.Remove(str(path), directory=True, tolerate=tolerate) for path in paths]
        if unless_busy:
            self.later(*steps)
        elif steps:
            self._on_files(*steps)

    def _on_files(self, *steps: s.Write | s.Remove) -> None:
        try:
            self.perform(*steps)
        except StepError as error:
            failed = error.failed
            path = failed.path if isinstance(failed, (s.Write, s.Remove)) else None
            raise OSError(error.errno, os.strerror(error.errno), path) from error

    @property
    def bus(self) -> systemd.Bus:
        """How the client asks a systemd."""
        return systemd.Bus(self.environment, self._busctl)

    def _busctl(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        done = self.execute(command, environment)
        return done.status, done.output, done.errors

    def execute(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Finished:
        """Have a program run to its end. Raises OSError where it cannot be executed."""
        variables = self.environment if environment is None else environment
        env = tuple(f"{name}={value}" for name, value in variables.items())
        plan = s.Plan((s.CloseOnExec(3), s.Umask(self.request.umask), s.Exec(tuple(command), env, search_path(env))))
        try:
            return self.run(plan)
        except StepError as error:
            raise OSError(error.errno, os.strerror(error.errno), command[0]) from error

    def _send(self, plan: s.Plan, descriptors: Sequence[int], more: Sequence[str], status: int = -1) -> None:
        encoded = encode(plan)
        words = b"".join(os.fsencode(word) + b"\0" for word in more)
        header = _ANSWER.pack(len(encoded), len(words), status >= 0, max(status, 0))
        self._write(header + encoded + words, descriptors)

    def _write(self, data: bytes, descriptors: Sequence[int]) -> None:
        try:
            sent = 0
            if descriptors:
                sent = socket.send_fds(self._connection, [data], list(descriptors), socket.MSG_NOSIGNAL)
            self._connection.sendall(memoryview(data)[sent:], socket.MSG_NOSIGNAL)
        except OSError as error:
            raise CallerGone("the client has ended") from error

    def _outcome(self, plan: s.Plan) -> int:
        step, error, value = _OUTCOME.unpack(_exactly(self._connection, _OUTCOME.size, self._before_waiting))
        if error:
            raise StepError(plan, step, error)
        return int(value)

    def run(
        self, plan: s.Plan, *, stdin: bytes = b"", timeout_s: float | None = None, together: bool = False
    ) -> Finished:
        """Have a program run to its end, as a plan's one process; with ``timeout_s`` it is killed, and its group, after
        that, and so is the group of one that fails. ``together``: what it says of errors is part of its output.

        Raises StepError when it cannot be started.
        """
        # Files, not pipes: a daemon that it leaves behind holds its output open, which must not keep us waiting.
        with memory_file("stdin", stdin) as given, memory_file("output") as output, memory_file("errors") as errors:
            with Launch(plan, {0: given, 1: output, 2: output if together else errors}, self) as launch:
                launch.next()
            pidfd = os.pidfd_open(launch.pid)
            try:
                in_time = wait_exit(pidfd, timeout_s, self.keep_alive)
            finally:
                os.close(pidfd)
            if not in_time:
                self.signal_all(_group(launch.pid), signal.SIGKILL)
            status = self._reap_and_end(launch.pid)
            return Finished(status, _tail(output), _tail(errors), in_time)

    def _reap_and_end(self, leader: int) -> int:
        """The exit status of a child that has ended; of one that failed, what it has left of its group is killed."""
        left: list[int] = []
        try:
            for pid in _group(leader):  # until it is reaped its number cannot be another group's
                with suppress(ProcessLookupError):
                    left.append(os.pidfd_open(pid))
            if (status := self.reap(leader)) != 0:
                for at in range(0, len(left), _MOST_RECEIVED):
                    self._signal_each(left[at : at + _MOST_RECEIVED], signal.SIGKILL)
            return status
        finally:
            for pidfd in left:
                os.close(pidfd)


class Finished(Struct, frozen=True):
    """A program that has ended: its exit status, 128 + n for signal n, the ends of what it wrote, and whether it ended
    ``in_time``."""

    status: int
    output: str
    errors: str
    in_time: bool = True


_TAIL_BYTES = 1 << 16


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _TAIL_BYTES, max(size - _TAIL_BYTES, 0)).decode(errors="replace")


def _group(leader: int) -> list[int]:
    """The processes whose group it leads."""
    members = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and os.getpgid(int(name)) == leader:
                members.append(int(name))
    return members
