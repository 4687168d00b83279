"""Have the calling client perform what a command decides, so that it happens in the caller's own process tree.

A command decides what is to be done and sends it to the client (launcher/client/client.c) as plans that have parent
steps only. The client answers each plan with the step that failed, or with a value. This process itself changes
nothing, so it can be killed at any moment and another one can continue.
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
from runtime.launcher import Launch, StepError, sealed_launcher
from runtime.launcher.memory import memory_file
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
# An empty request that asks whether a planner is there; the planner answers it with one byte.
QUESTION = _REQUEST.pack(_MAGIC, _REQUEST.size, 0, 0, 0)
# The client assumes that a planner is stuck if it sends nothing for half a minute.
_ALIVE_S = 2.0
# The rest of a message that a client has begun to send arrives within this time.
_SOON_MS = 2
# These errors mean that nobody can read a message on standard error any more.
_UNREAD = (EPIPE, EBADF, EIO, EAGAIN)


_STREAMS = tuple((f"/dev/{name}", f"fd/{number}") for number, name in enumerate(("stdin", "stdout", "stderr")))


class CallerGone(TestbedError):
    """The client has ended, so nothing can be done or undone for it any more."""


class Request(Struct, frozen=True, dict=True):
    """What a client asks for: its ``arguments`` without the program's name, its environment ``variables`` (NAME=value),
    its file mode ``umask`` and its process id."""

    arguments: tuple[str, ...]
    variables: tuple[bytes, ...]
    umask: int
    pid: int

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """Return the environment as a mapping from names to values."""
        pairs = (os.fsdecode(variable).partition("=") for variable in self.variables)
        return {name: value for name, equals, value in pairs if equals}


def receive_request(connection: socket.socket, pid: int, before_waiting: Callable[[], None]) -> Request | None:
    """Receive the request of the client ``pid``; return None for QUESTION.

    Raises CallerGone when the request is cut off and TestbedError when it is malformed."""
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
    """Receive exactly ``size`` bytes, calling ``before_waiting`` whenever they do not arrive at once."""
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
    """Represents one client, from its request to its exit status."""

    def __init__(self, connection: socket.socket, request: Request, before_waiting: Callable[[], None]) -> None:
        """Call ``before_waiting`` each time before this process waits for the client."""
        self.request = request
        self._before_waiting = before_waiting
        # The request with which the client undoes what was begun if this process ends before its next message.
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
        """Return the client's working directory."""
        return os.readlink(f"/proc/{self.pid}/cwd")

    def path(self, name: str | os.PathLike[str]) -> str:
        """Resolve a path as the client means it."""
        path = os.path.join(self.directory, name)
        for prefix, own in (("/proc/self/", ""), ("/dev/fd/", "fd/"), *_STREAMS):
            if path.startswith(prefix):
                return f"/proc/{self.pid}/{own}{path.removeprefix(prefix)}"
        return path

    def perform(self, *steps: s.Step, descriptors: Sequence[int] = ()) -> int:
        """Have the client perform the steps; return the value of the last step that has one, or -1.

        The client receives our ``descriptors``, numbered from s.RECEIVED_FD on. Raises StepError, CallerGone.
        """
        plan = s.Plan((), (*self._first, *steps))
        self._first.clear()
        if not plan.parent:
            return -1
        self._send(plan, descriptors, self.undo)
        return self._outcome(plan)

    def later(self, *steps: s.Step) -> None:
        """Have the client perform the steps before the next ones that it is sent."""
        self._first += steps

    def say(self, descriptor: int, text: str) -> None:
        """Write to one of the client's streams before it does anything else."""
        data = text.encode(errors="backslashreplace")
        self.later(s.WriteDescriptor(descriptor, data, tolerate=_UNREAD if descriptor == 2 else ()))

    def attempt(self, *steps: s.Step, descriptors: Sequence[int] = ()) -> None:
        """Have the client perform each of the steps, even if others fail."""
        for step in steps:
            with suppress(StepError):
                self.perform(step, descriptors=descriptors)

    def finish(self, status: int, *steps: s.Step, more: Sequence[str] = ()) -> None:
        """Have the client perform the last steps and exit with ``status`` or, if that is 0, with the value of the last
        step that has one. With ``more``, the client makes that request before it exits: it is what has to follow the
        end of a process that the client waited for."""
        plan = s.Plan((), (*self._first, *steps))
        self.ended = True
        self._send(plan, (), more, status=status)

    def keep_alive(self) -> None:
        """Tell the client that its request is still being worked on. Raises CallerGone."""
        self._write(_ANSWER.pack(0, 0, 0, 0), ())

    def await_message(self, channel: int) -> None:
        """Wait until ``channel`` can be read. Raises CallerGone when the client ends first."""
        self._before_waiting()
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(self._connection, select.POLLRDHUP)
        while not (ready := dict(poll.poll(_ALIVE_S * 1000))):
            self.keep_alive()
        if channel not in ready:
            raise CallerGone("the client has ended")

    def hold_signals(self) -> None:
        """Have the client hold back the signals that it is to pass on to a process of its own."""
        if not self._signals_held:
            self._signals_held = True
            self.later(s.HoldSignals())

    def start(self, plan: int, channel: int, given: Mapping[int, int], own: Mapping[int, int]) -> int:
        """Have the client start the launcher; return its process id.

        ``plan`` and ``channel`` are descriptors of ours. So are the values of ``given``, whose keys are the launcher's
        numbers for them; ``own`` maps the launcher's numbers to descriptors of the client in the same way.
        """
        ours = {s.PLAN_FD: plan, s.SYNC_FD: channel, **given}
        pairs = [(s.RECEIVED_FD + 1 + place, target) for place, target in enumerate(ours)]
        pairs += [(source, target) for target, source in own.items()]
        return self.perform(s.Spawn(s.RECEIVED_FD, tuple(pairs)), descriptors=(sealed_launcher(), *ours.values()))

    def reap(self, pid: int) -> int:
        """Wait for a child of the client and return its exit status: 128 + n for signal n, -1 if it is no child."""
        try:
            return self.perform(s.Reap(pid))
        except StepError:
            return -1

    def reap_later(self, pid: int) -> None:
        """Have the client reap a child that is about to end before it does anything else."""
        self.later(s.Reap(pid, tolerate=(ECHILD,)))

    def signal(self, pidfd: int, number: int) -> None:
        """Have the client signal the process that our ``pidfd`` refers to. Raises ProcessLookupError."""
        try:
            self.perform(s.SignalProcess(s.RECEIVED_FD, number), descriptors=(pidfd,))
        except StepError as error:
            raise OSError(error.errno, os.strerror(error.errno)) from error

    def signal_all(self, pids: Sequence[int], number: int) -> None:
        """Signal processes by their pids, skipping those that have ended meanwhile."""
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

    # The methods below are those of runtime.effects.Effects.

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
        """Return the connection through which the client talks to systemd."""
        return systemd.Bus(self.environment, self._busctl)

    def _busctl(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        done = self.execute(command, environment)
        return done.status, done.output, done.errors

    def execute(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Finished:
        """Run a program to its end. Raises OSError when it cannot be executed."""
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
        """Run a program to its end as the only process of a plan.

        After ``timeout_s`` its process group is killed; if the program fails, so is what is left of its group. With
        ``together``, its standard error goes into its output. Raises StepError when it cannot be started.
        """
        # These are files, not pipes: a daemon that the program leaves behind would keep a pipe open and us waiting.
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
        """Reap a child that has ended and return its exit status; if it failed, kill the rest of its process group."""
        left: list[int] = []
        try:
            for pid in _group(leader):  # until it is reaped, no other group can have its number
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
    """A program that has ended: its exit ``status`` (128 + n for signal n), the last part of what it wrote to each
    stream, and whether it ended ``in_time``."""

    status: int
    output: str
    errors: str
    in_time: bool = True


_TAIL_BYTES = 1 << 16


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _TAIL_BYTES, max(size - _TAIL_BYTES, 0)).decode(errors="replace")


def _group(leader: int) -> list[int]:
    """Return the processes whose process group ``leader`` leads."""
    members = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and os.getpgid(int(name)) == leader:
                members.append(int(name))
    return members
