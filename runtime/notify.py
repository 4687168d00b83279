"""What a service manager gives the runtime for the container: sockets that it has opened already (sd_listen_fds(3)),
and where to say that the container is ready (sd_notify(3)). Both go on as runc does it.

The manager listens to processes of the service only, which the container's are not. So the container is given a socket
of ours, below /run/notify, and we say again what matters.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import UsageError
from runtime.processes import ProcessGone, open_pidfd
from runtime.state import Place, Record

SOCKET = "notify.sock"
_MESSAGE_BYTES = 4096
_BARRIER_S = 5.0


def passed_on(environment: Mapping[str, str], pid: int) -> tuple[int, str]:
    """How many sockets are passed on to the process ``pid``, from descriptor 3 on; and where the manager listens, or
    an empty text."""
    count = environment.get("LISTEN_FDS", "")
    ours = environment.get("LISTEN_PID") == str(pid) and count.isascii() and count.isdigit() and len(count) < 4
    return int(count) if ours else 0, environment.get("NOTIFY_SOCKET", "")


class Relay:
    """The container's socket, and the manager's."""

    def __init__(self, own: socket.socket, manager: str) -> None:
        self._own, self._manager = own, manager

    def wait(self, record: Record, main_pid: int) -> None:
        """Wait until the container says that it is ready, or has ended, and tell the manager the former, and which
        process the service's is."""
        try:
            pidfd = open_pidfd(record.pid, record.start_time)
        except ProcessGone:
            return
        try:
            while self._own.fileno() in select.select([self._own.fileno(), pidfd], [], [])[0]:
                if b"READY=1" in self._own.recv(_MESSAGE_BYTES).split(b"\n"):
                    self._tell(b"READY=1\n", f"MAINPID={main_pid}\n".encode())
                    return
        finally:
            os.close(pidfd)

    def wait_beside(self, record: Record, main_pid: int) -> None:
        """The same, while the caller goes on."""
        import threading

        beside = Relay(self._own.dup(), self._manager)
        threading.Thread(target=beside.wait, args=(record, main_pid), daemon=True).start()

    def _tell(self, *messages: bytes) -> None:
        """Say it, and wait until it has been heard: of a sender that has ended the manager cannot tell whose it was."""
        address = "\0" + self._manager[1:] if self._manager.startswith("@") else self._manager
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


@contextmanager
def listening(place: Place, manager: str) -> Iterator[Relay | None]:
    """The socket of a created container that has a directory for it, for as long as somebody wants to be told."""
    directory = place.notify_directory
    if not manager or not directory.is_dir():
        yield None
        return
    held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
        try:
            path = Path(f"/proc/self/fd/{held}/{SOCKET}")  # short enough for a socket address
            path.unlink(missing_ok=True)
            own.bind(str(path))
            path.chmod(0o777)
        except OSError as error:
            raise UsageError(f"listen for container {place.id} in {directory}: {error.strerror}") from error
        finally:
            os.close(held)
        yield Relay(own, manager)
