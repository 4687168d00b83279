"""This module finds the planners of this user and ends them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from runtime.cgroups import hierarchies
from runtime.errors import TestbedError
from runtime.processes import wait_exit

# This is the same name as in launcher/client/planner.c.
_DIRECTORY = "testbed-runtime-planner"
# Planners that leave their callers' cgroups go into this one.
CGROUP = "testbed-runtime-planner"
_PEER = struct.Struct("=iII")
_END_S = 5.0


class Resident(Struct, frozen=True):
    """A planner: its process id, and the socket at which it listens."""

    pid: int
    socket: Path


def directories(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the directories in which this user's planners listen."""
    above = [Path("/run")] if os.geteuid() == 0 else []
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    above.append(Path(runtime) if runtime.startswith("/") else Path(f"/tmp/testbed-runtime-{os.geteuid()}"))
    return tuple(path / _DIRECTORY for path in above)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return the process id and the user id of the process at the other end."""
    pid, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, user


def residents(environment: Mapping[str, str]) -> tuple[Resident, ...]:
    """Return this user's planners that listen, of any version."""
    found: list[Resident] = []
    for directory in directories(environment):
        for path in sorted(directory.glob("*.socket")):
            pid, user = _listener(directory, path.name) or (0, -1)
            if user == os.geteuid():
                found.append(Resident(pid, path))
    return tuple(found)


def remove_dead(directory: Path) -> None:
    """Remove the sockets of planners that were killed, at which nobody listens any more."""
    for path in directory.glob("*.socket"):
        with suppress(OSError):
            if _listener(directory, path.name) == (0, -1):
                path.unlink(missing_ok=True)


def _listener(directory: Path, name: str) -> tuple[int, int] | None:
    """Return the process id and the user id of the process that listens there.

    Returns 0 and -1 when nobody listens, and None when that cannot be determined.
    """
    try:
        held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            connection.connect(f"/proc/self/fd/{held}/{name}")  # short enough for a socket address
            return peer(connection)
    except ConnectionRefusedError:
        return 0, -1
    except OSError:
        return None
    finally:
        os.close(held)


def end(resident: Resident) -> None:
    """End a planner; those whom it serves then do without it. Raises TestbedError when it does not end."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(resident.pid)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(pidfd, number)
                if wait_exit(pidfd, _END_S):
                    break
            else:
                raise TestbedError(f"end the planner {resident.pid}: it is still there")
        finally:
            os.close(pidfd)
    resident.socket.unlink(missing_ok=True)
    for mount in hierarchies().used:
        _remove(mount / CGROUP)


def _remove(directory: Path) -> None:
    """Remove a cgroup unless another planner is in it, and wait if a planner that ended has not been reaped yet."""
    deadline = time.monotonic() + _END_S
    with suppress(FileNotFoundError):
        while not (directory / "cgroup.procs").read_text() and time.monotonic() < deadline:
            try:
                return directory.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(0.01)
