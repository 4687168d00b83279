"""The accounts that QEMU runs as, one for each guest, which own nothing but what it needs, and what they can reach.

What all guests read, the images' disks, is their group's or everybody's. What is a guest's own is its account's alone,
and so is its QEMU: the kernel lets no process look into the memory of another user's (ptrace(2), access mode checking).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pwd
import stat
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import PrerequisiteError

# Debian's libvirt packages make it; its first group is the one that may open /dev/kvm.
NAME = "libvirt-qemu"
# Of users that nothing else hands out: systemd's list of them (UIDS-GIDS.md) leaves 1879048192 to 2147483647 free. Each
# run has a block of its own there, by its id, and each guest that it starts the next one of that.
_FIRST_UID, _BLOCKS, _BLOCK = 1_879_048_192, 1 << 16, 1 << 12
_numbers = itertools.count()


class Account(Struct, frozen=True):
    """An account by its ``uid``, and its ``gids``, of which the first is its own and the one of its files."""

    uid: int
    gids: tuple[int, ...]

    def give(self, *paths: Path) -> None:
        """Make it the owner of these files, which nobody else can use."""
        for path in paths:
            path.chmod(0o600)
            os.chown(path, self.uid, self.gids[0])

    def share(self, path: Path) -> None:
        """Let all accounts of the group read a file that was one's own, and none write to it."""
        os.chown(path, 0, self.gids[0])
        path.chmod(0o640)

    def may(self, status: os.stat_result, bits: int) -> bool:
        """Return whether the mode grants ``bits`` (4 read, 2 write, 1 execute) to it. Access control lists are not
        asked."""
        if status.st_uid == self.uid:
            return status.st_mode >> 6 & bits == bits
        if status.st_gid in self.gids:
            return status.st_mode >> 3 & bits == bits
        return status.st_mode & bits == bits


def find_emulator_account() -> Account:
    """Return the account. Raises PrerequisiteError when the host has none."""
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError as error:
        raise PrerequisiteError(f"no user {NAME}", "run ./invoke, which makes it") from error
    return Account(entry.pw_uid, (entry.pw_gid, *(gid for gid in os.getgrouplist(NAME, entry.pw_gid))))


def next_number() -> int:
    """Return a number that no other guest of this process has had."""
    return next(_numbers)


def make_guest_account(account: Account, run_id: str, number: int) -> Account:
    """Return the account of guest ``number`` of a run: a user that no other guest has, in the groups of ``account``."""
    block = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4], "big") % _BLOCKS
    return replace(account, uid=_FIRST_UID + block * _BLOCK + number % _BLOCK)


def require_users(uid_map: str) -> None:
    """Raise PrerequisiteError unless our user namespace, of which this is the uid_map, has the guests' users.

    user_namespaces(7): lines of a first user inside, the first outside, how many.
    """
    ranges = [tuple(map(int, line.split())) for line in uid_map.splitlines()]
    last = _FIRST_UID + _BLOCKS * _BLOCK
    if not any(first <= _FIRST_UID and last <= first + length for first, _, length in ranges):
        raise PrerequisiteError(
            f"each guest's QEMU runs as a user of its own, from {_FIRST_UID} on; this user namespace has not all",
            f"run on the host itself, or map the users {_FIRST_UID} to {last - 1} into the container",
        )


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
