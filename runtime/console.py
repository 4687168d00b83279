"""Terminals of containers: handing the master side over by a socket, and relaying it to our own terminal."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from runtime.errors import UsageError

_CHUNK_BYTES = 65536


def hand_over(descriptor: int, path: str, name: str) -> None:
    """Send a descriptor over the UNIX socket at ``path``, with ``name`` as the message. Raises UsageError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.connect(path)
            socket.send_fds(channel, [name.encode()], [descriptor])
    except OSError as error:
        raise UsageError(f"send {name} to the socket {path}: {error.strerror}") from error


def copy_size(source: int, target: int) -> None:
    """Give one terminal the size of another; one that has none is left alone."""
    with suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def relay(master: int, stdin: int = 0, stdout: int = 1) -> None:
    """Carry bytes between our terminal, raw meanwhile, and ``master`` until the container has closed its side."""
    copy_size(stdin, master)
    before = signal.signal(signal.SIGWINCH, lambda *_: copy_size(stdin, master))
    sources = [master, stdin]
    try:
        with _raw(stdin):
            while True:
                ready = select.select(sources, [], [])[0]
                if stdin in ready:
                    data = os.read(stdin, _CHUNK_BYTES)
                    if not data:
                        sources.remove(stdin)
                    os.write(master, data or b"\x04")  # the end of our input is an end of file at a terminal
                if master in ready:
                    try:
                        data = os.read(master, _CHUNK_BYTES)
                    except OSError:  # EIO: nobody has the other side open any more
                        return
                    if not data:
                        return
                    os.write(stdout, data)
    finally:
        signal.signal(signal.SIGWINCH, before)
