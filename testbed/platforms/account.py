"""The account that QEMU runs as, which owns nothing but what an instance needs, and what it can reach."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError

# Debian's libvirt packages make it; its first group is the one that may open /dev/kvm.
NAME = "libvirt-qemu"


class Account(Struct, frozen=True):
    """``uid``, and the ``gids`` of which the first is its own."""

    uid: int
    gids: tuple[int, ...]

    def give(self, *paths: Path) -> None:
        """Make it the owner of these files."""
        for path in paths:
            os.chown(path, self.uid, self.gids[0])

    def may(self, status: os.stat_result, bits: int) -> bool:
        """Whether the mode grants ``bits`` (4 read, 2 write, 1 execute) to it. Access control lists are not asked."""
        if status.st_uid == self.uid:
            return status.st_mode >> 6 & bits == bits
        if status.st_gid in self.gids:
            return status.st_mode >> 3 & bits == bits
        return status.st_mode & bits == bits


def emulator_account() -> Account:
    """The account. Raises PrerequisiteError when the host has none."""
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError as error:
        raise PrerequisiteError(f"no user {NAME}", "install libvirt-daemon-system, which makes it") from error
    return Account(entry.pw_uid, (entry.pw_gid, *(gid for gid in os.getgrouplist(NAME, entry.pw_gid))))


def require_reach(account: Account, *paths: Path) -> None:
    """Raise PrerequisiteError unless the account can read each of the files, and enter the directories above it."""
    for path in paths:
        resolved = path.resolve()
        for above in reversed(resolved.parents):
            if not account.may(above.stat(), 1):
                _refuse(path, above, f"chmod o+x {above}, or set TESTBED_HOME to where it can go")
        if not account.may(resolved.stat(), 4):
            _refuse(path, resolved, f"chmod o+r {resolved}")


def _refuse(path: Path, at: Path, hint: str) -> None:
    mode = stat.filemode(at.stat().st_mode)
    raise PrerequisiteError(f"QEMU runs as {NAME}, which cannot read {path}: {at} is {mode}", hint)
