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


def syscall(number: int, *arguments: object) -> int:
    """Make a system call that the C library has no function for and return its result. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
