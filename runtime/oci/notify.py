"""Pass on to the container what a service manager gives the runtime: sockets that are already open (sd_listen_fds(3))
and the socket that takes the message that the container is ready (sd_notify(3)). Both are passed on as runc does it.

The manager accepts messages only from processes of the service, and the container's processes are none. The container
therefore gets a socket of ours below /run/notify, and we repeat what matters to the manager.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from runtime.errors import UsageError
from runtime.oci.caller import Caller
from runtime.oci.invocation import started_job
from runtime.oci.state import Record, StateDir
from runtime.processes import ProcessGone, open_pidfd

SOCKET = "notify.sock"
_MESSAGE_BYTES = 4096
_BARRIER_S = 5.0


def passed_on(environment: Mapping[str, str], pid: int) -> tuple[int, str]:
    """Return how many sockets are passed on to the process ``pid``, from descriptor 3 on, and the address where the
    manager listens, or an empty string."""
    count = environment.get("LISTEN_FDS", "")
    ours = environment.get("LISTEN_PID") == str(pid) and count.isascii() and count.isdigit() and len(count) < 4
    return int(count) if ours else 0, environment.get("NOTIFY_SOCKET", "")


def wait_until_ready(directory: str, pid: int, start_time: int, manager: str, main_pid: int) -> None:
    """Listen in a created container's directory until the container reports that it is ready or has ended. If it is
    ready, tell the manager so, and that ``main_pid`` is the service's main process.

    Raises UsageError when the socket cannot be made there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        _listen(own, Path(directory))
        try:
            pidfd = open_pidfd(pid, start_time)
        except ProcessGone:
            return
        try:
            while own.fileno() in select.select([own.fileno(), pidfd], [], [])[0]:
                if b"READY=1" in own.recv(_MESSAGE_BYTES).split(b"\n"):
                    _tell(manager, b"READY=1\n", f"MAINPID={main_pid}\n".encode())
                    return
        finally:
            os.close(pidfd)


def _listen(own: socket.socket, directory: Path) -> None:
    held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = Path(f"/proc/self/fd/{held}/{SOCKET}")  # this path is short enough for a socket address
        new = path.with_name(f".{SOCKET}")
        path.unlink(missing_ok=True)
        new.unlink(missing_ok=True)
        own.bind(str(new))
        new.chmod(0o777)
        new.rename(path)  # the name appears only once the socket can be used
    except OSError as error:
        raise UsageError(f"listen in {directory}: {error.strerror}") from error
    finally:
        os.close(held)


def _tell(manager: str, *messages: bytes) -> None:
    """Send the messages and wait until the manager has read them: it cannot attribute those of an ended sender."""
    address = "\0" + manager[1:] if manager.startswith("@") else manager
    heard, barrier = os.pipe()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
            channel.connect(address)
            for message in messages:
                channel.send(message)
            socket.send_fds(channel, [b"BARRIER=1"], [barrier])
        os.close(barrier)
        select.select([heard], [], [], _BARRIER_S)
    finally:
        os.close(heard)


def relayed(container: StateDir, record: Record, caller: Caller, main_pid: int) -> int:
    """Start a job that listens for a created container, if that has a notify directory and the caller a NOTIFY_SOCKET.

    Returns the job's process id, or 0. Raises UsageError when the job does not start to listen."""
    directory, manager = container.notify_directory, caller.environment.get("NOTIFY_SOCKET", "")
    if not manager or not directory.is_dir():
        return 0
    words = (str(directory), str(record.pid), str(record.start_time), manager, str(main_pid or record.pid))
    pid = started_job(caller, {}, "notify", *words)
    deadline = time.monotonic() + _BARRIER_S
    while not (directory / SOCKET).exists():
        if time.monotonic() > deadline:
            raise UsageError(f"listen for container {container.id} in {directory}: nothing came of it")
        time.sleep(0.005)
    return pid
