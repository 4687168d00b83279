"""One layer: its canonical tar, its digest, and the two notations for deleted names.

On disk a layer is an overlay lowerdir: a deleted name is a character device 0/0, and a directory that hides the one
below has the attribute ``trusted.overlay.opaque=y`` (Documentation/filesystems/overlayfs.rst). A tar follows the OCI
image-spec (layer.md): it has ``.wh.<name>`` and ``.wh..wh..opq``.

The sha256 of the canonical tar is the layer's diff_id. The tar has the pax format. Its entries come depth first,
sorted by the bytes of their names, without the root. They have numeric owners only, and times in whole seconds but
where a file of elsewhere has finer ones; further names of a file are hard links to the first, extended attributes are
``SCHILY.xattr`` records, and sockets are left out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from runtime.errors import UsageError
from runtime.images.oci import EPOCH_S
from runtime.unionfs.lookup import OPAQUE_XATTR, is_opaque, is_whiteout

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARKER = ".wh..wh..opq"
OVERLAY_XATTRS = "trusted.overlay."
# These make a directory or file depend on the layers of the mount that wrote it, so that a layer with them has another
# meaning anywhere else. The runtime mounts with both features off.
FOREIGN_XATTRS = ("trusted.overlay.redirect", "trusted.overlay.metacopy")

COPY_BYTES = 1 << 20
# PATH_MAX, with some room; and the characters that surely take fewer bytes.
_PATH_LIMIT_BYTES, _SURELY_SHORT = 4000, 1000
# Numbers that fit in the octal digits of a header, and all of a header behind an entry's type.
_SMALL_ID, _SMALL_SIZE = 8**7, 8**11
_AFTER_TYPE = (bytes(tarfile.LENGTH_LINK) + tarfile.POSIX_MAGIC).ljust(355, b"\0")
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Paths:
    """Paths of what is below ``tree``, also where they would be longer than the kernel takes: a directory above is then
    held open, until the next path or ``close``."""

    def __init__(self, tree: str) -> None:
        self.tree = tree
        self._folder, self._held = "", -1

    def of(self, name: str) -> str:
        """Return a path of ``name`` that holds until the next call."""
        path = f"{self.tree}/{name}"
        if len(path) < _SURELY_SHORT or len(os.fsencode(path)) < _PATH_LIMIT_BYTES:
            return path
        folder, _, base = name.rpartition("/")
        if folder != self._folder:
            held = os.open(self.tree, _FOLDER)
            for part in folder.split("/"):
                below = os.open(part, _FOLDER, dir_fd=held)
                os.close(held)
                held = below
            self.close()
            self._folder, self._held = folder, held
        return f"/proc/self/fd/{self._held}/{base}"

    def close(self) -> None:
        """Close what is held open."""
        if self._held >= 0:
            os.close(self._held)
        self._folder, self._held = "", -1


class Digest(Struct, frozen=True):
    """A layer's identity: the ``diff_id`` and the ``size_bytes`` of its canonical tar."""

    diff_id: str
    size_bytes: int


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _HashingSink:
    """A writable file object that keeps only the digest and the length of what is written."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes, /) -> int:
        self.sha256.update(data)
        self.size_bytes += len(data)
        return len(data)


def digest(tree: Path) -> Digest:
    """Return the identity of the layer that is extracted at ``tree``."""
    sink = _HashingSink()
    write_tar(tree, sink)
    return Digest("sha256:" + sink.sha256.hexdigest(), sink.size_bytes)


def write_tar(tree: Path, sink: _Sink) -> None:
    """Write the canonical OCI layer tar of the overlay directory ``tree``."""
    for chunk in tar_chunks(tree):
        sink.write(chunk)


def tar_chunks(tree: Path) -> Iterator[bytes]:
    """Yield the canonical OCI layer tar of the overlay directory ``tree`` in chunks."""
    buffer = bytearray()
    length = 0
    for info, source in _entries(str(tree)):
        buffer += encode_header(info)
        if source is not None:
            left = info.size
            content = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while left:
                    piece = os.read(content, min(left, COPY_BYTES))
                    if not piece:
                        raise OSError(errno.EIO, "it became shorter while it was read", source)
                    buffer += piece
                    left -= len(piece)
                    if len(buffer) >= COPY_BYTES:
                        length += len(buffer)
                        yield bytes(buffer)
                        buffer.clear()
            finally:
                os.close(content)
            buffer += bytes(-info.size % tarfile.BLOCKSIZE)
        if len(buffer) >= COPY_BYTES:
            length += len(buffer)
            yield bytes(buffer)
            buffer.clear()
    buffer += bytes(2 * tarfile.BLOCKSIZE)
    buffer += bytes(-(length + len(buffer)) % tarfile.RECORDSIZE)
    yield bytes(buffer)


def encode_header(info: tarfile.TarInfo) -> bytes:
    """Return the header of a tar entry, as ``tarfile`` makes it, in a fifth of its time for most files and directories:
    those with a short name and small numbers (POSIX.1-2017, pax, "ustar Header Block")."""
    name = info.name + "/" * (info.type == tarfile.DIRTYPE)
    plain = (
        info.type in (tarfile.REGTYPE, tarfile.DIRTYPE)
        and not info.pax_headers
        and len(name) <= tarfile.LENGTH_NAME
        and name.isascii()
        and 0 <= info.uid < _SMALL_ID
        and 0 <= info.gid < _SMALL_ID
        and 0 <= info.mtime < _SMALL_SIZE
        and info.size < _SMALL_SIZE
    )
    if not plain:
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    size = 0 if info.type == tarfile.DIRTYPE else info.size
    fields = f"{info.mode & 0o7777:07o}\0{info.uid:07o}\0{info.gid:07o}\0{size:011o}\0{int(info.mtime):011o}\0"
    before = name.encode().ljust(tarfile.LENGTH_NAME, b"\0") + fields.encode()
    after = info.type + _AFTER_TYPE
    checksum = 8 * ord(" ") + sum(before) + sum(after)
    return b"%s%06o\0 %s" % (before, checksum, after)


def await_tick() -> float:
    """Wait for the next tick of the clock that files get their times from, some milliseconds, and return its time in
    seconds since 1970: what is written from now on is not older, and all else is.

    A file is asked, as its clock is not the one that processes read (CLOCK_REALTIME_COARSE): kernels since 6.13 give
    files finer times, ahead of that (Documentation/filesystems/multigrain-ts.rst).
    """
    probe = os.memfd_create("tick")
    try:
        before_s = now_s = _touch(probe)
        while now_s == before_s:
            time.sleep(0.0005)
            now_s = _touch(probe)
    finally:
        os.close(probe)
    return now_s - 1e-6  # as a float, a file's may be rounded to less


def _touch(descriptor: int) -> float:
    """Return the time that a file gets now."""
    os.utime(descriptor)
    return os.fstat(descriptor).st_mtime


def settle(tree: Path, since_s: float, after_s: int = EPOCH_S) -> int:
    """Make what a build step wrote under ``tree`` independent of when and how it was written.

    Times from ``since_s`` (seconds since 1970, when the step began) until now are accidents of the build. All of them
    become one time, a second above both ``after_s``, the newest of the layers below, and the newest that stays here.
    So what a later step writes is newer, for ``make`` and for ``test -nt``. Other times came with a package or file and
    are kept, in whole seconds, because byte-compiled code records them. Overlay's own attributes are removed. Returns
    the newest time in the layer, or ``after_s`` if it is empty.

    Raises UsageError if overlay used a feature whose layers cannot be read without their mount, and for a name that
    marks another as deleted in a layer's tar.
    """
    until_s = time.time() + 1
    paths = Paths(str(tree))
    entries = list(walk(tree))
    kept = [int(status.st_mtime_ns // 10**9) for _, status in entries if status.st_mtime < since_s]
    settled_s = max(EPOCH_S, after_s, *kept) + 1
    for name, status in entries:
        base = name.rpartition("/")[2]
        if base.startswith(WHITEOUT_PREFIX):
            what = f"/{name}: in a layer's tar a name that begins with {WHITEOUT_PREFIX} says that another is deleted"
            raise UsageError(what, "give it another name (OCI image-spec, layer.md)")
        path = paths.of(name)
        _remove_overlay_attributes(path, keep=(OPAQUE_XATTR,) if stat.S_ISDIR(status.st_mode) else ())
        mtime_s = max(0, status.st_mtime_ns // 10**9)  # erofs, which guests use, has no times before 1970
        if is_whiteout(status):
            mtime_s = EPOCH_S
        elif since_s <= status.st_mtime <= until_s:
            mtime_s = settled_s
        os.utime(path, (mtime_s, mtime_s), follow_symlinks=False)
    paths.close()
    _remove_overlay_attributes(str(tree), keep=())
    os.chown(tree, 0, 0)
    os.chmod(tree, 0o755)  # noqa: S103 # like every root directory
    os.utime(tree, (EPOCH_S, EPOCH_S))
    return settled_s if entries else after_s


def walk(tree: str | Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative names of all below ``tree``, sorted by bytes, a directory before its content; links are not
    followed."""
    paths = Paths(str(tree))
    pending = _names(str(tree), "")
    while pending:
        name = pending.pop()
        path = paths.of(name)
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            pending += _names(path, f"{name}/")
        yield name, status
    paths.close()


