"""A disk's first mebibyte: the partition table, and GRUB's boot sector and core image in the gap behind it.

It is what ``grub-install`` writes to a disk with an MBR, without the block device that it insists on. Layout and
offsets: GRUB 2.06, include/grub/i386/pc/boot.h and grub-core/boot/i386/pc/{boot,diskboot}.S.
"""

from __future__ import annotations

import struct

from runtime.errors import TestbedError

SECTOR_BYTES = 512
# Where partitions have begun since Windows Vista and sfdisk 2.26: what comes before is the gap.
FIRST_PARTITION_SECTOR = 2048
_SIGNATURE, _TABLE, _MARK = 0x1B8, 0x1BE, 0x1FE
# GRUB's boot sector: where its core begins (u64), and a jump that, taken out, makes it trust the BIOS's drive number
# only if that is a hard disk's.
_KERNEL_SECTOR, _DRIVE_CHECK = 0x5C, 0x66
_NOPS = b"\x90\x90"
_CORE_SECTOR = 1
# The end of the core's own first sector: first sector (u64), number (u16) and load segment (u16) of what follows it.
_BLOCK_LIST = struct.Struct("<QHH")
_LINUX = 0x83
_ACTIVE = 0x80
# Cylinders, heads and sectors that say "too large for this field"; everything has read the LBA fields for decades.
_NO_CHS = b"\xfe\xff\xff"


def make_boot_area(boot: bytes, core: bytes, disk_bytes: int, signature: int) -> bytes:
    """Return the first FIRST_PARTITION_SECTOR sectors of a disk of ``disk_bytes`` with one Linux partition over all the
    rest.

    ``boot`` and ``core`` are GRUB's boot.img and core.img; ``signature`` is the disk's identity, 32 bits. Raises
    TestbedError for files that are not GRUB's or do not fit.
    """
    if len(boot) != SECTOR_BYTES or boot[_MARK:] != b"\x55\xaa":
        raise TestbedError(f"GRUB's boot.img has {len(boot)} bytes or no boot signature: it is no boot sector")
    sectors = -(-len(core) // SECTOR_BYTES)
    if not 1 < sectors <= FIRST_PARTITION_SECTOR - _CORE_SECTOR:
        raise TestbedError(f"GRUB's core.img has {sectors} sectors: they do not fit before the first partition")
    area = bytearray(FIRST_PARTITION_SECTOR * SECTOR_BYTES)
    area[:SECTOR_BYTES] = boot
    struct.pack_into("<Q", area, _KERNEL_SECTOR, _CORE_SECTOR)
    area[_DRIVE_CHECK : _DRIVE_CHECK + len(_NOPS)] = _NOPS
    struct.pack_into("<I", area, _SIGNATURE, signature)
    size = disk_bytes // SECTOR_BYTES - FIRST_PARTITION_SECTOR
    entry = struct.pack("<B3sB3sII", _ACTIVE, _NO_CHS, _LINUX, _NO_CHS, FIRST_PARTITION_SECTOR, size)
    area[_TABLE:_MARK] = entry.ljust(_MARK - _TABLE, b"\0")
    start = _CORE_SECTOR * SECTOR_BYTES
    area[start : start + len(core)] = core
    # The segment is the core's own; where it lies is ours to say.
    offset = start + SECTOR_BYTES - _BLOCK_LIST.size
    segment = _BLOCK_LIST.unpack_from(area, offset)[2]
    _BLOCK_LIST.pack_into(area, offset, _CORE_SECTOR + 1, sectors - 1, segment)
    return bytes(area)
