"""A directory tree that is being unpacked: directories by name, made where they are missing, and never one outside.

Each directory is opened from its parent's descriptor without following links. A link in the middle of a name is
followed inside the tree, as in a container.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from pathlib import Path

from runtime.atomic import remove
from runtime.images.oci import EPOCH_S
from runtime.images.tarstream import TarError
from runtime.unionfs.lookup import OPAQUE_XATTR, is_whiteout

NAME_LIMIT_BYTES = 4096  # PATH_MAX
LINKS_LIMIT = 40  # MAXSYMLINKS, include/linux/namei.h
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Directories that are kept open, the parents of what comes next.
_OPEN_LIMIT = 64

# The names of a directory below the tree's root.
Names = tuple[bytes, ...]


class Folder:
    """A directory of the tree, as far as the archive has spoken of it."""

    __slots__ = ("children", "mtime_ns")

    def __init__(self) -> None:
        self.children: dict[bytes, Folder] = {}
        self.mtime_ns = EPOCH_S * 10**9


class Tree:
    """The tree at ``path``, an empty directory, whose root becomes 0755 and root's."""

    def __init__(self, path: Path) -> None:
        self.root = Folder()
        self.root_fd = os.open(path, _DIRECTORY)
        self.hides_below = False
        self._open: OrderedDict[Names, int] = OrderedDict()
        self._last: tuple[bytes, Names, Folder, int] | None = None
        os.fchmod(self.root_fd, 0o755)
        os.fchown(self.root_fd, 0, 0)

    def close(self) -> None:
        for descriptor in (*self._open.values(), self.root_fd):
            os.close(descriptor)
        self._open.clear()

    def set_times(self) -> None:
        """Set the times of directories, which making what is in them has changed."""
        os.utime(self.root_fd, ns=(self.root.mtime_ns, self.root.mtime_ns))
        pending: list[tuple[Names, Folder]] = [((), self.root)]
        while pending:
            where, folder = pending.pop()
            if not folder.children:
                continue
            fd = self.descriptor(where)
            for name, child in folder.children.items():
                os.utime(name, ns=(child.mtime_ns, child.mtime_ns), dir_fd=fd, follow_symlinks=False)
                pending.append(((*where, name), child))

    def folder(self, name: bytes) -> tuple[Names, Folder, int]:
        """Return the directory called ``name``, which is made if it is missing: its names below the root, what is known
        of it, and a descriptor."""
        if self._last is not None and self._last[0] == name:
            return self._last[1:]
        todo = [part for part in reversed(name.split(b"/")) if part]
        where: list[bytes] = []
        passed = [self.root]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                del where[-1:], passed[len(where) + 1 :]
                continue
            if part in (b"", b"."):
                continue
            child = passed[-1].children.get(part)
            if child is None:
                target = self._enter(part, passed[-1], tuple(where))
                if target is not None:
                    links += 1
                    if links > LINKS_LIMIT:
                        raise TarError("more than 40 links in its name, or a circle of them")
                    if target.startswith(b"/"):
                        where, passed = [], passed[:1]
                    todo += reversed(target.split(b"/"))
                    continue
                child = passed[-1].children[part]
            where.append(part)
            passed.append(child)
        if sum(map(len, where)) + len(where) > NAME_LIMIT_BYTES:
            raise TarError(f"links lead to a name of more than {NAME_LIMIT_BYTES} bytes")
        place = tuple(where)
        self._last = (name, place, passed[-1], self.descriptor(place))
        return self._last[1:]

    def descriptor_of(self, name: bytes) -> int:
        """Return a descriptor of the directory called ``name``. What is asked for next is expected to lie in the one
        that was looked up before it."""
        last = self._last
        fd = self.folder(name)[2]
        if last is not None and last[1] in self._open:
            self._last = last
        return fd

    def _enter(self, part: bytes, folder: Folder, where: Names) -> bytes | None:
        """Make the directory ``part``; where a link has that name, return its target instead."""
        fd = self.descriptor(where)
        status = status_of(part, fd)
        if status is not None and stat.S_ISLNK(status.st_mode):
            return os.readlink(part, dir_fd=fd)
        if status is not None and not is_whiteout(status):
            raise TarError("it lies below a file")
        self.make_directory(part, folder, where, fd, over_whiteout=status is not None)
        return None

    def make_directory(self, base: bytes, folder: Folder, where: Names, fd: int, *, over_whiteout: bool) -> None:
        if over_whiteout:
            os.unlink(base, dir_fd=fd)
        os.mkdir(base, 0o755, dir_fd=fd)
        folder.children[base] = Folder()
        if over_whiteout:
            self.set_opaque((*where, base), self.descriptor((*where, base)))

    def descriptor(self, where: Names) -> int:
        """Return a descriptor of a directory of the tree, which is kept open for a while."""
        if not where:
            return self.root_fd
        fd = self._open.get(where)
        if fd is not None:
            self._open.move_to_end(where)
            return fd
        depth = len(where) - 1
        while depth and where[:depth] not in self._open:
            depth -= 1
        parent = self._open[where[:depth]] if depth else self.root_fd
        held = -1
        try:
            for part in where[depth:]:
                below = os.open(part, _DIRECTORY, dir_fd=parent)
                if held >= 0:
                    os.close(held)
                parent = held = below
        except BaseException:
            if held >= 0:
                os.close(held)
            raise
        self._open[where] = held
        if len(self._open) > _OPEN_LIMIT:
            old, closed = self._open.popitem(last=False)
            os.close(closed)
            if self._last is not None and self._last[1] == old:
                self._last = None
        return held

    def forget(self) -> None:
        """Close what is open below a directory that is replaced."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._last = None

    def set_opaque(self, where: Names, fd: int) -> None:
        if where:
            os.setxattr(fd, OPAQUE_XATTR, b"y")
        else:
            self.hides_below = True


def status_of(name: bytes, fd: int) -> os.stat_result | None:
    """Return the status of what a directory holds, or None where there is nothing of that name."""
    try:
        return os.lstat(name, dir_fd=fd)
    except FileNotFoundError:
        return None


def remove_below(name: bytes, fd: int) -> None:
    """Remove a directory, and all in it, from the one that is open."""
    remove(Path(f"/proc/self/fd/{fd}/{os.fsdecode(name)}"))
