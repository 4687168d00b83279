"""The terminal of a container, relayed to the one that we run in."""

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
