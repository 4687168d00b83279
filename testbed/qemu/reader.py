"""The thread that reads all guests' consoles, and reaps their QEMU.

QEMU connects to a socket that listens before it starts, so no byte is lost, and every line is stamped with the
host's clock as it arrives: the guest's phases are seen from outside, never by the guest's own clock.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import struct
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from runtime.errors import TestbedError
from runtime.output import BoundedLog
from testbed.qemu.console import Console

_CHUNK_BYTES = 1 << 16
_PR_SET_CHILD_SUBREAPER = 36
_adopting, _adopters = threading.Lock(), list[int]()
_PEER_CREDENTIALS = struct.Struct("3i")  # unix(7): pid, uid, gid


@contextmanager
def adopt_orphans() -> Iterator[None]:
    """Within, daemons that our children leave behind become our own children instead of init's.

    So QEMU, which libvirt starts as a daemon, can be reaped the moment it ends. An init that looks at its
    orphans only now and then would otherwise keep whoever waits for QEMU's end waiting for up to seconds.
    """
    libc = ctypes.CDLL(None)
    with _adopting:
        _adopters.append(1)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        with _adopting:
            _adopters.pop()
            if not _adopters:  # it is the process's, whoever else is within
                libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise TestbedError(f"listen for QEMU at {path}: {error}") from error
    return listener


def _peer(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    pid: int = _PEER_CREDENTIALS.unpack(credentials)[0]
    return pid


class ConsoleReader:
    """Reads consoles, and admits those who start, until ``close``, which ends those that are still open."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        # What other threads want done in the reader's own; a deque's append and popleft are atomic.
        self._orders: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._register(self._wake_read, self._take_orders)
        self._consoles: dict[socket.socket, Console] = {}
        self._thread = threading.Thread(target=self._run, name="consoles", daemon=True)
        self._thread.start()

    def listen(self, path: Path, log: Path, hypervisor: str = "QEMU") -> Console:
        """Return a console for whoever connects to ``path`` first, logged to ``log``. Raises TestbedError."""
        listener = _listener(path)
        try:
            console = Console(BoundedLog(log), hypervisor)
        except OSError as error:
            listener.close()
            raise TestbedError(f"log a console to {log}: {error}") from error
        self._order(lambda: self._register(listener, lambda: self._accept(listener, console, path)))
        return console

    def admit(self, path: Path, enter: Callable[[int], None], handed: int | None = None) -> None:
        """Give whoever connects to ``path`` first the word to go on once ``enter``, given its pid, has returned.

        With the word goes the descriptor ``handed``, which has to stay open so long. An OSError of ``enter``'s is a
        refusal: the connection is closed without a word. Raises TestbedError.
        """
        listener = _listener(path)
        self._order(lambda: self._register(listener, lambda: self._admit(listener, enter, path, handed)))

    def follow(self, path: Path, log: Path) -> Console:
        """Return a console for what is written to the named pipe ``path``, which is made; it ends with its last
        writer."""
        try:
            os.mkfifo(path, 0o600)
            pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TestbedError(f"make the named pipe {path}: {error.strerror}") from error
        return self._console(pipe, log)

    def attend(self, terminal: Path, log: Path) -> Console:
        """Return a console for a terminal that somebody else has made and writes to; it ends when they hang up."""
        try:
            line = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TestbedError(f"open the console {terminal}: {error.strerror}") from error
        try:
            tty.setraw(line)
        except (OSError, termios.error) as error:
            os.close(line)
            raise TestbedError(f"open the console {terminal}: {error}") from error
        console = self._console(line, log)
        console.send = partial(os.write, line)
        return console

    def _console(self, descriptor: int, log: Path) -> Console:
        """Return a console for what can be read from a descriptor, which is the reader's from now on."""
        try:
            console = Console(BoundedLog(log))
        except OSError as error:
            os.close(descriptor)
            raise TestbedError(f"log to {log}: {error.strerror}") from error
        self._order(lambda: self._register(descriptor, lambda: self._read_pipe(descriptor, console)))
        return console

    def abandon(self, path: Path) -> None:
        """End the wait for whoever was to connect to ``path``, by being the one who does; else do nothing."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nobody, suppress(OSError):
            nobody.connect(str(path))

    def close(self) -> None:
        """End the thread and every console."""

        def stop() -> None:
            self._stopping = True

        self._order(stop)
        self._thread.join()
        for connection in list(self._consoles):
            self._end(connection)
        for key in list(self._selector.get_map().values()):
            self._close_file(key)
        self._selector.close()
        self._wake_write.close()

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._wake_write.send(b"\0")

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                key.data()

    def _take_orders(self) -> None:
        for _ in self._wake_read.recv(4096):
            self._orders.popleft()()

    def _register(self, file: socket.socket | int, react: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, react)

    def _close_file(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        if isinstance(key.fileobj, socket.socket):
            key.fileobj.close()
        else:
            os.close(key.fd)

    def _admit(self, listener: socket.socket, enter: Callable[[int], None], path: Path, handed: int | None) -> None:
        connection, _ = listener.accept()
        self._close_file(self._selector.get_key(listener))
        path.unlink(missing_ok=True)
        with connection, suppress(OSError):
            pid = _peer(connection)
            if pid != os.getpid():
                enter(pid)
                socket.send_fds(connection, [b"\0"], [] if handed is None else [handed])

    def _accept(self, listener: socket.socket, console: Console, path: Path) -> None:
        """Exchange the listener for its one connection, and watch the process at the other end."""
        connection, _ = listener.accept()
        self._close_file(self._selector.get_key(listener))
        path.unlink(missing_ok=True)
        self._consoles[connection] = console
        console.send = connection.sendall
        console.stamp("spawned")
        self._register(connection, lambda: self._read(connection))
        pid = _peer(connection)
        if pid != os.getpid():
            pidfd = os.pidfd_open(pid)
            self._register(pidfd, lambda: self._reap(pidfd, pid, console))

    def _reap(self, pidfd: int, pid: int, console: Console) -> None:
        self._close_file(self._selector.get_key(pidfd))
        with suppress(ChildProcessError):  # init's or a daemon's child, or reaped by whoever killed it
            ended, status = os.waitpid(pid, os.WNOHANG)
            console.emulator_status = status if ended else None

    def _read(self, connection: socket.socket) -> None:
        now_ns = time.monotonic_ns()
        try:
            data = connection.recv(_CHUNK_BYTES)
        except ConnectionError:
            data = b""
        if data:
            self._consoles[connection].feed(data, now_ns)
        else:
            self._end(connection)

    def _read_pipe(self, pipe: int, console: Console) -> None:
        try:
            data = os.read(pipe, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # a terminal whose other end has hung up
            data = b""
        console.feed(data, time.monotonic_ns())  # nobody asks it anything from its end on
        if not data:
            self._close_file(self._selector.get_key(pipe))

    def _end(self, connection: socket.socket) -> None:
        self._close_file(self._selector.get_key(connection))
        self._consoles.pop(connection).feed(b"", time.monotonic_ns())
