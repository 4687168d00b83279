"""This module defines the errors that reach a user and say what failed, on what, why, and what to do about it."""

from __future__ import annotations

import os


class TestbedError(Exception):
    """An error meant for a person, printed as its message and hint without a traceback.

    ``message`` says what was attempted, on what, and what the kernel or server answered;
    ``hint`` says what to do about it. ``exit_code`` is the process's exit code when nothing
    handles the error: 1 usage or internal, 5 a missing prerequisite, 6 a failed workload.
    """

    exit_code = 1
    __test__ = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


def in_words(error: Exception) -> str:
    """Return an error's text for a person; for a system error, that is its file names and the system's message."""
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
        return ": ".join([" -> ".join(names), error.strerror]) if names else error.strerror
    return str(error)


class UsageError(TestbedError):
    """The request itself is wrong: an unknown name, a malformed file, an impossible option."""


class PrerequisiteError(TestbedError):
    """Something the host must provide is missing: root, a package, disk space, a kernel feature."""

    exit_code = 5


class WorkloadError(TestbedError):
    """The measured application failed: its image does not build, or it never became ready."""

    exit_code = 6
