"""What all starts of a virtual machine platform share, once it is prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from testbed.platforms.accelerator import Verdict
from testbed.platforms.account import Account
from testbed.platforms.connection import Connection
from testbed.platforms.disks import Disks
from testbed.platforms.reader import ConsoleReader
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
