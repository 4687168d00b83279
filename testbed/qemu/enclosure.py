"""Directories whose files hold what images and services do: for root and QEMU's account, and for nobody else."""

from __future__ import annotations

import grp
import os
from pathlib import Path

from testbed.qemu.account import NAME, Account, find_emulator_account


def find_enclosing_group(account: Account, name: str = NAME) -> int:
    """Return the account's group of its own name, if it has that: whoever may open /dev/kvm has its first one too."""
    own = (group.gr_gid for group in grp.getgrall() if group.gr_name == name and group.gr_gid in account.gids)
    return next(own, account.gids[0])


def enclose(*directories: Path) -> None:
    """Let only root, and the account by name, into these directories, made when absent; one that was open is closed.

    Raises PrerequisiteError when the host has no such account.
    """
    group = find_enclosing_group(find_emulator_account())
    for directory in directories:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(directory, 0, group)
        directory.chmod(0o710)
