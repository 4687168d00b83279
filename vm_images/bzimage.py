"""The ELF kernel inside an x86 bzImage, taken out in advance so that no guest spends its start unpacking it.

The setup header is described in Linux, Documentation/x86/boot.rst. The payload is one compressed vmlinux, then
its uncompressed size (u32, little-endian), which scripts/Makefile.lib's ``size_append`` adds.
"""

from __future__ import annotations

import struct

from runtime.errors import PrerequisiteError
from vm_images.compression import GZIP_MAGIC, MOST_BYTES, decompress

# The first sectors, up to the end of the setup header.
HEADER_BYTES = 0x268
_PT_NOTE = 4
_XEN_ELFNOTE_PHYS32_ENTRY = 18


def extract_payload(bzimage: bytes) -> bytes:
    """Return the compressed vmlinux of a bzImage with its size behind it; PrerequisiteError if it is no bzImage."""
    if len(bzimage) < HEADER_BYTES or bzimage[0x202:0x206] != b"HdrS":
        raise PrerequisiteError("the guest kernel is not an x86 bzImage: no HdrS at 0x202")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return bzimage[start : start + length]


def extract_vmlinux(bzimage: bytes) -> bytes:
    """Return the uncompressed ELF kernel of a bzImage. Raises PrerequisiteError when it does not unpack to one."""
    packed = extract_payload(bzimage)
    if len(packed) < 4:
        raise PrerequisiteError("the guest kernel's payload is not in the file: it is cut short")
    (size_bytes,) = struct.unpack("<I", packed[-4:])
    # The last four bytes of gzip's own format are the size already.
    stream = packed if packed.startswith(GZIP_MAGIC) else packed[:-4]
    elf = decompress(stream, "the guest kernel", min(size_bytes, MOST_BYTES))
    if len(elf) != size_bytes or not elf.startswith(b"\x7fELF"):
        raise PrerequisiteError(
            f"the guest kernel unpacks to {len(elf)} bytes starting with {elf[:4].hex()}, not to an ELF of {size_bytes}"
        )
    return elf


def has_pvh_entry(elf: bytes) -> bool:
    """Return whether the kernel can be entered directly in 32-bit mode, from its Xen PHYS32_ENTRY note (CONFIG_PVH).

    Source: Xen, docs/misc/pvh.pandoc; QEMU's hw/i386/x86.c looks for the same note.
    """
    (table,) = struct.unpack_from("<Q", elf, 0x20)
    (count,) = struct.unpack_from("<H", elf, 0x38)
    for index in range(count):
        kind, _flags, start, _virtual, _physical, size = struct.unpack_from("<IIQQQQ", elf, table + 56 * index)
        if kind == _PT_NOTE and _has_note(elf[start : start + size], b"Xen\0", _XEN_ELFNOTE_PHYS32_ENTRY):
            return True
    return False


def _has_note(notes: bytes, owner: bytes, kind: int) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name_bytes, data_bytes, note_kind = struct.unpack_from("<III", notes, at)
        if note_kind == kind and notes[at + 12 : at + 12 + name_bytes] == owner:
            return True
        at += 12 + (name_bytes + 3 & ~3) + (data_bytes + 3 & ~3)
    return False
