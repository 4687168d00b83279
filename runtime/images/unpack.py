"""Unpack a layer's tar as an overlay lowerdir, as the OCI image-spec says (layer.md), from a source that nobody trusts.

Nothing outside of the tree is read or written: every directory is opened from its parent's descriptor without following
links, and a link in the middle of a name is followed inside the tree, as in a container. Time is linear in the entries.

A whiteout says that a name of the layers below is gone, never one of this layer: whichever comes first, a file that the
layer has beside it stays, and a directory beside it is opaque. What a layer does not say is fixed: directories that it
only implies, and a root that it does not describe, are 0755, root's, and of 1980.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError, UsageError
from runtime.images import tarstream
from runtime.images.layers import OPAQUE_MARKER, OPAQUE_XATTR, OVERLAY_XATTRS, WHITEOUT_PREFIX
from runtime.images.oci import EPOCH_S
from runtime.images.space import MIB, free_bytes
from runtime.images.tarstream import Chunks, Entry, TarError, TarReader

NAME_LIMIT_BYTES = 4096  # PATH_MAX
LINKS_LIMIT = 40  # MAXSYMLINKS, include/linux/namei.h
_NS = 10**9
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Directories that are kept open, the parents of what comes next.
_OPEN_LIMIT = 64
# The kernel's modules decide on these: they name what the builder's host knows, or are computed by it.
_UNUSED_XATTRS = (b"security.selinux", b"security.ima", b"security.evm")
_OVERLAYS = (OVERLAY_XATTRS.encode(), b"user.overlay.")
_PREFIX, _OPAQUE = WHITEOUT_PREFIX.encode(), OPAQUE_MARKER.encode()
# Aufs kept its own files under such names; no layer has content there.
_META_PREFIX = b".wh..wh."
_CHECK_EVERY_BYTES = 64 * MIB


class Limits(Struct, frozen=True):
    """What one layer may hold: entries, and bytes of its files, holes included; so much of the disk stays free.

    A tar above ``expanded_bytes`` is at most ``expansion`` times as long as its compressed blob. Programs and data take
    two to ten times; a bomb takes a thousand.
    """

    entries: int = 1_000_000
    content_bytes: int = 64 << 30
    free_bytes: int = 256 * MIB
    expanded_bytes: int = 1 << 30
    expansion: int = 100

    def tar_bytes(self, blob_bytes: int) -> int:
        """Return how long the tar in a blob of this length may be: headers and padding are not content."""
        return min(2 * self.content_bytes, max(self.expanded_bytes, self.expansion * blob_bytes))


class Unpacked(Struct, frozen=True):
    """What was unpacked: the newest time in the layer in seconds since 1970, and whether it hides all layers below."""

    newest_s: int
    hides_below: bool


class _Folder:
    """A directory of the tree, as far as the archive has spoken of it."""

    __slots__ = ("children", "mtime_ns")

    def __init__(self) -> None:
        self.children: dict[bytes, _Folder] = {}
        self.mtime_ns = EPOCH_S * _NS


def unpack(chunks: Iterable[bytes], tree: Path, what: str, limits: Limits = Limits()) -> Unpacked:  # noqa: B008
    """Unpack a layer's uncompressed tar into ``tree``, an empty directory, and read the stream to its end.

    Raises UsageError, which names the layer as ``what``, for an archive that is damaged, leaves the tree or exceeds a
    limit; PrerequisiteError where the host cannot hold it. The tree is then incomplete.
    """
    stream = Chunks(chunks)
    reader = TarReader(stream)
    with_tree = _Unpacker(tree, limits)
    entry: Entry | None = None
    try:
        for entry in reader:
            with_tree.add(entry, reader.content())
        entry = None
        with_tree.finish()
        left = 0
        for chunk in stream.rest():
            left += len(chunk)
            if left > limits.content_bytes:
                raise TarError(f"more than {limits.content_bytes} bytes after its end")
    except (TarError, OverflowError) as error:
        raise UsageError(f"{what}: {_where(entry, str(error))}{error}") from error
    except OSError as error:
        raise _explain(error, what, entry) from error
    finally:
        with_tree.close()
    return Unpacked(with_tree.newest_ns // _NS, with_tree.hides_below)


def _where(entry: Entry | None, message: str) -> str:
    if entry is None:
        return ""
    return f"{tarstream.shown(entry.name)}: "


def _explain(error: OSError, what: str, entry: Entry | None) -> Exception:
    """Return the error for what the kernel refused: the archive's fault, or the host's."""
    import errno

    where = _where(entry, "")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EISDIR, errno.EMLINK):
        return UsageError(f"{what}: {where}{error.strerror}")
    if error.errno in (errno.EPERM, errno.EACCES):
        return PrerequisiteError(f"{what}: {where}{error.strerror}", "run as root, or through sudo")
    if error.errno in (errno.ENOTSUP, errno.ERANGE, errno.E2BIG):
        hint = "set TESTBED_HOME to a directory on ext4, xfs or btrfs"
        return PrerequisiteError(f"{what}: {where}{error.strerror}", hint)
    return error


class _Unpacker:
    """Puts one entry after the other into the tree."""

    def __init__(self, tree: Path, limits: Limits) -> None:
        self.limits = limits
        self.newest_ns = EPOCH_S * _NS
        self.hides_below = False
        self._path = tree
        self._root = _Folder()
        self._root_fd = os.open(tree, _DIRECTORY)
        self._open: OrderedDict[tuple[bytes, ...], int] = OrderedDict()
        self._entries = self._bytes = self._unchecked = 0
        self._last: tuple[bytes, tuple[bytes, ...], _Folder, int] | None = None
        os.fchmod(self._root_fd, 0o755)
        os.fchown(self._root_fd, 0, 0)

    def close(self) -> None:
        for descriptor in (*self._open.values(), self._root_fd):
            os.close(descriptor)
        self._open.clear()

    def add(self, entry: Entry, content: Iterator[memoryview]) -> None:
        """Add an entry. Raises TarError, OSError."""
        self._count(entry)
        folder_name, base = _split(entry.name)
        if base == b"":
            if entry.kind != tarstream.DIRECTORY:
                raise TarError("the root is no directory")
            self._attributes(self._root_fd, entry)
            self._root.mtime_ns = entry.mtime_ns
            self._see(entry.mtime_ns)
            return
        if base.startswith(_META_PREFIX) and base != _OPAQUE:
            return
        where, folder, fd = self._folder(folder_name)
        if base == _OPAQUE:
            self._set_opaque(where, fd)
        elif base.startswith(_PREFIX):
            self._whiteout(base[len(_PREFIX) :], folder, fd)
        elif entry.kind == tarstream.DIRECTORY:
            self._directory(base, entry, where, folder, fd)
        else:
            self._make(base, entry, content, folder, where, fd)

    def finish(self) -> None:
        """Set the times of directories, which making what is in them has changed."""
        os.utime(self._root_fd, ns=(self._root.mtime_ns, self._root.mtime_ns))
        pending: list[tuple[tuple[bytes, ...], _Folder]] = [((), self._root)]
        while pending:
            where, folder = pending.pop()
            if not folder.children:
                continue
            fd = self._descriptor(where)
            for name, child in folder.children.items():
                os.utime(name, ns=(child.mtime_ns, child.mtime_ns), dir_fd=fd, follow_symlinks=False)
                pending.append(((*where, name), child))

    def _count(self, entry: Entry) -> None:
        self._entries += 1
        if self._entries > self.limits.entries:
            raise TarError(f"more than {self.limits.entries} entries")
        if entry.kind != tarstream.FILE:
            return
        self._bytes += entry.size
        self._unchecked += entry.stored
        if self._bytes > self.limits.content_bytes:
            raise TarError(f"more than {self.limits.content_bytes} bytes in its files")
        if self._unchecked > _CHECK_EVERY_BYTES:
            self._unchecked = entry.stored
            if free_bytes(self._path) < self.limits.free_bytes + entry.stored:
                import errno

                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _see(self, mtime_ns: int) -> None:
        self.newest_ns = max(self.newest_ns, mtime_ns)

    # Directories

    def _folder(self, name: bytes) -> tuple[tuple[bytes, ...], _Folder, int]:
        """Return the directory called ``name``, which is made if it is missing: its names below the root, what is known
        of it, and a descriptor."""
        if self._last is not None and self._last[0] == name:
            return self._last[1:]
        todo = [part for part in reversed(name.split(b"/")) if part]
        where: list[bytes] = []
        passed = [self._root]
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
        self._last = (name, place, passed[-1], self._descriptor(place))
        return self._last[1:]

    def _enter(self, part: bytes, folder: _Folder, where: tuple[bytes, ...]) -> bytes | None:
        """Make the directory ``part``; where a link has that name, return its target instead."""
        fd = self._descriptor(where)
        status = _status(part, fd)
        if status is not None and stat.S_ISLNK(status.st_mode):
            return os.readlink(part, dir_fd=fd)
        if status is not None and not _is_whiteout(status):
            raise TarError("it lies below a file")
        self._make_directory(part, folder, where, fd, over_whiteout=status is not None)
        return None

    def _make_directory(
        self, base: bytes, folder: _Folder, where: tuple[bytes, ...], fd: int, *, over_whiteout: bool
    ) -> None:
        if over_whiteout:
            os.unlink(base, dir_fd=fd)
        os.mkdir(base, 0o755, dir_fd=fd)
        folder.children[base] = _Folder()
        if over_whiteout:
            self._set_opaque((*where, base), self._descriptor((*where, base)))

    def _descriptor(self, where: tuple[bytes, ...]) -> int:
        """Return a descriptor of a directory of the tree, which is kept open for a while."""
        if not where:
            return self._root_fd
        fd = self._open.get(where)
        if fd is not None:
            self._open.move_to_end(where)
            return fd
        depth = len(where) - 1
        while depth and where[:depth] not in self._open:
            depth -= 1
        parent = self._open[where[:depth]] if depth else self._root_fd
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

    def _forget(self) -> None:
        """Close what is open below a directory that is replaced."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._last = None

    def _directory(self, base: bytes, entry: Entry, where: tuple[bytes, ...], folder: _Folder, fd: int) -> None:
        if base not in folder.children:
            status = _status(base, fd)
            whiteout = status is not None and _is_whiteout(status)
            if status is not None and not whiteout:
                os.unlink(base, dir_fd=fd)
            self._make_directory(base, folder, where, fd, over_whiteout=whiteout)
        self._attributes(self._descriptor((*where, base)), entry)
        folder.children[base].mtime_ns = entry.mtime_ns
        self._see(entry.mtime_ns)

    def _set_opaque(self, where: tuple[bytes, ...], fd: int) -> None:
        if where:
            os.setxattr(fd, OPAQUE_XATTR, b"y")
        else:
            self.hides_below = True

    def _whiteout(self, hidden: bytes, folder: _Folder, fd: int) -> None:
        if hidden in (b"", b".", b"..") or b"/" in hidden:
            raise TarError("it says that a name is deleted which is none")
        if hidden in folder.children:
            below = os.open(hidden, _DIRECTORY, dir_fd=fd)
            try:
                os.setxattr(below, OPAQUE_XATTR, b"y")
            finally:
                os.close(below)
        elif _status(hidden, fd) is None:
            self._mknod(hidden, stat.S_IFCHR, 0, fd)
            os.utime(hidden, (EPOCH_S, EPOCH_S), dir_fd=fd, follow_symlinks=False)

    # All else

    def _make(
        self,
        base: bytes,
        entry: Entry,
        content: Iterator[memoryview],
        folder: _Folder,
        where: tuple[bytes, ...],
        fd: int,
    ) -> None:
        """Make what is no directory, in place of what has its name."""
        try:
            self._make_new(base, entry, content, fd)
        except FileExistsError:
            if base in folder.children:
                self._forget()
                fd = self._descriptor(where)
                _remove_tree(base, fd)
                del folder.children[base]
            elif entry.kind == tarstream.LINK and self._is_same(base, entry, fd):
                return
            else:
                fd = self._folder(b"/".join(where))[2]
                os.unlink(base, dir_fd=fd)
            self._make_new(base, entry, content, fd)
        self._see(entry.mtime_ns)

    def _make_new(self, base: bytes, entry: Entry, content: Iterator[memoryview], fd: int) -> None:
        kind = entry.kind
        if kind == tarstream.FILE:
            self._file(base, entry, content, fd)
            return
        if kind == tarstream.LINK:
            source, source_fd = self._link_source(entry)
            os.link(source, base, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
            return
        if kind == tarstream.SYMLINK:
            os.symlink(entry.target, base, dir_fd=fd)
        elif kind == tarstream.FIFO:
            self._mknod(base, stat.S_IFIFO, 0, fd)
        else:
            kind_bits = stat.S_IFCHR if kind == tarstream.CHARACTER else stat.S_IFBLK
            self._mknod(base, kind_bits, os.makedev(*entry.device), fd)
        os.chown(base, *_owner(entry), dir_fd=fd, follow_symlinks=False)
        path = f"/proc/self/fd/{fd}/".encode() + base
        if kind != tarstream.SYMLINK:
            os.chmod(base, entry.mode, dir_fd=fd)
        for name, value in _kept_xattrs(entry):
            os.setxattr(path, name, value, follow_symlinks=False)
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _mknod(self, base: bytes, kind: int, device: int, fd: int) -> None:
        os.mknod(base, kind | 0o600, device, dir_fd=fd)

    def _file(self, base: bytes, entry: Entry, content: Iterator[memoryview], fd: int) -> None:
        file = os.open(base, _NEW_FILE, 0o600, dir_fd=fd)
        try:
            if entry.segments is None:
                for piece in content:
                    _write(file, piece)
            else:
                os.ftruncate(file, entry.size)
                _fill(file, entry.segments, content)
            self._attributes(file, entry)
            os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(file)

    def _attributes(self, file: int, entry: Entry) -> None:
        owner = _owner(entry)
        if owner != (0, 0) or entry.kind == tarstream.DIRECTORY or os.geteuid():
            os.fchown(file, *owner)  # before the mode and the capabilities, which it takes away
        os.fchmod(file, entry.mode)
        if entry.xattrs:
            for name, value in _kept_xattrs(entry):
                os.setxattr(file, name, value)

    def _link_source(self, entry: Entry) -> tuple[bytes, int]:
        folder_name, base = _split(entry.target)
        if base == b"":
            raise TarError("a hard link to the root")
        last = self._last  # what comes next is usually beside this entry, not beside what it links to
        fd = self._folder(folder_name)[2]
        if last is not None and last[1] in self._open:
            self._last = last
        status = _status(base, fd)
        if status is None or _is_whiteout(status) or stat.S_ISDIR(status.st_mode):
            raise TarError(f"a hard link to {tarstream.shown(entry.target)}, which is no file of this layer before it")
        return base, fd

    def _is_same(self, base: bytes, entry: Entry, fd: int) -> bool:
        source, source_fd = self._link_source(entry)
        one, two = _status(base, fd), _status(source, source_fd)
        return one is not None and two is not None and os.path.samestat(one, two)


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Return the directory and the last part of an entry's name. Raises TarError for one that leaves the tree."""
    if len(name) > NAME_LIMIT_BYTES:
        raise TarError(f"a name of {len(name)} bytes")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise TarError("a name with .., which could lead out of the layer")
    if not parts:
        return b"", b""
    return b"/".join(parts[:-1]), parts[-1]


def _owner(entry: Entry) -> tuple[int, int]:
    if not (0 <= entry.uid < 2**32 - 1 and 0 <= entry.gid < 2**32 - 1):
        raise TarError(f"owner {entry.uid}:{entry.gid}: out of the kernel's range")
    return entry.uid, entry.gid


def _kept_xattrs(entry: Entry) -> Iterator[tuple[bytes, bytes]]:
    """Yield the extended attributes that are set. Overlay's own are not: they would lead a mount elsewhere."""
    for name, value in entry.xattrs.items():
        if not name.startswith(_OVERLAYS) and name not in _UNUSED_XATTRS:
            yield name, value


def _status(name: bytes, fd: int) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=fd)
    except FileNotFoundError:
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _write(file: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(file, data) :]


def _fill(file: int, segments: Iterable[tuple[int, int]], content: Iterator[memoryview]) -> None:
    """Write the stored bytes of a sparse file to where they belong."""
    piece = memoryview(b"")
    for offset, length in segments:
        while length:
            if not len(piece):
                piece = next(content)
            written = os.pwrite(file, piece[:length], offset)
            piece = piece[written:]
            offset += written
            length -= written


def _remove_tree(name: bytes, fd: int) -> None:
    from runtime.atomic import remove

    remove(Path(f"/proc/self/fd/{fd}/{os.fsdecode(name)}"))
