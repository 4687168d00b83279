"""Relay the terminal of a container to the terminal that this process runs in."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 65536


def copy_size(source: int, target: int) -> None:
    """Give the target terminal the size of the source; do nothing if either is no terminal."""
    with suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


@contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Within, a terminal passes bytes as they are; anything else stays what it is."""
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
    """Copy bytes between our terminal, in raw mode, and ``master`` until the container has closed its side."""
    copy_size(stdin, master)
    before = signal.signal(signal.SIGWINCH, lambda *_: copy_size(stdin, master))
    sources = [master, stdin]
    try:
        with raw_mode(stdin):
            while True:
                ready = select.select(sources, [], [])[0]
                if stdin in ready:
                    data = os.read(stdin, _CHUNK_BYTES)
                    if not data:
                        sources.remove(stdin)
                    os.write(master, data or b"\x04")  # at a terminal, Ctrl-D stands for the end of our input
                if master in ready:
                    try:
                        data = os.read(master, _CHUNK_BYTES)
                    except OSError:  # EIO: no process has the other side open any more
                        return
                    if not data:
                        return
                    os.write(stdout, data)
    finally:
        signal.signal(signal.SIGWINCH, before)
