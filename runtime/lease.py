"""This module manages leases, which distinguish what a living process has on the host from what a dead one left.

Everything the testbed puts on a host (cgroups, scratch files) lies below the name of a lease. The lease is a directory
with a lock file, which is locked as long as the lease's owner lives: the kernel drops the lock however the owner dies.
The directory is made under a temporary name with its writer's pid, locked, and only then renamed, so it is never seen
without its lock. A lease also marks what is ours: a cgroup without a lease of its name belongs to somebody else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runtime.atomic import PARTIAL, remove, writer_of
from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, UsageError

STATE_ROOT = Path("/run/testbed")
CGROUP_ROOT = "testbed"
_LOCK = "lock"
# A process that asks whether a lease is held locks it for some microseconds.
_CLAIM_TRIES, _CLAIM_PAUSE_S = 5, 0.002


def cgroup_name(lease: str, instance: str) -> str:
    """Return the name of the cgroup of an instance that belongs to a lease."""
    return f"{CGROUP_ROOT}/{lease}/{instance}"


def is_held(name: str, root: Path = STATE_ROOT) -> bool:
    """Tell whether a living process holds the lease ``name``. Raises PermissionError when this user may not ask."""
    return _is_locked(root / name / _LOCK) is True


def is_dead(name: str, root: Path = STATE_ROOT) -> bool:
    """Tell whether the lease exists and its owner is dead. Raises PermissionError when this user may not ask."""
    return _is_locked(root / name / _LOCK) is False


def _is_locked(path: Path) -> bool | None:
    """Tell whether the lock file is locked. Returns None when it is absent, or no longer the one that was opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not block each other
        return False if _is_still(descriptor, path) else None
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _names(root: Path) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(root))
    return []


def leases(root: Path = STATE_ROOT) -> tuple[str, ...]:
    """Return the names of all leases, of living and dead owners. A directory without a lock file is no lease."""
    return tuple(name for name in _names(root) if name[0] != "." and os.path.lexists(root / name / _LOCK))


def unfinished(root: Path = STATE_ROOT) -> tuple[Path, ...]:
    """Return directories that were not yet, or no longer, a lease. Each has its writer's pid in its name."""
    return tuple(root / name for name in _names(root) if name.startswith(PARTIAL))


@contextmanager
def lease(name: str, root: Path = STATE_ROOT) -> Iterator[Path]:
    """Hold the lease ``name`` and yield its scratch directory, which is removed at the end with its cgroup.

    Raises UsageError when the name is in use, and PrerequisiteError when the directory cannot be made.
    """
    directory, cgroup = root / name, Cgroup(f"{CGROUP_ROOT}/{name}")
    if cgroup.exists() and not os.path.lexists(directory):  # otherwise a kill would leave it marked as ours
        raise UsageError(
            f"cgroup {cgroup.name} exists, and no lease of ours made it", f"remove {cgroup.directories()[0]}"
        )
    with ExitStack() as undo:
        undo.callback(remove_shared, root)
        try:
            descriptor = _make_locked(directory)
        except FileExistsError as error:
            raise UsageError(f"{directory} exists: the name {name} is taken", "run `./invoke clean`") from error
        except OSError as error:
            raise PrerequisiteError(f"make {directory}: {error.strerror}", "run as root, or through sudo") from error
        undo.callback(os.close, descriptor)
        undo.callback(_end, directory, cgroup)
        cgroup.make()
        yield directory


def _end(directory: Path, cgroup: Cgroup) -> None:
    """Remove the lease's cgroup, then its directory, which tells `./invoke clean` whose the cgroup is. Raises
    TestbedError when that cannot be removed."""
    cgroup.remove()
    with suppress(OSError):
        _remove_held(directory)


def _partial(directory: Path) -> Path:
    return directory.with_name(f"{PARTIAL}{directory.name}-{os.getpid()}")


def _make_locked(directory: Path) -> int:
    """Make the lease's directory, which appears with its lock held. Returns the lock's descriptor. Raises OSError."""
    temporary = _partial(directory)
    while True:  # the end of another lease may remove the empty parent directory at any moment
        with suppress(FileExistsError):
            directory.parent.mkdir(mode=0o755, parents=True)
        with suppress(FileNotFoundError):
            remove(temporary)  # left by a dead process that had our pid
            temporary.mkdir(mode=0o755)
            break
    descriptor = -1
    try:
        descriptor = os.open(temporary / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.lexists(directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory))
        try:
            temporary.rename(directory)
        except OSError as error:  # another lease of this name was made in between
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory)) from error
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        remove(temporary)
        raise
    return descriptor


def _remove_held(directory: Path) -> None:
    """Remove a lease that we hold. It vanishes at once with its lock, and its files follow. Raises OSError."""
    temporary = _partial(directory)
    remove(temporary)
    directory.rename(temporary)
    remove(temporary)


@contextmanager
def claimed(name: str, root: Path = STATE_ROOT) -> Iterator[Path | None]:
    """Take over a dead owner's lease and yield its directory, or None when the lease is held, being taken, or gone.

    Inside the context nobody else can take it, and the caller must remove what belonged to it. The directory is
    removed at the end unless an error is raised.
    """
    directory = root / name
    with ExitStack() as undo:
        try:
            descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        undo.callback(os.close, descriptor)
        if not _take(descriptor) or not _is_still(descriptor, directory / _LOCK):
            yield None
            return
        yield directory
        _remove_held(directory)


def _take(descriptor: int) -> bool:
    for _ in range(_CLAIM_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_CLAIM_PAUSE_S)
    return False


def _is_still(descriptor: int, path: Path) -> bool:
    """Tell whether the open file is still at ``path``: its owner may have ended the lease before we locked the file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def is_abandoned(path: Path) -> bool:
    """Tell whether the writer of an unfinished directory is dead."""
    return not Path(f"/proc/{writer_of(path)}").exists()


def remove_shared(root: Path = STATE_ROOT) -> None:
    """Remove the cgroup and the directory above all leases, which they share, unless something is in them."""
    for shared in (*Cgroup(CGROUP_ROOT).directories(), root):
        with suppress(OSError):
            shared.rmdir()
