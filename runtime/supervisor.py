"""This program starts the containers of a host, passes on what they print, and ends when one of them ends that may not
leave. Tenants may, and others for which that is said, as long as one is there that is no tenant. Of a container that is
held all but the last step is done; it begins when a byte comes through its FIFO.

    python3 -m runtime.supervisor DESCRIPTION

It is PID 1 of a guest, and its standard output is the console, where the host outside reads these lines:

    testbed: NAME: created        the first process of container NAME has been cloned
    testbed: NAME: exec           it has executed its command
    NAME: TEXT                    what it wrote
    testbed: NAME: ended: 3       its exit status, which is the supervisor's own, too
    testbed: NAME: left: 3        the same of one that may leave; the others go on
    testbed: NAME: failed: TEXT   it could not be started

The imports are few on purpose, because under emulation each takes a noticeable part of the start.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from runtime import container
from runtime.container import Container, PooledContainer
from runtime.description import from_json
from runtime.errors import TestbedError
from runtime.launcher import STATIC_BINARY
from runtime.launcher.memory import memory_file
from runtime.lines import Lines
from runtime.plan.network import Attachment
from runtime.plan.sharing import with_paths
from runtime.spec import Spec

# Of a container, by its name.
CGROUP = "testbed/{}"
CREATED, EXECUTING, ENDED, LEFT, FAILED = "created", "exec", "ended: ", "left: ", "failed: "
_CHUNK_BYTES = 1 << 16
# ioctl_tty(2): TCSBRK with an argument other than 0 waits until all output has been sent.
_DRAIN = 0x5409


def mark(name: str, what: str) -> str:
    """Return the line with which the supervisor reports an event of container ``name``."""
    return f"testbed: {name}: {what}"


class Output:
    """One container's output, whose whole lines go to ``write``, each after the container's name."""

    def __init__(self, name: str, pipe: int, write: Callable[[bytes], None]) -> None:
        self.pipe = pipe
        self._lines = Lines(lambda lines: write(b"".join(line + b"\n" for line in lines)), f"{name}: ")

    def take(self) -> bool:
        """Pass on the output that is available. Returns False at its end."""
        try:
            data = os.read(self.pipe, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._lines.feed(data)
        return bool(data)

    def rest(self) -> None:
        """Pass on the remaining output without waiting for more, because a process that lives on may hold the pipe."""
        os.set_blocking(self.pipe, False)
        while select.select([self.pipe], [], [], 0)[0] and self.take():
            continue


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _say(name: str, what: str) -> None:
    _write(f"{mark(name, what)}\n".encode())


class _Running(Struct):
    """A container that runs or is held, what it prints, and a descriptor that becomes readable when its first process
    ends, closed when we exit; ``word`` is the FIFO of one that is held, -1 of another."""

    container: Container | PooledContainer
    output: Output
    end: int
    word: int = -1

    @property
    def pid(self) -> int:
        return self.container.process.pid if isinstance(self.container, Container) else self.container.pid

    def status(self) -> int | None:
        """Return its exit status; None while its first process is there."""
        return self.container.wait(0) if isinstance(self.container, Container) else self.container.exit_status()

    def begin(self) -> None:
        """Let one that is held begin. Raises TestbedError when it cannot."""
        assert isinstance(self.container, PooledContainer)
        os.close(self.word)
        self.word = -1
        self.container = self.container.start()


def _start(name: str, spec: Spec, attachment: Attachment | None, fifo: str) -> _Running:
    """Start a container, all but its last step if it is held: then a byte comes through the ``fifo`` for that."""
    read, write = os.pipe2(os.O_CLOEXEC)
    make: Callable[..., Container | PooledContainer] = container.pool if fifo else container.start
    try:
        made = make(spec, name=CGROUP.format(name), stdout=write, attachment=attachment)
    finally:
        os.close(write)
    one = _Running(made, Output(name, read, _write), -1)
    one.end = os.pidfd_open(one.pid)
    if fifo:
        one.word = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    _write("".join(f"{mark(name, what)}\n" for what in (CREATED, EXECUTING)[: 1 if fifo else 2]).encode())
    return one


def _serve(plan: bytes, first_process: int, processes: Iterable[int]) -> None:
    """Have the launcher perform a plan beside the containers, whose first processes it holds, in their order, as
    descriptors from ``first_process`` on."""
    with memory_file("testbed-server", plan) as file:
        moves = {3: file} | {first_process + number: one for number, one in enumerate(processes)}
        actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in moves.items()]
        os.posix_spawn(STATIC_BINARY, (STATIC_BINARY.name, "/proc/self/fd/3"), {}, file_actions=actions)


def supervise(
    specs: Mapping[str, Spec],
    bridge_index: int = 0,
    tenants: Collection[str] = (),
    server: str = "",
    first_process: int = 0,
    held: Mapping[str, str] = MappingProxyType({}),
    leaving: Collection[str] = (),
    stays: bool = False,
) -> int:
    """Start the containers in order, run them until one ends that may not leave, and return its exit status (128 + n
    for signal n).

    The others are then ended, too. If one cannot be started, this is reported and the result is 1. ``server`` is a
    plan in hexadecimal digits that is performed beside them, once they are there; see ``_serve``. ``held`` are the
    FIFOs of those that wait, ``leaving`` the names of those that may leave besides ``tenants``; with ``stays`` it goes
    on when all of these have.
    """
    running: dict[str, _Running] = {}
    try:
        for port, (name, spec) in enumerate(specs.items(), start=1):
            attachment = Attachment(bridge_index, port) if spec.link else None
            try:
                spec = with_paths(spec, lambda other: running[other].pid)
                running[name] = _start(name, spec, attachment, held.get(name, ""))
            except TestbedError as error:
                return _fail(name, error)
        if server:
            _serve(bytes.fromhex(server), first_process, (one.end for one in running.values()))
        return _watch(running, tenants, leaving, stays)
    finally:
        for one in reversed(running.values()):  # who shares the processes of another ends before it
            one.container.delete()


def _fail(name: str, error: TestbedError) -> int:
    _say(name, FAILED + str(error).replace("\n", " "))
    return 1


def _watch(running: dict[str, _Running], tenants: Collection[str], leaving: Collection[str], stays: bool) -> int:
    poll = select.poll()
    open_pipes = {one.output.pipe: one.output for one in running.values()}
    words = {one.word: name for name, one in running.items() if one.word >= 0}
    for descriptor in (*open_pipes, *words, *(one.end for one in running.values())):
        poll.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            output = open_pipes.get(descriptor)
            if output is not None and not output.take():
                poll.unregister(descriptor)
                del open_pipes[descriptor]
            if (begun := words.pop(descriptor, None)) is not None:
                poll.unregister(descriptor)
                try:
                    running[begun].begin()
                except TestbedError as error:
                    return _fail(begun, error)
                _say(begun, EXECUTING)
        for name, one in tuple(running.items()):
            status = one.status()
            if status is None:
                continue
            others = running.keys() - {name, *tenants}
            if name not in tenants and not (name in leaving and (others or stays)):
                for output in open_pipes.values():
                    output.rest()
                _say(name, f"{ENDED}{status}")
                return status
            poll.unregister(one.end)
            if words.pop(one.word, None) is not None:
                poll.unregister(one.word)
            del running[name]
            one.container.delete()
            _say(name, f"{LEFT}{status}")


def main(arguments: list[str]) -> int:
    """Supervise the containers that the named file describes."""
    with open(arguments[0]) as file:
        specs, rest = from_json(file.read())
    status = supervise(specs, **rest)
    if os.isatty(1):
        fcntl.ioctl(1, _DRAIN, 1)  # output still in the serial port when PID 1 ends is lost
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
