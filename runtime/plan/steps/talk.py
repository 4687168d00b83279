"""Talking: with the starter, the kernel's network, and whoever reads the console."""

from __future__ import annotations

from typing import ClassVar

from runtime.plan.steps.base import Step


class Sync(Step, frozen=True):
    """Tell the starter that point ``number`` is reached and wait for its word to go on."""

    op: ClassVar[int] = 43
    number: int
    what: str = ""

    def numbers(self) -> tuple[int, ...]:
        return (self.number,)


class HandOver(Step, frozen=True):
    """Of the launcher, beside: give the child the descriptor ``fd``, for its TakeOver of the same number."""

    op: ClassVar[int] = 53
    fd: int

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)


class TakeOver(Step, frozen=True):
    """Of the child: wait for the descriptor ``fd`` that the launcher hands over; it is kept, or, with ``namespace``
    (CLONE_NEW...), the namespace that it stands for is entered."""

    op: ClassVar[int] = 54
    fd: int
    namespace: int = 0

    def numbers(self) -> tuple[int, ...]:
        return (self.fd, self.namespace)


class Announce(Step, frozen=True):
    """Of the launcher, beside: tell the child that ``what`` is done, for its AwaitAnnounced."""

    op: ClassVar[int] = 61
    what: str


class AwaitAnnounced(Step, frozen=True):
    """Of the child: wait for the launcher's Announce."""

    op: ClassVar[int] = 62
    what: str


class AwaitStart(Step, frozen=True):
    """The container is created: wait until somebody connects to LISTEN_FD and gives the word."""

    op: ClassVar[int] = 44


class Admission(Step, frozen=True):
    """Connect to the Unix socket at ``path`` and wait for the word of who listens there: it knows who asks, and may put
    the process into cgroups or grant it other things that it has no right to take; a descriptor that comes with the
    word becomes standard input. EACCES when it is refused."""

    op: ClassVar[int] = 59
    path: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(),)


class Terminal(Step, frozen=True):
    """A new terminal of the devpts at dev/pts becomes the standard streams; its master goes to the starter."""

    op: ClassVar[int] = 42
    uid: int
    rows: int = 0
    columns: int = 0
    console: bool = True

    def numbers(self) -> tuple[int, ...]:
        return (self.uid, self.rows, self.columns, self.console)


class Message(Step, frozen=True):
    """Write one line to descriptor 2 (in a guest: the console), for whoever times the phases."""

    op: ClassVar[int] = 25
    text: str

    def strings(self) -> tuple[bytes, ...]:
        return (self.text.encode() + b"\n",)


class Serve(Step, frozen=True):
    """Read encoded plans from descriptor ``fd``, a terminal, and perform each as it comes, until its end.

    They hold no Exec. One of which a step fails is reported as ever, on standard error, and the next is awaited.
    """

    op: ClassVar[int] = 56
    fd: int

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)


class Answer(Step, frozen=True):
    """Whenever something comes in on descriptor ``fd``, write there what the file ``path`` says now, then ``end``.

    It goes on for as long as the other side is there: a step of a forked process.
    """

    op: ClassVar[int] = 60
    path: str
    fd: int
    end: str

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.path.encode(), self.end.encode() + b"\n")


class NetlinkSocket(Step, frozen=True):
    """Open a route netlink socket in the current network namespace, at descriptor ``fd``."""

    op: ClassVar[int] = 21
    fd: int

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)


class Netlink(Step, frozen=True):
    """Send one rtnetlink request on ``fd`` and take the kernel's answer; ``what`` is for the reader."""

    op: ClassVar[int] = 22
    fd: int
    message: bytes
    what: str = ""

    def numbers(self) -> tuple[int, ...]:
        return (self.fd,)

    def strings(self) -> tuple[bytes, ...]:
        return (self.message,)
