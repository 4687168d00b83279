"""A saved guest: its RAM, as a file that copies map, and the state of its devices.

QEMU's migration moves a guest's state; with the option to ignore shared RAM it moves all but the RAM, which the file
already is (the capability ``x-ignore-shared``, made for this: "VM templating"). A copy maps the same file privately. So
it shares what it does not change with all other copies, and the time that it takes to be restored does not depend on
how much RAM it has. libvirt's own save file holds a copy of the RAM, to be read anew each time, and is bound to the
name and the UUID of the domain that it was saved from.

The file is a memfd that is sealed once it is saved (memfd_create(2)): QEMU opens a file to be mapped privately for
writing, too, and one that it may write to is one that a guest that has broken out of it could change for all others.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

from msgspec import Struct

from runtime.atomic import partial
from runtime.errors import TestbedError
from runtime.speed import scale
from testbed.host.libvirt_library import load_libvirt
from testbed.qemu.monitor import ask, await_migration

_IGNORE_SHARED = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
_TIMEOUT_S = 30.0
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SavedGuest(Struct, frozen=True):
    """Where a saved guest is: its ``ram``, an open descriptor, and the ``state`` of its devices."""

    ram: int
    state: Path

    def stored_bytes(self) -> int:
        """Return what its files take; RAM that was never touched takes nothing."""
        return sum(status.st_blocks * 512 for status in (os.fstat(self.ram), self.state.stat()))


def make_ram(name: str, size_bytes: int) -> int:
    """Return a file in memory for a guest's RAM, open, which any account can map that it is handed to."""
    ram = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(ram, size_bytes)
    os.fchmod(ram, 0o666)
    return ram


def seal(saved: SavedGuest) -> None:
    """Seal the RAM of a saved guest that has ended, so that nobody can change it. Raises TestbedError while one still
    may."""
    try:
        fcntl.fcntl(saved.ram, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        raise TestbedError(f"seal the RAM of {saved.state.stem}: {error.strerror}") from error


def save(domain: Any, saved: SavedGuest) -> None:
    """Suspend a guest whose RAM is the file ``saved.ram``, shared, and write its state, whole or not at all.

    The guest stays suspended, to be ended and its RAM sealed. Raises TestbedError.
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
        await_migration(domain, scale(_TIMEOUT_S))


def load(domain: Any, saved: SavedGuest) -> None:
    """Give a QEMU that waits for it the state of a saved guest. Its processors stand still until it is resumed."""
    ask(domain, "migrate-set-capabilities", _IGNORE_SHARED)
    _pass(domain, os.open(saved.state, os.O_RDONLY | os.O_CLOEXEC))
    ask(domain, "migrate-incoming", {"uri": "fd:state"})
    await_migration(domain, scale(_TIMEOUT_S))


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
