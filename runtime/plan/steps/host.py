"""Define the steps that the command line's client performs on the host, in its own process: they deal with files,
sockets and processes."""

import struct
from typing import Annotated

from runtime.plan.steps import purposes
from runtime.plan.steps.arguments import Mode, Positive, String
from runtime.plan.steps.base import Step


class Lock(Step, frozen=True):
    """Lock ``path`` with flock(2) and hold it as descriptor ``fd``; ``create`` makes the file. Fails with EAGAIN when
    another process still holds the lock after ``timeout_ms`` (0: wait as long as it takes), and with ESTALE when
    ``path`` is another file by then."""

    words = "flock {path} LOCK_EX as descriptor {fd}"
    purpose = purposes.RECORD

    path: str
    fd: Positive
    timeout_ms: Positive = 0
    create: bool = False


class Replace(Step, frozen=True):
    """Replace a file atomically, so that a reader sees all of the old or all of the new one. ``temporary`` is a name
    beside it."""

    words = "write {path} anew, by rename from {temporary}"
    purpose = purposes.RECORD

    path: str
    temporary: str
    content: bytes
    mode: Mode = 0o600


class Remove(Step, frozen=True):
    """Remove a file, or a ``directory``, with unlinkat(2)."""

    words = "unlinkat {path}"
    purpose = purposes.RECORD

    path: str
    directory: bool = False


class Listen(Step, frozen=True):
    """Make a UNIX socket of type SOCK_SEQPACKET that listens at ``path``, as descriptor ``fd``."""

    words = "bind and listen at {path} as descriptor {fd}"
    purpose = purposes.SYNC

    path: str
    fd: Positive


class Close(Step, frozen=True):
    """Close the descriptor ``fd`` with close(2)."""

    words = "close descriptor {fd}"
    purpose = purposes.RECORD

    fd: Positive


def _pairs(descriptors: tuple[tuple[int, int], ...]) -> bytes:
    return b"".join(struct.pack("<ii", *pair) for pair in descriptors)


class Spawn(Step, frozen=True):
    """Start the launcher from descriptor ``launcher``. ``descriptors`` are pairs of a descriptor of ours and its number
    in the launcher. The launcher's process ID is the step's value."""

    words = "clone3, execveat the launcher from descriptor {launcher}"
    purpose = purposes.LAUNCH

    launcher: Positive
    descriptors: Annotated[tuple[tuple[int, int], ...], String(_pairs, raw=True)]


class Reap(Step, frozen=True):
    """Wait for the child ``pid`` with wait4(2); its exit status, 128 + n for signal n, is the step's value."""

    words = "wait4 {pid}"
    purpose = purposes.LAUNCH

    pid: Positive


class SignalProcess(Step, frozen=True):
    """Send signal ``number`` with pidfd_send_signal(2) through the descriptor ``fd``."""

    words = "pidfd_send_signal {number} through descriptor {fd}"
    purpose = purposes.LAUNCH

    fd: Positive
    number: Positive


class HoldSignals(Step, frozen=True):
    """Block the signals that are to be passed on, until their recipient is known."""

    words = "rt_sigprocmask SIG_BLOCK all that is to be passed on"
    purpose = purposes.LAUNCH


class Accompany(Step, frozen=True):
    """Wait for the child ``pid``, and pass signals on to it; its exit status is the step's value.

    Then wait for the child ``relay``, unless that is 0."""

    words = "wait4 {pid}, and pass signals on to it"
    purpose = purposes.LAUNCH

    pid: Positive
    relay: Positive = 0
