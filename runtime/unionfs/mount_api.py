"""Make mounts by descriptor: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2); beside them mount(2).

A mount that is made so belongs to a descriptor until it is attached. When its process ends before, however that
happens, the kernel takes it apart. The numbers of these system calls are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

from runtime import libc
from runtime.plan.constants import MNT_DETACH

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _FSPICK = 428, 429, 430, 431, 432, 433
_MOUNT_SETATTR = 442
# include/uapi/linux/mount.h
_CLOEXEC, _OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, 1, os.O_CLOEXEC
_FROM_EMPTY_PATH, _BENEATH = 0x4, 0x200
_SET_FLAG, _SET_STRING, _SET_FD, _CREATE, _RECONFIGURE = 0, 1, 5, 6, 7
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_LOG_BYTES = 4096


class MountPoint(Struct, frozen=True):
    """A line of mountinfo, as far as it is used here."""

    id: int
    device: str
    root: str
    target: str
    fstype: str
    source: str


class FileSystem:
    """A file system that is being configured (fsopen, or fspick of one that is mounted). Errors are OSErrors whose
    text has the kernel's own words."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def open(cls, kind: str) -> FileSystem:
        """Begin a new file system of a type."""
        return cls(libc.syscall(_FSOPEN, kind.encode(), _CLOEXEC))

    @classmethod
    def pick(cls, path: str) -> FileSystem:
        """Begin to change the file system that is mounted at a path."""
        return cls(libc.syscall(_FSPICK, _AT_FDCWD, os.fsencode(path), _CLOEXEC))

    def __enter__(self) -> FileSystem:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.descriptor)

    def _configure(self, command: int, key: str | None, value: bytes | None, number: int) -> None:
        name = None if key is None else key.encode()
        try:
            libc.syscall(_FSCONFIG, self.descriptor, command, name, value, number)
        except OSError as error:
            raise OSError(error.errno, self._log() or error.strerror) from error

    def _log(self) -> str:
        lines = []
        with suppress(OSError):  # ENODATA: there is no more
            while line := os.read(self.descriptor, _LOG_BYTES):
                lines.append(line.decode(errors="replace").strip()[2:])
        return "; ".join(lines)

    def set_flag(self, key: str) -> None:
        """Set an option that has no value."""
        self._configure(_SET_FLAG, key, None, 0)

    def set_string(self, key: str, value: str) -> None:
        """Set an option to a text of at most 255 bytes."""
        self._configure(_SET_STRING, key, os.fsencode(value), 0)

    def set_descriptor(self, key: str, descriptor: int) -> None:
        """Set an option to what a descriptor has open."""
        self._configure(_SET_FD, key, None, descriptor)

    def mount(self, attributes: int = 0) -> int:
        """Create the file system; return the descriptor of a mount of it with MOUNT_ATTR_* bits, attached nowhere."""
        self._configure(_CREATE, None, None, 0)
        return libc.syscall(_FSMOUNT, self.descriptor, _CLOEXEC, attributes)

    def reconfigure(self) -> None:
        """Have a mounted file system take the options that were set."""
        self._configure(_RECONFIGURE, None, None, 0)


def clone_tree(path: str, attributes: int = 0) -> int:
    """Return the descriptor of a copy of the mount at ``path``, or of a part of a mount, with MOUNT_ATTR_* bits,
    attached nowhere. Raises OSError."""
    tree = libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    if attributes:
        wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)  # struct mount_attr
        libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, ctypes.sizeof(wanted))
    return tree


def attach(mount: int, target: str, beneath: bool = False) -> None:
    """Attach a detached mount at ``target``, or ``beneath`` the mount that is there (Linux 6.5). Raises OSError."""
    flags = _FROM_EMPTY_PATH | (_BENEATH if beneath else 0)
    libc.syscall(_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(target), flags)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Call mount(2). Raises OSError."""
    words = [os.fsencode(word) or None for word in (source, target, kind)]
    libc.call("mount", *words, ctypes.c_ulong(flags), os.fsencode(data) or None)


def unmount(target: str, lazy: bool = False) -> None:
    """Call umount2(2) on the topmost mount at ``target``; ``lazy``, files that are open there stay so. Raises
    OSError."""
    libc.call("umount2", os.fsencode(target), MNT_DETACH if lazy else 0)


def unshare(flags: int) -> None:
    """Give this process namespaces of its own. Raises OSError."""
    libc.call("unshare", flags)


def mounts() -> tuple[MountPoint, ...]:
    """Return the mounts of this process's namespace, in the order in which they were made."""
    with open("/proc/self/mountinfo", "rb") as lines:
        return tuple(parse_mounts(lines.read().splitlines()))


def mount_id(path: str) -> int:
    """Return the number, in mountinfo, of the mount that a path leads to. Raises OSError."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    finally:
        os.close(descriptor)


def parse_mounts(lines: Iterable[bytes]) -> Iterable[MountPoint]:
    """Yield the lines of mountinfo (proc(5)), whose names have blanks and backslashes in octal."""
    for line in lines:
        before, _, behind = line.partition(b" - ")
        fields, (fstype, source, *_) = before.split(b" "), behind.split(b" ", 2)
        yield MountPoint(
            int(fields[0]),
            fields[2].decode(),
            _decoded(fields[3]),
            _decoded(fields[4]),
            fstype.decode(),
            _decoded(source),
        )


def _decoded(name: bytes) -> str:
    if b"\\" not in name:
        return os.fsdecode(name)
    head, *rest = name.split(b"\\")
    return os.fsdecode(head + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest))
