"""Leases: how what a living process has on the host differs from what a dead one left.

Everything the testbed puts on a host (cgroups, scratch files) lies below a name, the lease's. The lease is a
directory with a lock file in it, locked as long as its owner lives: the kernel drops the lock however the
owner dies. It is made under a name of its writer's, locked, and only then renamed, so it is never seen without its
lock. It is also the mark of what is ours: a cgroup without a lease of its name belongs to somebody else.
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
# Whoever asks whether a lease is held has it locked for some microseconds.
_CLAIM_TRIES, _CLAIM_PAUSE_S = 5, 0.002


def cgroup_name(lease: str, instance: str) -> str:
    """The cgroup of an instance that belongs to a lease."""
    return f"{CGROUP_ROOT}/{lease}/{instance}"


def is_held(name: str, root: Path = STATE_ROOT) -> bool:
    """Whether a living process holds the lease ``name``. Raises PermissionError when this user may not ask."""
    return _is_locked(root / name / _LOCK) is True


def is_dead(name: str, root: Path = STATE_ROOT) -> bool:
    """Whether the lease is there and its owner is not. Raises PermissionError when this user may not ask."""
    return _is_locked(root / name / _LOCK) is False


def _is_locked(path: Path) -> bool | None:
    """Whether the lock file is locked; None when there is none, or not this one any more."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask do not see each other
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
    """The names of all leases, of living and dead owners; what has no lock file is no lease."""
    return tuple(name for name in _names(root) if name[0] != "." and os.path.lexists(root / name / _LOCK))


def unfinished(root: Path = STATE_ROOT) -> tuple[Path, ...]:
    """Directories that were still to become a lease, or were one, each with its writer's pid in its name."""
    return tuple(root / name for name in _names(root) if name.startswith(PARTIAL))


@contextmanager
def lease(name: str, root: Path = STATE_ROOT) -> Iterator[Path]:
    """Hold the lease ``name``; the value is its scratch directory, removed at the end with its cgroup.

    Raises UsageError when the name is in use, PrerequisiteError when the directory cannot be made.
    """
    directory, cgroup = root / name, Cgroup(f"{CGROUP_ROOT}/{name}")
    if cgroup.exists() and not os.path.lexists(directory):  # else a kill would leave it marked as ours
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
    """Remove what the lease stands for; what cannot be removed is left for `./invoke clean` to tell."""
    with suppress(OSError):
        try:
            cgroup.remove()
        finally:
            _remove_held(directory)


def _partial(directory: Path) -> Path:
    return directory.with_name(f"{PARTIAL}{directory.name}-{os.getpid()}")


def _make_locked(directory: Path) -> int:
    """Make the lease's directory, which appears with its lock held. Returns the lock's descriptor; raises OSError."""
    temporary = _partial(directory)
    while True:  # the end of another lease may take the empty directory above away at any moment
        with suppress(FileExistsError):
            directory.parent.mkdir(mode=0o755, parents=True)
        with suppress(FileNotFoundError):
            remove(temporary)  # of a dead process that had our pid
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
        except OSError as error:  # one of this name came in between
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(directory)) from error
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        remove(temporary)
        raise
    return descriptor


def _remove_held(directory: Path) -> None:
    """Take a lease away that we hold: it vanishes at once, with its lock, and its files after that. Raises OSError."""
    temporary = _partial(directory)
    remove(temporary)
    directory.rename(temporary)
    remove(temporary)


@contextmanager
def claimed(name: str, root: Path = STATE_ROOT) -> Iterator[Path | None]:
    """Take a dead owner's lease over; the value is its directory, None when it is held, being taken, or gone.

    Within, nobody else can have it; what it had is for the caller to remove, the directory goes at the end unless an
    error is raised.
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
    """Whether the open file is the one at ``path``: its owner may have ended the lease before it was locked."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def is_abandoned(path: Path) -> bool:
    """Whether the writer of something unfinished is dead."""
    return not Path(f"/proc/{writer_of(path)}").exists()


def remove_shared(root: Path = STATE_ROOT) -> None:
    """Take away what all leases share, the cgroup and the directory above them, unless something is in them."""
    for shared in (*Cgroup(CGROUP_ROOT).directories(), root):
        with suppress(OSError):
            shared.rmdir()
