"""The kernel inside a bzImage, on images made here field by field."""

from __future__ import annotations

import gzip
import struct

import pytest

from runtime.errors import PrerequisiteError
from vm_images.bzimage import extract_payload, extract_vmlinux, has_pvh_entry


def note(owner: bytes, kind: int, data: bytes) -> bytes:
    padded = owner + bytes(-len(owner) % 4)
    return struct.pack("<III", len(owner), len(data), kind) + padded + data + bytes(-len(data) % 4)


def elf(notes: bytes) -> bytes:
    """An ELF64 file with one PT_LOAD and one PT_NOTE program header."""
    table, body = 64, 64 + 2 * 56
    header = bytearray(64)
    header[:4] = b"\x7fELF"
    struct.pack_into("<Q", header, 0x20, table)
    struct.pack_into("<H", header, 0x38, 2)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 64, 64, 0)
    noted = struct.pack("<IIQQQQQQ", 4, 4, body, 0, 0, len(notes), len(notes), 4)
    return bytes(header) + load + noted + notes


def bzimage(kernel: bytes, *, setup_sectors: int = 3, offset: int = 40) -> bytes:
    packed = gzip.compress(kernel, mtime=0) + struct.pack("<I", len(kernel))
    image = bytearray((setup_sectors + 1) * 512 + offset)
    image[0x1F1] = setup_sectors
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, offset, len(packed))
    return bytes(image) + packed + b"rest of the image"


PVH = elf(note(b"Linux\0", 18, b"xxxx") + note(b"Xen\0", 6, b"linux") + note(b"Xen\0", 18, bytes(8)))
OTHER = elf(note(b"Linux\0", 18, b"xxxx") + note(b"Xen\0", 6, b"linux"))


def test_the_elf_kernel_comes_out() -> None:
    assert extract_vmlinux(bzimage(PVH)) == PVH
    assert extract_vmlinux(bzimage(PVH, setup_sectors=31, offset=700)) == PVH


def test_the_payload_ends_with_its_size() -> None:
    assert extract_payload(bzimage(PVH))[-4:] == struct.pack("<I", len(PVH))


def test_only_xens_own_note_says_that_there_is_a_pvh_entry() -> None:
    assert has_pvh_entry(PVH)
    assert not has_pvh_entry(OTHER)


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(PrerequisiteError, match="HdrS"):
        extract_payload(bytes(4096))
    with pytest.raises(PrerequisiteError, match="not to an ELF"):
        extract_vmlinux(bzimage(b"something else"))
