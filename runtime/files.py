"""This module safely reads others' files: only regular ones of bounded size, and none that a link leads away to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runtime.errors import UsageError

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file. It never waits for or reads another kind of file.

    Raises UsageError, which quotes nothing of the content, for another kind of file, for one longer than
    ``most_bytes`` and for one that cannot be read.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to waits forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"read {path}: {error.strerror}") from error
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise UsageError(f"read {path}: it is {_KINDS.get(kind, 'no file')}, not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise UsageError(f"read {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        raise UsageError(f"read {path}: it is longer than {most_bytes} bytes")
    return content


def check_inside(path: Path, folder: Path) -> None:
    """Raise UsageError when ``path``, named inside ``folder``, is a link that leads outside, in a circle or nowhere."""
    if not os.path.lexists(path):
        return
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # before 3.13, Python raises RuntimeError for links in a circle
        raise UsageError(f"{path}: a link that leads nowhere, or in a circle") from error
    if not real.is_relative_to(folder.resolve()):
        raise UsageError(f"{path}: a link that leads out of {folder}", "copy the file there; nothing outside is read")
