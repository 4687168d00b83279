"""Initial RAM disks: the newc cpio archives that hold PID 1, its modules and its plan.

The base archive (launcher and modules) is the same for every guest of a kernel; each instance has a second,
small archive with its plan behind it. The kernel unpacks both, one after the other
(Documentation/driver-api/early-userspace/buffer-format.rst). Uncompressed: under emulation, unpacking
would cost more than reading. Times, inode numbers and owners are fixed, so equal inputs give equal bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from msgspec import Struct

INIT_PATH = "init"
PLAN_PATH = "plan"
MODULES_PATH = "modules"


class Entry(Struct, frozen=True):
    """One member of the archive: ``mode`` holds the type and the permission bits; owner root, time zero."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, major, minor, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)


def write_archive(entries: Iterable[Entry]) -> bytes:
    """Return a newc cpio archive of the entries, in their order, padded to 512 bytes so that another can follow."""
    body = b"".join(_record(entry, inode) for inode, entry in enumerate(entries, start=1))
    body += _record(Entry("TRAILER!!!", 0), 0)
    return body + bytes(-len(body) % 512)


def _directory(path: str) -> Entry:
    return Entry(path, stat.S_IFDIR | 0o755)


def make_base_archive(init: bytes, modules: Mapping[str, bytes]) -> bytes:
    """Return the archive every guest boots with: ``/init``, ``/dev/console`` and the modules by file name in
    ``/modules``.

    The kernel opens ``/dev/console`` for PID 1 before PID 1 could mount devtmpfs, hence the device node.
    """
    entries = [_directory(name) for name in ("dev", "proc", "sys", MODULES_PATH)]
    entries.append(Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(Entry(INIT_PATH, stat.S_IFREG | 0o755, init))
    return write_archive([*entries, *_modules(modules)])


def _modules(modules: Mapping[str, bytes]) -> list[Entry]:
    return [Entry(str(PurePosixPath(MODULES_PATH, name)), stat.S_IFREG | 0o644, data) for name, data in modules.items()]


def make_modules_archive(modules: Mapping[str, bytes]) -> bytes:
    """Return an archive with further modules, to come behind the base archive."""
    return write_archive(_modules(modules))


def make_plan_archive(plan: bytes) -> bytes:
    """Return the archive of one instance: the encoded plan as ``/plan``."""
    return write_archive([Entry(PLAN_PATH, stat.S_IFREG | 0o600, plan)])
