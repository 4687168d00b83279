"""The standard streams of a process that starts containers."""

from __future__ import annotations

import os


def open_streams() -> None:
    """Make the null device of each standard stream that is closed; to be called before anything is opened.

    Else what is opened next would take its number, and a container that inherits the streams would get a lock or a
    socket of ours as its standard input.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
