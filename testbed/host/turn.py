"""Lets one run at a time measure on a host: two at once would measure each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import PrerequisiteError, UsageError

# What the manifest of a run says that takes no turn.
SHARED = "other runs may have been measured on this host at the same time, as --share lets them"
# Root's own, unlike /run/lock: nobody else may keep runs waiting.
LOCK = Path("/run/testbed-run.lock")
_NAME_BYTES = 200


@contextmanager
def take_turn(
    run: str, *, wait: bool, progress: Callable[[str], None], share: bool = False, lock: Path = LOCK
) -> Iterator[None]:
    """Within, no other run is measured on this host. The kernel ends the turn of a run that dies.

    A run that is to ``share`` the host neither waits nor keeps others waiting. Raises UsageError, with the other run's
    name, when it is not to ``wait`` for that one's end, and when it is to do both.
    """
    if share and wait:
        raise UsageError("--share with --wait: a run either shares the host or waits until it has it", "leave one out")
    if share:
        progress("this run shares the host: its figures are no better than what else runs here lets them be")
        yield
        return
    descriptor = _take_lock(lock, wait, progress)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{run} (process {os.getpid()})"[:_NAME_BYTES].encode(), 0)
        yield
    finally:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.lstat()):  # else somebody has removed ours
                lock.unlink()
        os.close(descriptor)


def find_turn(lock: Path = LOCK) -> str:
    """Return the run that is being measured on this host now, by its name; "" when there is none."""
    with suppress(OSError):
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, _NAME_BYTES, 0).decode(errors="replace") or "another run"
        finally:
            os.close(descriptor)
    return ""


def _take_lock(lock: Path, wait: bool, progress: Callable[[str], None]) -> int:
    """Return the descriptor of the lock file, locked."""
    announced = ""
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PrerequisiteError(f"open {lock}: {error.strerror}", "run as root, or through sudo") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                other = os.pread(descriptor, _NAME_BYTES, 0).decode(errors="replace") or "another run"
                if not wait:
                    raise UsageError(
                        f"the run {other} is being measured on this host: two at once would measure each other",
                        "wait for its end, or let this one wait: --wait",
                    ) from error
                if announced != other:
                    progress(f"waiting for the end of the run {other}")
                    announced = other
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.lstat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the one before has removed it
