"""The account that QEMU runs as, which owns nothing but what an instance needs, and what it can reach."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError

# Debian's libvirt packages make it; its first group is the one that may open /dev/kvm.
NAME = "libvirt-qemu"


class Account(Struct, frozen=True):
    """``uid``, and the ``gids`` of which the first is its own. ``alone`` is the one of them that nobody else has: who
    may open /dev/kvm has the first too."""

    uid: int
    gids: tuple[int, ...]
    alone: int

    def give(self, *paths: Path) -> None:
        """Make it the owner of these files and sockets, and the only one who may open them."""
        for path in paths:
            path.chmod(0o600)
            os.chown(path, self.uid, self.gids[0])

    def enclose(self, *directories: Path) -> None:
        """Let only root and, by name, the account into these directories, made when absent: files below hold what
        images and services do."""
        for directory in directories:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(directory, 0, self.alone)
            directory.chmod(0o710)

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
    gids = (entry.pw_gid, *os.getgrouplist(NAME, entry.pw_gid))
    alone = next((group.gr_gid for group in grp.getgrall() if group.gr_name == NAME and group.gr_gid in gids), gids[0])
    return Account(entry.pw_uid, gids, alone)


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
