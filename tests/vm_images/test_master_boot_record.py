"""The boot area: a partition table that tools read, and GRUB told where its own parts lie (that it boots, test_cloud
of the platforms shows)."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from runtime.errors import TestbedError
from vm_images.master_boot_record import FIRST_PARTITION_SECTOR, make_boot_area

BOOT = bytes(510) + b"\x55\xaa"
# Three sectors and a bit, the first of which ends with GRUB's own idea of where the rest is loaded.
CORE = bytes(510) + b"\x20\x08" + b"c" * 1025
DISK_BYTES = 64 << 20


def test_the_partition_table_is_one_linux_partition_over_all_the_rest(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(make_boot_area(BOOT, CORE, DISK_BYTES, 0xC0FFEE01).ljust(DISK_BYTES, b"\0"))
    output = subprocess.run(["blkid", "-p", "-o", "export", str(disk)], capture_output=True, text=True, check=True)
    assert {"PTTYPE=dos", "PTUUID=c0ffee01"} <= set(output.stdout.split())
    entry = disk.read_bytes()[0x1BE:0x1CE]
    assert (entry[0], entry[4]) == (0x80, 0x83)
    assert struct.unpack("<II", entry[8:]) == (FIRST_PARTITION_SECTOR, DISK_BYTES // 512 - FIRST_PARTITION_SECTOR)


def test_grub_finds_its_core() -> None:
    area = make_boot_area(BOOT, CORE, DISK_BYTES, 1)
    assert len(area) == FIRST_PARTITION_SECTOR * 512
    (core,) = struct.unpack_from("<Q", area, 0x5C)
    assert area[core * 512 + 512 : core * 512 + len(CORE)] == CORE[512:]
    rest, sectors, segment = struct.unpack_from("<QHH", area, core * 512 + 500)
    assert (rest, sectors, segment) == (core + 1, 3, 0x0820)


@pytest.mark.parametrize(
    ("boot", "core", "said"),
    [
        (BOOT[:-1], CORE, "boot.img has 511 bytes"),
        (bytes(512), CORE, "no boot signature"),
        (BOOT, b"", "core.img has 0 sectors"),
        (BOOT, bytes(FIRST_PARTITION_SECTOR * 512), "core.img has 2048 sectors"),
    ],
)
def test_what_is_not_grubs_is_refused(boot: bytes, core: bytes, said: str) -> None:
    with pytest.raises(TestbedError, match=said):
        make_boot_area(boot, core, DISK_BYTES, 1)
