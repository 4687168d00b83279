"""What the command line's client does on the host, in its own process: files, sockets, processes."""

from __future__ import annotations

import os
import struct
from typing import ClassVar

from runtime.plan.steps.base import Step


class Lock(Step, frozen=True):
    """flock(2) ``path`` and hold it as descriptor ``fd``; ``create`` makes the file. EAGAIN when it is still held after
    ``timeout_ms`` (0: wait as long as it takes), ESTALE when the file is another by then."""

    op: ClassVar[int] = 66
    path: str
    fd: int
    timeout_ms: int = 0
    create: bool = False

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.timeout_ms, self.create)

    def strings(self) -> tuple[bytes, ...]:
        return (os.fsencode(self.path),)


class Replace(Step, frozen=True):
    """Write a file so that a reader sees the old one or the new one, whole: ``temporary`` is a name beside it."""

    op: ClassVar[int] = 67
    path: str
    temporary: str
    content: bytes
    mode: int = 0o600

    def numbers(self) -> tuple[int, ...]:
        return (self.mode,)

    def strings(self) -> tuple[bytes, ...]:
        return (os.fsencode(self.path), os.fsencode(self.temporary), self.content)


class Remove(Step, frozen=True):
    """unlinkat(2) a file, or a ``directory``; one that is busy for at most ``timeout_ms``."""

    op: ClassVar[int] = 68
    path: str
    directory: bool = False
    timeout_ms: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.directory, self.timeout_ms)

    def strings(self) -> tuple[bytes, ...]:
        return (os.fsencode(self.path),)


class Listen(Step, frozen=True):
    """A UNIX socket of type SOCK_SEQPACKET that listens at ``path``, as descriptor ``fd``."""

    op: ClassVar[int] = 69
    path: str
    fd: int

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)

    def strings(self) -> tuple[bytes, ...]:
        return (os.fsencode(self.path),)


class Spawn(Step, frozen=True):
    """Start the launcher, from descriptor ``launcher``, with ``descriptors``: pairs of ours and its number for it. Its
    process id is the step's value."""

    op: ClassVar[int] = 70
    launcher: int
    descriptors: tuple[tuple[int, int], ...]

    def numbers(self) -> tuple[int, ...]:
        return (self.launcher,)

    def strings(self) -> tuple[bytes, ...]:
        return (b"".join(struct.pack("<ii", *pair) for pair in self.descriptors),)


class Reap(Step, frozen=True):
    """wait4(2) for the child ``pid``; its exit status, 128 + n for signal n, is the step's value."""

    op: ClassVar[int] = 71
    pid: int

    def numbers(self) -> tuple[int, ...]:
        return (self.pid,)


class SignalProcess(Step, frozen=True):
    """pidfd_send_signal(2) through the descriptor ``fd``."""

    op: ClassVar[int] = 72
    fd: int
    number: int

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.number)


class HoldSignals(Step, frozen=True):
    """Block the signals that are to be passed on, until it is known to whom."""

    op: ClassVar[int] = 73


class Accompany(Step, frozen=True):
    """Wait for the child ``pid``, and pass signals on to it; its exit status is the step's value.

    Then wait for the child ``relay``, unless that is 0."""

    op: ClassVar[int] = 74
    pid: int
    relay: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.pid, self.relay)


class Close(Step, frozen=True):
    """close(2) the descriptor ``fd``."""

    op: ClassVar[int] = 75
    fd: int

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)
