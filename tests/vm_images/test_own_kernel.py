"""Kernels of somebody's own: what is taken, what is refused and why, and what is known of one."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import TestbedError, UsageError
from runtime.home import store_root
from tests.vm_images.test_bzimage import bzimage, elf, note
from vm_images import bzimage as bzimage_module
from vm_images import own_kernel
from vm_images.kernel import find_stored_guest_kernel
from vm_images.own_kernel import read_options, read_own_kernel

BANNER = b"\0Linux version 6.9.0-mine+ (me@here) (gcc 12) #1 SMP\n\0"
CONFIG = "CONFIG_64BIT=y\nCONFIG_VIRTIO_BLK=m\n# CONFIG_PVH is not set\n"
PVH = note(b"Xen\0", 18, bytes(8))


def vmlinux(notes: bytes = PVH, rest: bytes = BANNER, **fields: int) -> bytes:
    """An ELF kernel of x86-64 with one segment and its notes; ``fields`` are of its header, by their offset's name."""
    header = bytearray(elf(notes))
    header[4:6] = b"\x02\x01"
    struct.pack_into("<HH", header, 0x10, 2, 62)
    struct.pack_into("<H", header, 0x36, 56)
    for name, value in fields.items():
        struct.pack_into("<H", header, {"kind": 0x10, "machine": 0x12, "size": 0x36, "count": 0x38}[name], value)
    return bytes(header) + rest


def boot_image(
    kernel: bytes, *, protocol: int = 0x20F, xloadflags: int = 1, release: bytes = b"6.9.1-boot (me)"
) -> bytes:
    image = bytearray(bzimage(kernel))
    image[0x1FE:0x200] = b"\x55\xaa"
    struct.pack_into("<H", image, 0x206, protocol)
    struct.pack_into("<H", image, 0x236, xloadflags)
    image[0x211] = 1
    struct.pack_into("<H", image, 0x20E, 0x100)
    image[0x300 : 0x300 + len(release) + 1] = release + b"\0"
    return bytes(image)


