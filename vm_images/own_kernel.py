"""A guest kernel of somebody's own: a vmlinux (ELF) or a bzImage, checked and copied to the store by its digest.

The file is only read, with a limit, and is taken for nothing before its headers say that QEMU can enter it. What is
booted is the copy, so a file that is changed or removed meanwhile changes no run.
"""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

from runtime.atomic import partial
from runtime.errors import PrerequisiteError, UsageError
from runtime.files import read_bounded
from runtime.output import printable
from vm_images.bzimage import HEADER_BYTES, extract_vmlinux, has_pvh_entry
from vm_images.kernel import GuestKernel, describe, read_kernel
from vm_images.kernel_options import extract_config

# A kernel with all debug information is larger, and its symbols are of no use to a guest.
MOST_BYTES = 512 << 20
# Part of the directory's name: to be raised when what is stored changes.
_FORMAT = 1
CONFIG = "config"
_NUMBER = rb"([0-9]+\.[0-9]+[A-Za-z0-9.+~_-]{0,64})"
_RELEASE, _BANNER = re.compile(_NUMBER + rb"[ \0]"), re.compile(rb"Linux version " + _NUMBER + rb" \(")
_UNKNOWN = "unknown"
_BUILD = "a kernel's build writes vmlinux, and arch/x86/boot/bzImage"
# System V ABI, AMD64 supplement: e_machine. The kernel's vmlinux is ET_EXEC, one that is relocatable may be ET_DYN.
_X86_64, _EXECUTABLE = 62, (2, 3)
_PROGRAM_HEADER_BYTES = 56
# Linux, Documentation/arch/x86/boot.rst: loadflags, xloadflags.
_LOADED_HIGH, _KERNEL_64 = 1, 1
_64_BIT_PROTOCOL = 0x020C
_ARCHIVES = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"!<arch>": "ar"}


def read_own_kernel(guest_root: Path, file: Path) -> GuestKernel:
    """Return the kernel in ``file``, copied to the store below ``guest_root``.

    Raises UsageError, naming the file, when it is none that a guest of QEMU could boot.
    """
    data = _read(file)
    digest = hashlib.sha256(data).hexdigest()
    folder = guest_root / f"own-{digest[:24]}-{_FORMAT}"
    if not folder.exists():
        elf, bzimage = _take_apart(file, data)
        pvh = elf is not None and _has_pvh_entry(file, elf)
        if elf is not None and bzimage is None and not pvh:
            raise UsageError(
                f"--guest-kernel {file}: this vmlinux has no PVH entry, by which QEMU enters an uncompressed kernel",
                "build it with CONFIG_PVH=y, or give the bzImage of the same build (arch/x86/boot/bzImage)",
            )
        release = _find_release(elf, bzimage)
        guest_root.mkdir(parents=True, exist_ok=True)
        with partial(folder) as target:
            target.mkdir()
            image = elf if pvh else bzimage
            assert image is not None  # one of them is the file
            (target / ("vmlinux" if pvh else "vmlinuz")).write_bytes(image)
            (target / CONFIG).write_text(extract_config(elf) if elf is not None else "")
            name = printable(file.name)
            describe(GuestKernel(target, release, name, f"sha256:{digest}", pvh, (), own=True))
    return read_kernel(folder)


def read_options(kernel: GuestKernel) -> str:
    """Return the configuration that a kernel of somebody's own holds; empty when it holds none."""
    try:
        return (kernel.folder / CONFIG).read_text()
    except OSError:
        return ""


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file, MOST_BYTES)
    except (UsageError, ValueError) as error:
        what = error.message if isinstance(error, UsageError) else f"{str(file)!r}: {error}"
        raise UsageError(f"--guest-kernel: {what}", f"{_BUILD}; objcopy --strip-debug makes vmlinux smaller") from error


