"""Space on disk: check it before a build, and report plainly if it runs out during one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import PrerequisiteError

MIB = 1 << 20


def free_bytes(path: Path) -> int:
    """Return the bytes that can still be written to the file system of ``path`` or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def require_space(path: Path, needed_bytes: int, purpose: str) -> None:
    """Raise PrerequisiteError naming ``purpose`` unless ``needed_bytes`` are free where ``path`` is."""
    free = free_bytes(path)
    if free < needed_bytes:
        raise PrerequisiteError(
            f"{purpose} needs {needed_bytes // MIB} MiB at {path}, where {free // MIB} MiB are free", _hint()
        )


@contextmanager
def full_disk_reported(path: Path, purpose: str) -> Iterator[None]:
    """Turn errors within about space, quota and read-only file systems into a PrerequisiteError naming ``purpose``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            what = f"{purpose}: {error.strerror}: {error.filename or path}"
            raise PrerequisiteError(what, "run as root, or through sudo") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise PrerequisiteError(f"{purpose}: {error.strerror} at {path}", _hint()) from error


def _hint() -> str:
    return "free some space, or set TESTBED_HOME to a directory on a larger file system"
