"""Leases: what a living process has on the host, told apart from what a dead one left.

Everything the testbed puts on a host (cgroups, scratch files) lies below a name, the lease's. The lease is a
directory with a lock file in it, locked as long as its owner lives: the kernel drops the lock however the
owner dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, UsageError

STATE_ROOT = Path("/run/testbed")
CGROUP_ROOT = "testbed"
_LOCK = "lock"


def cgroup_name(lease: str, instance: str) -> str:
    """The cgroup of an instance that belongs to a lease."""
    return f"{CGROUP_ROOT}/{lease}/{instance}"


def is_held(name: str, root: Path = STATE_ROOT) -> bool:
    """Whether a living process holds the lease ``name``."""
    try:
        descriptor = os.open(root / name / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def lease(name: str, root: Path = STATE_ROOT) -> Iterator[Path]:
    """Hold the lease ``name``; the value is its scratch directory, removed at the end with its cgroup.

    Raises UsageError when the name is in use, PrerequisiteError when the directory cannot be made.
    """
    directory = root / name
    try:
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory.mkdir(mode=0o755)
    except FileExistsError as error:
        raise UsageError(f"{directory} exists: the name {name} is taken", "run `./invoke clean`") from error
    except OSError as error:
        raise PrerequisiteError(f"make {directory}: {error.strerror}", "run as root, or through sudo") from error
    with ExitStack() as undo:
        undo.callback(remove_shared, root)
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        cgroup = Cgroup(f"{CGROUP_ROOT}/{name}")
        undo.callback(cgroup.remove)
        cgroup.make()
        yield directory


def remove_shared(root: Path = STATE_ROOT) -> None:
    """Take away what all leases share, the cgroup and the directory above them, unless a lease is there."""
    for shared in (*Cgroup(CGROUP_ROOT).directories(), root):
        with suppress(OSError):
            shared.rmdir()