def _take_apart(file: Path, data: bytes) -> tuple[bytes | None, bytes | None]:
    """Return the ELF kernel and the bzImage that the file is, or holds; raises UsageError when it is neither.

    A bzImage in a compression that is not known here stays packed: the guest unpacks it itself.
    """
    if data.startswith(b"\x7fELF"):
        _check_elf(file, data)
        return data, None
    if data[0x1FE:0x200] == b"\x55\xaa" and data[0x202:0x206] == b"HdrS":
        _check_bzimage(file, data)
        try:
            elf = extract_vmlinux(data)
            _check_elf(file, elf)
        except PrerequisiteError as error:
            if "unpack " in error.message or "cut short" in error.message:
                raise UsageError(f"--guest-kernel {file}: {error.message}", "copy or build it again") from error
            return None, data
        return elf, data
    kind = next((f", but packed by {name}" for magic, name in _ARCHIVES.items() if data.startswith(magic)), "")
    what = "it is empty" if not data else f"it starts with {data[:8].hex(' ')}"
    raise UsageError(f"--guest-kernel {file}: it is neither a vmlinux (ELF) nor a bzImage{kind}: {what}", _BUILD)


def _check_elf(file: Path, elf: bytes) -> None:
    """Raise UsageError unless the ELF file is of x86-64, executable, and has all its parts."""

    def refuse(what: str, hint: str = _BUILD) -> UsageError:
        return UsageError(f"--guest-kernel {file}: {what}", hint)

    if len(elf) < 64:
        raise refuse("it is cut short: an ELF header has 64 bytes", "copy or build it again")
    if elf[4:6] != b"\x02\x01":
        raise refuse("it is not a 64-bit little-endian ELF file", "guests are x86-64: build with CONFIG_64BIT=y")
    kind, machine = struct.unpack_from("<HH", elf, 0x10)
    if machine != _X86_64:
        raise refuse(f"it is for another processor (ELF machine {machine}, not {_X86_64})", "guests are x86-64")
    if kind not in _EXECUTABLE:
        raise refuse(f"it is no executable (ELF type {kind}): a module, an object or a core dump")
    (table,) = struct.unpack_from("<Q", elf, 0x20)
    size, count = struct.unpack_from("<HH", elf, 0x36)
    if size != _PROGRAM_HEADER_BYTES or not count or table + count * size > len(elf):
        raise refuse("it has no whole table of segments", "copy or build it again")
    for index in range(count):
        start, length = struct.unpack_from("<8xQ16xQ", elf, table + index * size)
        if start + length > len(elf):
            raise refuse(f"it is cut short: segment {index} ends beyond the file", "copy or build it again")


def _check_bzimage(file: Path, data: bytes) -> None:
    if len(data) < HEADER_BYTES:
        raise UsageError(f"--guest-kernel {file}: it is cut short: in the setup header", "copy or build it again")
    (version,) = struct.unpack_from("<H", data, 0x206)
    (flags,) = struct.unpack_from("<H", data, 0x236)
    if version < _64_BIT_PROTOCOL or not flags & _KERNEL_64 or not data[0x211] & _LOADED_HIGH:
        protocol = f"{version >> 8}.{version & 255:02}"
        raise UsageError(
            f"--guest-kernel {file}: a bzImage without a 64-bit entry (boot protocol {protocol})",
            "guests are x86-64: build with CONFIG_64BIT=y",
        )


def _has_pvh_entry(file: Path, elf: bytes) -> bool:
    try:
        return has_pvh_entry(elf)
    except struct.error as error:
        raise UsageError(f"--guest-kernel {file}: its notes are damaged: {error}", "copy or build it again") from error


def _find_release(elf: bytes | None, bzimage: bytes | None) -> str:
    """Return the kernel's release from the setup header's text or from its banner; ``unknown`` without either."""
    if bzimage is not None:
        (offset,) = struct.unpack_from("<H", bzimage, 0x20E)
        if offset and (match := _RELEASE.match(bzimage[offset + 0x200 : offset + 0x300])):
            return match[1].decode()
    match = _BANNER.search(elf) if elf is not None else None
    return match[1].decode() if match else _UNKNOWN
