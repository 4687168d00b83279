"""The parts that all starts of a virtual machine platform share, once it is prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from testbed.qemu.accelerator import Verdict
from testbed.qemu.account import Account
from testbed.qemu.connection import Connection
from testbed.qemu.disks import Disks
from testbed.qemu.reader import ConsoleReader
from vm_images.guest import Guest


class Prepared(Struct, frozen=True):
    """The guest, and what starts it. ``account`` is the one whose group those of the guests are in."""

    guest: Guest
    disks: Disks
    verdict: Verdict
    qemu: Path
    emulator: Path
    libvirt: Connection
    reader: ConsoleReader
    account: Account

    @property
    def connection(self) -> Any:
        """libvirt's own connection (virConnect). Raises TestbedError when it is lost."""
        return self.libvirt.current()
