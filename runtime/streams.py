"""This module prepares the standard streams of a process that starts containers."""

from __future__ import annotations

import os


def open_streams() -> None:
    """Open the null device in place of each closed standard stream; call this before anything else is opened.

    Otherwise the next file to be opened would take the stream's number, and a container that inherits the streams would
    get a lock or a socket of ours as its standard input.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
