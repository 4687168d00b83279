"""A container that is to be deleted by force while another command works on it, which may never end: it waits for a
process that is stopped, or for a hook."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import hierarchies_for
from runtime.errors import TestbedError
from runtime.processes import ProcessGone, open_pidfd, send_signal
from runtime.state import LOCK, Busy, Place, Record, UnknownContainer

# How long the other command has to end by itself, and to end once its container's processes are dead.
_PATIENCE_S, _END_S = 5.0, 1.0


@contextmanager
def locked_by_force(place: Place) -> Iterator[None]:
    """Nobody else works on the container meanwhile. What a command that does not end waits for is killed, and then that
    command. Raises UnknownContainer, and Busy for a command that is not killed by that."""
    with ExitStack() as locked:
        try:
            locked.enter_context(place.locked(_PATIENCE_S))
        except Busy:
            with suppress(UnknownContainer):
                _kill_processes(place.read())
            try:
                locked.enter_context(place.locked(_END_S))
            except Busy:
                _kill_holders(place.directory / LOCK)
                locked.enter_context(place.locked(_END_S))
        yield


def _kill_processes(record: Record) -> None:
    """Kill the first process and what is in the cgroup, frozen or not."""
    if record.cgroup:
        cgroup = Cgroup(record.cgroup, hierarchies_for(record.cgroup))
        with suppress(TestbedError, OSError):
            cgroup.freeze(False)
        for pid in cgroup.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    with suppress(ProcessGone):
        pidfd = open_pidfd(record.pid, record.start_time)
        with suppress(ProcessGone):
            send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


def _kill_holders(lock: Path) -> None:
    """Kill the commands that hold the lock.

    /proc/locks names who took it (proc_locks(5)), who may be dead since, and the number another's: only a process that
    has the file open is one.
    """
    inode = os.stat(lock).st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] != "FLOCK" or fields[5].rpartition(":")[2] != str(inode):
            continue
        with suppress(OSError):
            pidfd = os.pidfd_open(int(fields[4]))
            try:
                if _has_open(int(fields[4]), lock):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _has_open(pid: int, file: Path) -> bool:
    for descriptor in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            if os.path.samestat(os.stat(descriptor.path), os.stat(file)):
                return True
    return False