def _names(folder: str, prefix: str) -> list[str]:
    return [prefix + name for name in sorted(os.listdir(folder), key=os.fsencode, reverse=True)]


def _entries(tree: str) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    """Yield the tar entries of ``tree``, each with the file that holds its content, if it has any."""
    first_names: dict[tuple[int, int], str] = {}
    paths = Paths(tree)
    for name, status in walk(tree):
        path = paths.of(name)
        if is_whiteout(status):
            folder, slash, base = name.rpartition("/")
            yield _marker(f"{folder}{slash}{WHITEOUT_PREFIX}{base}"), None
            continue
        if stat.S_ISSOCK(status.st_mode):
            continue
        info = _describe(path, name, status)
        if not info.isdir() and status.st_nlink > 1:
            first = first_names.setdefault((status.st_dev, status.st_ino), info.name)
            if first != info.name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
                info.pax_headers = {}
        yield info, path if info.isreg() else None
        if info.isdir() and is_opaque(path):
            yield _marker(f"{name}/{OPAQUE_MARKER}"), None
    paths.close()


def _marker(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = 0, EPOCH_S
    return info


def _describe(path: str, name: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime = status.st_mtime_ns // 10**9
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        info.size = status.st_size
    elif kind == stat.S_IFLNK:
        info.linkname = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    info.type = {
        stat.S_IFREG: tarfile.REGTYPE,
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }[kind]
    info.pax_headers = _xattr_records(path)
    if status.st_mtime_ns % 10**9:
        info.pax_headers["mtime"] = _decimal_seconds(status.st_mtime_ns)
    return info


def _decimal_seconds(time_ns: int) -> str:
    """Return a time as pax has it: decimal seconds, exact to the nanosecond."""
    seconds, rest = divmod(abs(time_ns), 10**9)
    return f"{'-' * (time_ns < 0)}{seconds}.{rest:09}".rstrip("0")


def _xattr_records(path: str) -> dict[str, str]:
    """Return extended attributes as pax records. Bytes that are not UTF-8 are surrogates, which tarfile writes raw."""
    return {
        f"SCHILY.xattr.{name}": os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if not name.startswith(OVERLAY_XATTRS)
    }


def _remove_overlay_attributes(path: str, keep: tuple[str, ...]) -> None:
    for name in os.listxattr(path, follow_symlinks=False):
        if name in FOREIGN_XATTRS:
            raise UsageError(
                f"overlay left {name} on {path}, which only its own mount can read",
                "mount the build's overlay with redirect_dir=off,metacopy=off",
            )
        if name.startswith(OVERLAY_XATTRS) and name not in keep:
            os.removexattr(path, name, follow_symlinks=False)
