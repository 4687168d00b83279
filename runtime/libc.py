"""This module makes system calls that Python's os module lacks before 3.12, through the C library."""

from __future__ import annotations

import ctypes
import os


def call(function: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0 for success. Raises OSError, which names the function."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
