"""What a sandbox may still do by Landlock: write in a few directories, and signal or reach only what is inside, too
(The Linux kernel's documentation, userspace-api/landlock.rst)."""

from __future__ import annotations

import ctypes

from runtime.plan.steps import Landlock

WRITABLE = ("/tmp", "/var", "/run", "/dev", "/proc")
_CREATE_RULESET, _VERSION = 444, 1
# LANDLOCK_ACCESS_FS_* by the version of the interface that has them first.
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_FILES = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
# LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and LANDLOCK_SCOPE_SIGNAL
_SCOPES = ((6, 3),)


def find_version() -> int:
    """Return the version of the kernel's Landlock; 0 where there is none, or it is switched off."""
    found = ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, 0, _VERSION)
    return max(0, int(found))


def landlock_step(version: int) -> Landlock:
    """Return the step that restricts a workload as far as a kernel of this version can."""
    handled = sum(mask for since, mask in _FILES if version >= since)
    scoped = sum(mask for since, mask in _SCOPES if version >= since)
    return Landlock(handled, _EXECUTE | _READ_FILE | _READ_DIR, scoped, WRITABLE)
