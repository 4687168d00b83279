"""This module handles processes by pid and uses start times and pidfds to detect a pid that has been reused."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from runtime.errors import UsageError

# Fields of /proc/PID/stat, proc_pid_stat(5), counted after the command's closing parenthesis (which is field 2).
_STATE = 3 - 3
_PARENT = 4 - 3
_FLAGS = 9 - 3
_START_TIME = 22 - 3
_FORKED_ONLY = 0x40  # PF_FORKNOEXEC, include/linux/sched.h: no program has been executed since the clone
_DEAD = "ZXx"  # zombie; dead, in the two spellings the kernel has had


class ProcessGone(UsageError):
    """The process has ended, and its pid may have been reused."""


class _Stat(Struct, frozen=True):
    state: str
    parent: int
    flags: int
    start_time: int


def _parse_stat(line: bytes) -> _Stat:
    """Count fields from the last parenthesis, since the command is in parentheses and may contain spaces and others."""
    fields = line.rpartition(b")")[2].split()
    return _Stat(fields[_STATE].decode(), int(fields[_PARENT]), int(fields[_FLAGS]), int(fields[_START_TIME]))


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return _parse_stat(stream.read())
    except (FileNotFoundError, ProcessLookupError):  # the latter is raised when it ends between open and read
        return None


def _present_stat(pid: int) -> _Stat:
    stat = _stat(pid)
    if stat is None:
        raise ProcessGone(f"no process has the number {pid}")
    return stat


def start_time(pid: int) -> int:
    """Return the time at which the process was started, in clock ticks after boot. Raises ProcessGone."""
    return _present_stat(pid).start_time


def parent(pid: int) -> int:
    """Return the number of the process's parent, 0 when that is outside our pid namespace. Raises ProcessGone."""
    return _present_stat(pid).parent


def executed(pid: int, start_time: int = 0) -> bool | None:
    """Tell whether the process has executed a program since it was cloned.

    With a ``start_time``, the process meant is the one that was started then. Returns None when this cannot be
    determined any more, because it was reaped. It can still be determined for a zombie, which distinguishes a process
    that was killed before it executed a program from a program that ended at once.
    """
    stat = _stat(pid)
    if stat is None or start_time not in (0, stat.start_time):
        return None
    return not stat.flags & _FORKED_ONLY


def await_executed(pid: int, start_time: int = 0) -> bool | None:
    """Tell the same of a process that is about to execute a program, or has ended: wait until it is one of the two.

    What it held may be closed in the middle of an exec, before it shows as done: a guest with CRIU showed that.
    """
    while executed(pid, start_time) is False:
        stat = _stat(pid)
        if stat is None or stat.state in _DEAD:
            return executed(pid, start_time)
        time.sleep(0.001)
    return executed(pid, start_time)


def has_executed(pid: int, start_time: int) -> bool | None:
    """Tell whether the process with this pid and start time has executed a program since it was cloned.

    Returns None when the process no longer runs.
    """
    stat = _stat(pid) if pid > 0 else None
    if stat is None or stat.start_time != start_time or stat.state in _DEAD:
        return None
    return not stat.flags & _FORKED_ONLY


def alive(pid: int, start_time: int) -> bool:
    """Tell whether the process with this pid and start time still runs. A zombie does not."""
    stat = _stat(pid) if pid > 0 else None
    return stat is not None and stat.start_time == start_time and stat.state not in _DEAD


def open_pidfd(pid: int, start_time: int) -> int:
    """Return a pidfd of exactly that process, which the caller must close.

    Raises ProcessGone when it has ended, even if it is a zombie. The start time is compared after the pidfd is open, so
    a reused pid cannot go unnoticed.
    """
    gone = ProcessGone(f"process {pid}, started {start_time} ticks after boot, has ended")
    if pid <= 0:
        raise gone
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise gone from error
    if not alive(pid, start_time):
        os.close(pidfd)
        raise gone
    return pidfd


def send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process of a pidfd. Raises ProcessGone when it has ended and was reaped."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError as error:
        raise ProcessGone(f"send signal {number}: the process has ended") from error


def wait_exit(
    pidfd: int, timeout_s: float | None = None, meanwhile: Callable[[], None] = lambda: None, every_s: float = 5.0
) -> bool:
    """Wait until the process has ended, whoever its parent is.

    Returns False when ``timeout_s`` passes first; None means no limit. ``meanwhile`` is called every ``every_s``.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    until = float("inf") if timeout_s is None else time.monotonic() + max(timeout_s, 0)
    while True:
        left_s = max(until - time.monotonic(), 0)
        if poll.poll(min(left_s, every_s) * 1000):
            return True
        if left_s <= every_s and time.monotonic() >= until:
            return False
        meanwhile()


def parse_signal(text: str) -> int:
    """Parse a signal as kill(1) takes it: ``TERM``, ``SIGTERM``, ``term``, ``15``, ``RTMIN+3``, ``RTMAX-1``.

    0, which only asks whether the process exists, is accepted as well. Raises UsageError.
    """
    number = _signal_number(text.strip().upper())
    if number is None or not 0 <= number <= signal.SIGRTMAX:
        raise UsageError(
            f"{text!r} is not a signal", f"give a name such as TERM, or a number up to {signal.SIGRTMAX:d}"
        )
    return number


def _signal_number(text: str) -> int | None:
    if text.isascii() and text.isdigit():
        return int(text) if len(text) < 4 else None
    name = text.removeprefix("SIG")
    for base, sign in (("RTMIN", "+"), ("RTMAX", "-")):
        offset = name.removeprefix(f"{base}{sign}")
        if offset != name and offset.isascii() and offset.isdigit() and len(offset) < 4:
            number = int(signal.Signals[f"SIG{base}"]) + int(f"{sign}{offset}")
            return number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else None
    with suppress(KeyError):
        return int(signal.Signals[f"SIG{name}"])
    return None
