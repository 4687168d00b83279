"""Lock a container that is to be deleted by force while another command works on it. That command may never end, for
example because it waits for a stopped process or for a hook."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import hierarchies_for
from runtime.errors import TestbedError
from runtime.oci.caller import Caller
from runtime.oci.state import LOCK, Busy, Record, StateDir, UnknownContainer
from runtime.processes import ProcessGone, open_pidfd

# The other command gets this long to end by itself, and this long once the container's processes are dead.
_PATIENCE_S, _END_S = 5.0, 1.0


def lock_by_force(container: StateDir, caller: Caller) -> None:
    """Lock the container for this command. If another command holds the lock and does not end, kill the container's
    processes that it may wait for, and then that command. Raises UnknownContainer, and Busy if it survives that."""
    try:
        return container.lock(caller, _PATIENCE_S)
    except Busy:
        with suppress(UnknownContainer):
            _kill_processes(container.read(), caller)
    try:
        return container.lock(caller, _END_S)
    except Busy:
        _kill_holders(Path(container.file(LOCK)), caller)
        container.lock(caller, _END_S)


def _kill_processes(record: Record, caller: Caller) -> None:
    """Kill the first process and all processes in the cgroup, frozen or not."""
    if record.cgroup:
        cgroup = Cgroup(record.cgroup, hierarchies_for(record.cgroup))
        with suppress(TestbedError, OSError):
            cgroup.freeze(False, by=caller)
        caller.signal_all(cgroup.pids(), signal.SIGKILL)
    with suppress(ProcessGone):
        pidfd = open_pidfd(record.pid, record.start_time)
        try:
            caller.signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)


def _kill_holders(lock: Path, caller: Caller) -> None:
    """Kill the commands that hold the lock.

    /proc/locks names the process that took the lock (proc_locks(5)). That process may have died and its pid may have
    been reused, so only a process that still has the file open counts.
    """
    inode = lock.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] != "FLOCK" or fields[5].rpartition(":")[2] != str(inode):
            continue
        with suppress(OSError):
            pidfd = os.pidfd_open(int(fields[4]))
            try:
                if _has_open(int(fields[4]), lock):
                    caller.signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _has_open(pid: int, file: Path) -> bool:
    for descriptor in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            if os.path.samestat(os.stat(descriptor.path), file.stat()):
                return True
    return False