@pytest.fixture
def given(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "vmlinux"
        path.write_bytes(content)
        return path

    return write


def test_a_vmlinux_is_copied_by_its_digest(given: Callable[[bytes], Path], tmp_path: Path) -> None:
    content = vmlinux()
    file = given(content)
    kernel = read_own_kernel(tmp_path / "store", file)
    digest = hashlib.sha256(content).hexdigest()
    assert (kernel.own, kernel.pvh, kernel.release, kernel.package) == (True, True, "6.9.0-mine+", "vmlinux")
    assert kernel.version == f"sha256:{digest}" and kernel.sha256 == digest
    assert kernel.modules == kernel.balloon_modules == kernel.host_modules == ()
    file.write_bytes(b"something else")
    assert kernel.image.read_bytes() == content, "what is booted is the copy"
    file.unlink()
    given(content)
    assert read_own_kernel(tmp_path / "store", file) == kernel


def test_a_bzimage_is_unpacked_in_advance_where_that_can_be_entered(
    given: Callable[[bytes], Path], tmp_path: Path
) -> None:
    packed = boot_image(vmlinux())
    kernel = read_own_kernel(tmp_path / "store", given(packed))
    assert (kernel.pvh, kernel.release, kernel.image.read_bytes()) == (True, "6.9.1-boot", vmlinux())
    assert kernel.version == f"sha256:{hashlib.sha256(packed).hexdigest()}", "the digest is the given file's"
    without = boot_image(vmlinux(notes=note(b"Xen\0", 6, b"linux")))
    kernel = read_own_kernel(tmp_path / "store", given(without))
    assert (kernel.pvh, kernel.image.read_bytes()) == (False, without)


def test_a_bzimage_in_an_unknown_compression_is_left_to_the_guest(
    given: Callable[[bytes], Path], tmp_path: Path
) -> None:
    lzo = boot_image(vmlinux()).replace(gzip.compress(vmlinux(), mtime=0)[:4], b"\x89LZO", 1)
    kernel = read_own_kernel(tmp_path / "store", given(lzo))
    assert (kernel.pvh, kernel.image.name) == (False, "vmlinuz")


def test_gzips_own_size_is_the_payloads(given: Callable[[bytes], Path], tmp_path: Path) -> None:
    """The kernel's build adds a size to each format but gzip, which ends with it."""
    whole = boot_image(vmlinux())
    (length,) = struct.unpack_from("<I", whole, 0x24C)
    shorter = bytearray(whole)
    struct.pack_into("<I", shorter, 0x24C, length - 4)
    assert read_own_kernel(tmp_path / "store", given(bytes(shorter))).pvh


def test_the_configuration_in_a_kernel_is_read(given: Callable[[bytes], Path], tmp_path: Path) -> None:
    held = b"IKCFG_ST" + gzip.compress(CONFIG.encode()) + b"IKCFG_ED"
    assert read_options(read_own_kernel(tmp_path / "store", given(vmlinux(rest=BANNER + held)))) == CONFIG
    assert read_options(read_own_kernel(tmp_path / "store", given(vmlinux(rest=b"")))) == ""
    assert read_own_kernel(tmp_path / "store", given(vmlinux(rest=b""))).release == "unknown"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "neither a vmlinux .* it is empty"),
        (b"#!/bin/sh\n", "neither a vmlinux .* 23 21 2f"),
        (gzip.compress(vmlinux()), "packed by gzip"),
        (vmlinux()[:40], "cut short: an ELF header"),
        (vmlinux()[:100], "no whole table of segments"),
        (vmlinux(rest=b"")[:-1], "segment 1 ends beyond the file"),
        (vmlinux(machine=183), r"another processor \(ELF machine 183"),
        (vmlinux(kind=1), "no executable"),
        (vmlinux(count=0), "no whole table of segments"),
        (vmlinux(size=32), "no whole table of segments"),
        (b"\x7fELF\x01\x01" + bytes(100), "not a 64-bit"),
        (vmlinux(notes=note(b"Xen\0", 6, b"linux")), "no PVH entry"),
        (boot_image(vmlinux())[:0x220], "cut short: in the setup header"),
        (boot_image(vmlinux())[:-40], "unpack the guest kernel: it ends in the middle"),
        (boot_image(vmlinux())[:0x300], "not in the file: it is cut short"),
        (boot_image(vmlinux(), protocol=0x204), r"without a 64-bit entry \(boot protocol 2.04"),
        (boot_image(vmlinux(), xloadflags=0), "without a 64-bit entry"),
        (boot_image(vmlinux(machine=3)), "another processor"),
    ],
)
def test_what_no_guest_could_boot_is_refused(
    content: bytes, problem: str, given: Callable[[bytes], Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=problem) as raised:
        read_own_kernel(tmp_path / "store", given(content))
    assert "--guest-kernel" in raised.value.message and raised.value.hint
    assert not (tmp_path / "store").exists(), "nothing of it is in the store"


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
    refused = {
        tmp_path / "pipe": "a named pipe",
        tmp_path / "socket": "No such device",
        Path("/dev/zero"): "a device",
        tmp_path: "a directory",
        tmp_path / "absent": "No such file",
        Path("nul\0name"): "null byte",
    }
    for path, problem in refused.items():
        with pytest.raises(UsageError, match=problem):
            read_own_kernel(tmp_path / "store", path)


def test_neither_the_file_nor_what_it_unpacks_to_is_read_without_a_limit(
    given: Callable[[bytes], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UsageError, match="longer than 1000 bytes"):
        patch.setattr(own_kernel, "MOST_BYTES", 1000)
        read_own_kernel(tmp_path / "store", given(bytes(1001)))
    bomb = boot_image(vmlinux() + bytes(1 << 20))
    assert len(bomb) < 8192
    monkeypatch.setattr(bzimage_module, "MOST_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="it holds more than 1048576 bytes"):
        read_own_kernel(tmp_path / "store", given(bomb))


@pytest.mark.no_cover
def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    chance = random.Random(16)
    outcomes = set()
    for whole in (vmlinux(), boot_image(vmlinux())):
        for number in range(400):
            damaged = bytearray(whole)
            for _ in range(chance.choice((1, 1, 4, 40))):
                damaged[chance.randrange(min(len(damaged), 0x280))] = chance.randrange(256)
            file = tmp_path / "damaged"
            file.write_bytes(damaged[: chance.choice((len(damaged), chance.randrange(len(damaged))))])
            try:
                read_own_kernel(tmp_path / f"store{number % 2}", file)
                outcomes.add("taken")
            except UsageError:
                outcomes.add("refused")
    assert outcomes == {"taken", "refused"}


def test_the_distributions_kernel_as_a_file_is_known(tmp_path: Path) -> None:
    stored = find_stored_guest_kernel(store_root() / "guest")
    if stored is None or not stored.pvh:
        pytest.skip("no guest kernel has been fetched")
    kernel = read_own_kernel(tmp_path / "store", stored.image)
    assert (kernel.release, kernel.pvh, kernel.sha256) == (stored.release, True, stored.sha256)
    assert replace(kernel, folder=stored.folder).image == stored.image
    with pytest.raises(TestbedError):
        read_own_kernel(tmp_path / "store", stored.folder / "kernel.json")
