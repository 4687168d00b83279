"""Copy what a union of directories shows, or one layer as it is, into a directory."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Collection
from contextlib import suppress

from runtime.unionfs.lookup import OPAQUE_XATTR, USER_OPAQUE_XATTR, Folders, step_to_listed

_FICLONE = 0x40049409  # include/uapi/linux/fs.h: share the blocks, where the file system can
_CHUNK_BYTES = 1 << 30
OPAQUE_XATTRS = (OPAQUE_XATTR, USER_OPAQUE_XATTR)
_OVERLAYS_OWN = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.")


def copy_union(folders: Folders, target: str, attribute: str = OPAQUE_XATTR, linking: bool = False) -> None:
    """Copy the union of ``folders``, the topmost first, into the existing empty directory ``target``.

    Owners, modes, times, extended attributes, holes, hard links and devices are kept; overlay's own attributes and
    whiteouts are not. With ``linking`` all but directories become further hard links of what is copied, where the file
    system lets them: for files that nobody writes to. Raises OSError.
    """
    linked: dict[tuple[int, int], str] = {}
    copy_entry = _link_entry if linking else _copy_entry
    made: list[tuple[str, str]] = []
    pending: list[tuple[Folders, str]] = [(folders, target)]
    while pending:
        merged, into = pending.pop()
        made.append((merged[0], into))
        for name, holders in sorted(_listed(merged).items()):
            source, below = step_to_listed(holders, name, attribute)
            if source is None:
                continue
            copy = f"{into}/{name}"
            if below:
                os.mkdir(copy)
                pending.append((below, copy))
            else:
                copy_entry(source, copy, linked)
    for source, copy in reversed(made):  # times last: a directory's change with what is made in it
        copy_attributes(source, copy)


def _listed(folders: Folders) -> dict[str, Folders]:
    """Return which of the directories have each name, the topmost first."""
    holders: dict[str, list[str]] = {}
    for folder in folders:
        for name in os.listdir(folder):
            holders.setdefault(name, []).append(folder)
    return {name: tuple(those) for name, those in holders.items()}


def copy_layer(layer: str, target: str) -> None:
    """Copy one layer into the existing empty directory ``target`` as it is, with its whiteouts and opaque directories.

    Raises OSError.
    """
    linked: dict[tuple[int, int], str] = {}
    made: list[tuple[str, str]] = []
    pending = [(layer, target)]
    while pending:
        source, into = pending.pop()
        made.append((source, into))
        for entry in sorted(os.scandir(source), key=lambda one: one.name):
            copy = f"{into}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                os.mkdir(copy)
                pending.append((entry.path, copy))
            else:
                _copy_entry(entry.path, copy, linked)
    for source, copy in reversed(made):
        copy_attributes(source, copy, OPAQUE_XATTRS)


def _link_entry(source: str, copy: str, linked: dict[tuple[int, int], str]) -> None:
    """Give what is no directory a further name, or copy it where it can have none: it is on another file system, has
    all the names that it can have, or is another user's (proc(5): protected_hardlinks)."""
    try:
        os.link(source, copy, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            raise
        _copy_entry(source, copy, linked)


def _copy_entry(source: str, copy: str, linked: dict[tuple[int, int], str]) -> None:
    """Copy what is no directory. A further name of a file that has been copied becomes a hard link to the copy."""
    status = os.lstat(source)
    if status.st_nlink > 1:
        first = linked.setdefault((status.st_dev, status.st_ino), copy)
        if first != copy:
            os.link(first, copy, follow_symlinks=False)
            return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), copy)
    elif stat.S_ISREG(status.st_mode):
        _copy_content(source, copy, status.st_size)
    else:
        os.mknod(copy, status.st_mode, status.st_rdev)
    copy_attributes(source, copy)


def _copy_content(source: str, copy: str, size: int) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writing = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with suppress(OSError):
                fcntl.ioctl(writing, _FICLONE, reading)
                return
            os.ftruncate(writing, size)
            for start, end in _extents(reading, size):
                while start < end:
                    done = os.copy_file_range(reading, writing, min(end - start, _CHUNK_BYTES), start, start)
                    if not done:  # it has become shorter meanwhile
                        return
                    start += done
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _extents(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Return where a file has data, as pairs of first and end; all else is holes."""
    extents: list[tuple[int, int]] = []
    position = 0
    with suppress(OSError):  # ENXIO: no data behind this
        while position < size:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            extents.append((start, position))
    return extents


def copy_attributes(source: str, copy: str, kept: Collection[str] = ()) -> None:
    """Give a copy the owner, mode, times and extended attributes of its source; of overlay's own, those that are
    ``kept``. Raises OSError."""
    status = os.lstat(source)
    os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=False)
    for name in os.listxattr(source, follow_symlinks=False):
        if name in kept or not name.startswith(_OVERLAYS_OWN):
            os.setxattr(copy, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(copy, stat.S_IMODE(status.st_mode))  # after the owner, whose change takes set-user-ID away
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
