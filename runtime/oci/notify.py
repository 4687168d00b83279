"""What a service manager gives the runtime for the container: sockets that it has opened already (sd_listen_fds(3)),
and where to say that the container is ready (sd_notify(3)). Both go on as runc does it.

The manager listens to processes of the service only, which the container's are not. So the container is given a socket
of ours, below /run/notify, and we say again what matters.
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
    """How many sockets are passed on to the process ``pid``, from descriptor 3 on; and where the manager listens, or
    an empty text."""
    count = environment.get("LISTEN_FDS", "")
    ours = environment.get("LISTEN_PID") == str(pid) and count.isascii() and count.isdigit() and len(count) < 4
    return int(count) if ours else 0, environment.get("NOTIFY_SOCKET", "")


def wait_until_ready(directory: str, pid: int, start_time: int, manager: str, main_pid: int) -> None:
    """Listen in a created container's directory until it says that it is ready, or has ended, and tell the manager the
    former, and which process the service's is.

    Raises UsageError when it cannot be listened there.
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
        path = Path(f"/proc/self/fd/{held}/{SOCKET}")  # short enough for a socket address
        new = path.with_name(f".{SOCKET}")
        path.unlink(missing_ok=True)
        new.unlink(missing_ok=True)
        own.bind(str(new))
        new.chmod(0o777)
        new.rename(path)  # it is there when it can be used
    except OSError as error:
        raise UsageError(f"listen in {directory}: {error.strerror}") from error
    finally:
        os.close(held)


def _tell(manager: str, *messages: bytes) -> None:
    """Say it, and wait until it has been heard: of a sender that has ended the manager cannot tell whose it was."""
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
    """Have a job listen for a created container that has a directory for it, if the caller wants to be told.

    Returns its process id, or 0. Raises UsageError when it does not listen."""
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
