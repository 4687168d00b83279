"""The errors that reach a user: what was tried, on what, what the kernel or server said, what to do."""

from __future__ import annotations

import os

_LONGEST_LINE = 2000  # characters


def printable(text: str) -> str:
    """The text without what a terminal would obey, and without the middle of long lines: it may repeat what somebody
    else wrote. Lines stay lines."""
    if text.isprintable() and len(text) <= _LONGEST_LINE:
        return text
    text = "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "\n".join(map(_without_middle, text.split("\n")))


def _without_middle(line: str) -> str:
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


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
    """An error as a person reads it: of the system's, what it said and on what."""
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
