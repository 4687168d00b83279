"""Room on disk: asked for before a build, and reported plainly when it ends in the middle of one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import PrerequisiteError

MIB = 1 << 20


def free_bytes(path: Path) -> int:
    """What a process may still write on the file system that ``path``, or its nearest parent, is on."""
    while not path.exists():
        path = path.parent
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def require_space(path: Path, needed_bytes: int, purpose: str) -> None:
    """Raise PrerequisiteError unless ``needed_bytes`` are free for ``purpose`` where ``path`` is."""
    free = free_bytes(path)
    if free < needed_bytes:
        raise PrerequisiteError(
            f"{purpose} needs {needed_bytes // MIB} MiB at {path}, where {free // MIB} MiB are free", _hint()
        )


@contextmanager
def full_disk_reported(path: Path, purpose: str) -> Iterator[None]:
    """Turn from within "no space left" and "quota exceeded", and that nothing may be written, into a PrerequisiteError
    that names ``purpose``."""
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
