"""What the command line's client does on the host, in its own process: files, sockets, processes."""

import struct
from typing import Annotated

from runtime.plan.steps import purposes
from runtime.plan.steps.arguments import Mode, Positive, String
from runtime.plan.steps.base import Step


class Lock(Step, frozen=True):
    """flock(2) ``path`` and hold it as descriptor ``fd``; ``create`` makes the file. EAGAIN when it is still held after
    ``timeout_ms`` (0: wait as long as it takes), ESTALE when the file is another by then."""

    words = "flock {path} LOCK_EX as descriptor {fd}"
    purpose = purposes.RECORD

    path: str
    fd: Positive
    timeout_ms: Positive = 0
    create: bool = False


class Replace(Step, frozen=True):
    """Write a file so that a reader sees the old one or the new one, whole: ``temporary`` is a name beside it."""

    words = "write {path} anew, by rename from {temporary}"
    purpose = purposes.RECORD

    path: str
    temporary: str
    content: bytes
    mode: Mode = 0o600


class Remove(Step, frozen=True):
    """unlinkat(2) a file, or a ``directory``."""

    words = "unlinkat {path}"
    purpose = purposes.RECORD

    path: str
    directory: bool = False


class Listen(Step, frozen=True):
    """A UNIX socket of type SOCK_SEQPACKET that listens at ``path``, as descriptor ``fd``."""

    words = "bind and listen at {path} as descriptor {fd}"
    purpose = purposes.SYNC

    path: str
    fd: Positive


class Close(Step, frozen=True):
    """close(2) the descriptor ``fd``."""

    words = "close descriptor {fd}"
    purpose = purposes.RECORD

    fd: Positive


def _pairs(descriptors: tuple[tuple[int, int], ...]) -> bytes:
    return b"".join(struct.pack("<ii", *pair) for pair in descriptors)


class Spawn(Step, frozen=True):
    """Start the launcher, from descriptor ``launcher``, with ``descriptors``: pairs of ours and its number for it. Its
    process id is the step's value."""

    words = "clone3, execveat the launcher from descriptor {launcher}"
    purpose = purposes.LAUNCH

    launcher: Positive
    descriptors: Annotated[tuple[tuple[int, int], ...], String(_pairs, raw=True)]


class Reap(Step, frozen=True):
    """wait4(2) for the child ``pid``; its exit status, 128 + n for signal n, is the step's value."""

    words = "wait4 {pid}"
    purpose = purposes.LAUNCH

    pid: Positive


class SignalProcess(Step, frozen=True):
    """pidfd_send_signal(2) through the descriptor ``fd``."""

    words = "pidfd_send_signal {number} through descriptor {fd}"
    purpose = purposes.LAUNCH

    fd: Positive
    number: Positive


class HoldSignals(Step, frozen=True):
    """Block the signals that are to be passed on, until it is known to whom."""

    words = "rt_sigprocmask SIG_BLOCK all that is to be passed on"
    purpose = purposes.LAUNCH


class Accompany(Step, frozen=True):
    """Wait for the child ``pid``, and pass signals on to it; its exit status is the step's value.

    Then wait for the child ``relay``, unless that is 0."""

    words = "wait4 {pid}, and pass signals on to it"
    purpose = purposes.LAUNCH

    pid: Positive
    relay: Positive = 0
