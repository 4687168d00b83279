"""Unpack a layer's tar as an overlay lowerdir, as the OCI image-spec says (layer.md), from a source that nobody trusts.

Nothing outside of the tree is read or written: every directory is opened from its parent's descriptor without following
links, and a link in the middle of a name is followed inside the tree, as in a container. Time is linear in the entries.

A whiteout says that a name of the layers below is gone, never one of this layer: whichever comes first, a file that the
layer has beside it stays, and a directory beside it is opaque. What a layer does not say is fixed: directories that it
only implies, and a root that it does not describe, are 0755, root's, and of 1980.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError, UsageError
from runtime.images import tarstream
from runtime.images.confined import NAME_LIMIT_BYTES, Folder, Names, Tree, remove_below, status_of
from runtime.images.layers import OPAQUE_MARKER, OVERLAY_XATTRS, WHITEOUT_PREFIX
from runtime.images.oci import EPOCH_S
from runtime.images.space import MIB, free_bytes
from runtime.images.tarstream import Chunks, Entry, TarError, TarReader
from runtime.unionfs.lookup import is_whiteout

_NS = 10**9
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# The kernel's modules decide on these: they name what the builder's host knows, or are computed by it.
_UNUSED_XATTRS = (b"security.selinux", b"security.ima", b"security.evm")
_OVERLAYS = (OVERLAY_XATTRS.encode(), b"user.overlay.")
_PREFIX, _OPAQUE = WHITEOUT_PREFIX.encode(), OPAQUE_MARKER.encode()
# Aufs kept its own files under such names; no layer has content there.
_META_PREFIX = b".wh..wh."
_CHECK_EVERY_BYTES = 64 * MIB
# What the kernel answers to names, links and sizes that cannot be.
_ITS_FAULT = {
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EMLINK, errno.EILSEQ),
    *(errno.EINVAL, errno.EFBIG, errno.EOVERFLOW),
}


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


def unpack(chunks: Iterable[bytes], tree: Path, what: str, limits: Limits = Limits()) -> Unpacked:  # noqa: B008
    """Unpack a layer's uncompressed tar into ``tree``, an empty directory, and read the stream to its end.

    Raises UsageError, which names the layer as ``what``, for an archive that is damaged, leaves the tree or exceeds a
    limit; PrerequisiteError where the host cannot hold it. The tree is then incomplete.
    """
    stream = Chunks(chunks)
    reader = TarReader(stream)
    unpacker = _Unpacker(tree, limits)
    entry: Entry | None = None
    try:
        for entry in reader:
            unpacker.add(entry, reader.content())
        entry = None
        unpacker.tree.set_times()
        left = 0
        for chunk in stream.rest():
            left += len(chunk)
            if left > limits.content_bytes:
                raise TarError(f"more than {limits.content_bytes} bytes after its end")
    except (TarError, OverflowError) as error:
        raise UsageError(f"{what}: {_where(entry)}{error}") from error
    except OSError as error:
        raise _explain(error, what, entry) from error
    finally:
        unpacker.tree.close()
    return Unpacked(unpacker.newest_ns // _NS, unpacker.tree.hides_below)


def _where(entry: Entry | None) -> str:
    return "" if entry is None else f"{tarstream.shown(entry.name)}: "


def _explain(error: OSError, what: str, entry: Entry | None) -> Exception:
    """Return the error for what the kernel refused: the archive's fault, or the host's."""
    where = _where(entry)
    if error.errno in _ITS_FAULT:
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
        self.tree = Tree(tree)
        self._path = tree
        self._entries = self._bytes = self._unchecked = 0

    def add(self, entry: Entry, content: Iterator[memoryview]) -> None:
        """Add an entry. Raises TarError, OSError."""
        self._count(entry)
        folder_name, base = _split(entry.name)
        if base == b"":
            if entry.kind != tarstream.DIRECTORY:
                raise TarError("the root is no directory")
            self._attributes(self.tree.root_fd, entry)
            self.tree.root.mtime_ns = entry.mtime_ns
            self._see(entry.mtime_ns)
            return
        if base.startswith(_META_PREFIX) and base != _OPAQUE:
            return
        where, folder, fd = self.tree.folder(folder_name)
        if base == _OPAQUE:
            self.tree.set_opaque(where, fd)
        elif base.startswith(_PREFIX):
            self._whiteout(base[len(_PREFIX) :], where, folder, fd)
        elif entry.kind == tarstream.DIRECTORY:
            self._directory(base, entry, where, folder, fd)
        else:
            self._make(base, entry, content, folder, where, fd)

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
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _see(self, mtime_ns: int) -> None:
        self.newest_ns = max(self.newest_ns, mtime_ns)

    def _directory(self, base: bytes, entry: Entry, where: Names, folder: Folder, fd: int) -> None:
        if base not in folder.children:
            status = status_of(base, fd)
            whiteout = status is not None and is_whiteout(status)
            if status is not None and not whiteout:
                os.unlink(base, dir_fd=fd)
            self.tree.make_directory(base, folder, where, fd, over_whiteout=whiteout)
        self._attributes(self.tree.descriptor((*where, base)), entry)
        folder.children[base].mtime_ns = entry.mtime_ns
        self._see(entry.mtime_ns)

    def _whiteout(self, hidden: bytes, where: Names, folder: Folder, fd: int) -> None:
        if hidden in (b"", b".", b"..") or b"/" in hidden:
            raise TarError("it says that a name is deleted which is none")
        if hidden in folder.children:
            self.tree.set_opaque((*where, hidden), self.tree.descriptor((*where, hidden)))
        elif status_of(hidden, fd) is None:
            os.mknod(hidden, stat.S_IFCHR | 0o600, 0, dir_fd=fd)
            os.utime(hidden, (EPOCH_S, EPOCH_S), dir_fd=fd, follow_symlinks=False)

    # What is no directory

    def _make(
        self,
        base: bytes,
        entry: Entry,
        content: Iterator[memoryview],
        folder: Folder,
        where: Names,
        fd: int,
    ) -> None:
        """Make what is no directory, in place of what has its name."""
        try:
            self._make_new(base, entry, content, where, fd)
        except FileExistsError:
            if base in folder.children:
                self.tree.forget()
                remove_below(base, self.tree.descriptor(where))
                del folder.children[base]
            elif entry.kind == tarstream.LINK and self._is_same(base, entry, where):
                return
            else:
                os.unlink(base, dir_fd=self.tree.descriptor(where))
            self._make_new(base, entry, content, where, self.tree.descriptor(where))
        self._see(entry.mtime_ns)

    def _make_new(self, base: bytes, entry: Entry, content: Iterator[memoryview], where: Names, fd: int) -> None:
        kind = entry.kind
        if kind == tarstream.FILE:
            self._file(base, entry, content, fd)
            return
        if kind == tarstream.LINK:
            source, source_fd = self._link_source(entry)
            fd = self.tree.descriptor(where)  # looking up the other may have closed it
            os.link(source, base, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
            return
        if kind == tarstream.SYMLINK:
            if not entry.target:
                raise TarError("a link to nothing")
            os.symlink(entry.target, base, dir_fd=fd)
        elif kind == tarstream.FIFO:
            os.mknod(base, stat.S_IFIFO | 0o600, dir_fd=fd)
        else:
            kind_bits = stat.S_IFCHR if kind == tarstream.CHARACTER else stat.S_IFBLK
            os.mknod(base, kind_bits | 0o600, os.makedev(*entry.device), dir_fd=fd)
        os.chown(base, *_owner(entry), dir_fd=fd, follow_symlinks=False)
        path = f"/proc/self/fd/{fd}/".encode() + base
        if kind != tarstream.SYMLINK:
            os.chmod(base, entry.mode, dir_fd=fd)
        for name, value in _kept_xattrs(entry):
            os.setxattr(path, name, value, follow_symlinks=False)
        os.utime(base, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

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
        fd = self.tree.descriptor_of(folder_name)
        status = status_of(base, fd)
        if status is None or is_whiteout(status) or stat.S_ISDIR(status.st_mode):
            raise TarError(f"a hard link to {tarstream.shown(entry.target)}, which is no file of this layer before it")
        return base, fd

    def _is_same(self, base: bytes, entry: Entry, where: Names) -> bool:
        two = status_of(*self._link_source(entry))
        one = status_of(base, self.tree.descriptor(where))
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
