"""A saved guest: its RAM, as a file that copies map, and the state of its devices.

QEMU's migration moves a guest's state; told to ignore shared RAM it moves all but the RAM, which the file already
is (the capability ``x-ignore-shared``, made for this: "VM templating"). A copy maps the same file privately. So it
reads no more of it than it uses, shares what it does not change with all other copies, in the host's page cache, and
the time that it takes to be restored does not depend on how much RAM it has. libvirt's own save file holds a copy of
the RAM, to be read anew each time, and is bound to the name and the UUID of the domain that it was saved from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from msgspec import Struct

from runtime.atomic import partial
from runtime.errors import TestbedError
from testbed.platforms.connection import load_libvirt
from testbed.platforms.monitor import ask, await_migration

_IGNORE_SHARED = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
_TIMEOUT_S = 30.0


class SavedGuest(Struct, frozen=True):
    """Where a saved guest is: its ``ram`` and the ``state`` of its devices."""

    ram: Path
    state: Path

    def kept_bytes(self) -> int:
        """What its files take; RAM that was never touched takes nothing."""
        return sum(path.stat().st_blocks * 512 for path in (self.ram, self.state))


def save(domain: Any, saved: SavedGuest) -> None:
    """Suspend a guest whose RAM is the file ``saved.ram``, shared, and write its state, whole or not at all.

    The guest stays suspended, to be ended. Its RAM is written back to where it is kept, if that is a disk, so that
    this does not happen later, while something is timed. Raises TestbedError.
    """
    libvirt = load_libvirt()
    try:
        domain.suspend()
    except libvirt.libvirtError as error:
        raise TestbedError(f"suspend {domain.name()}: {error}") from error
    ask(domain, "migrate-set-capabilities", _IGNORE_SHARED)
    with partial(saved.state) as unfinished:
        _pass(domain, os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        ask(domain, "migrate", {"uri": "fd:state"})
        await_migration(domain, _TIMEOUT_S)
    ram = os.open(saved.ram, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(ram)
    finally:
        os.close(ram)


def load(domain: Any, saved: SavedGuest) -> None:
    """Give a QEMU that waits for it the state of a saved guest. Its processors stand still until it is resumed."""
    ask(domain, "migrate-set-capabilities", _IGNORE_SHARED)
    _pass(domain, os.open(saved.state, os.O_RDONLY | os.O_CLOEXEC))
    ask(domain, "migrate-incoming", {"uri": "fd:state"})
    await_migration(domain, _TIMEOUT_S)


def resume(domain: Any) -> None:
    """Let the processors of a paused domain run. Raises TestbedError."""
    libvirt = load_libvirt()
    try:
        domain.resume()
    except libvirt.libvirtError as error:
        raise TestbedError(f"resume {domain.name()}: {error}") from error


def _pass(domain: Any, descriptor: int) -> None:
    """Hand an open file over to QEMU, under the name ``state``."""
    try:
        ask(domain, "getfd", {"fdname": "state"}, (descriptor,))
    finally:
        os.close(descriptor)
