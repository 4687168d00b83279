"""Unpack a local tar archive into a new layer, as ADD does: plain, or compressed by gzip, bzip2, xz or zstd.

Nothing in an archive is trusted. Each entry goes where its name leads within the image, whose links are followed; a
name that climbs above the destination, or passes through a link that the archive itself has made, is refused.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import IO, cast

from msgspec import Struct

from runtime.builder.copying import Tree, set_owner
from runtime.builder.modes import Mode
from runtime.errors import UsageError
from runtime.images.compression import Chunks, decompressed, is_zstd

MOST_ENTRIES = 1_000_000
# What the entries may have together when unpacked: some KiB of zeroes compress to as much as one likes.
MOST_BYTES = 64 << 30
MOST_HEADER_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_BROKEN = (tarfile.TarError, EOFError, zlib.error, LZMAError, RecursionError, UnicodeError, ValueError)
_TYPES = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}


class _Member(tarfile.TarInfo):
    """A description of an entry; what comes before it (long names, pax records) may have MOST_HEADER_BYTES."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS and self.size > MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"an entry's description has more than {MOST_HEADER_BYTES} bytes")
        return cast(tarfile.TarInfo, super()._proc_member(archive))  # type: ignore[misc]


class Target(Struct, frozen=True):
    """Where an archive goes: the directory ``place`` of ``tree``, with another ``owner`` or ``mode`` unless None."""

    tree: Tree
    place: str
    owner: tuple[int, int] | None
    mode: Mode | None


def is_archive(path: Path) -> bool:
    """Return whether a file is a tar archive with an entry: by its content, whatever its name is. Raises
    PrerequisiteError where that is compressed in a way that this host cannot read."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    try:
        with _opened(path) as archive:
            return archive.next() is not None
    except (*_BROKEN, OSError, UsageError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive, to be read once. Before Python 3.14, tarfile does not know zstd."""
    with path.open("rb") as file:
        content: IO[bytes] = file
        start = file.read(4)
        file.seek(0)
        if is_zstd(start):
            chunks = decompressed(iter(lambda: file.read(_PIECE_BYTES), b""))
            content = io.BufferedReader(Chunks(iter(chunks)), _PIECE_BYTES)
        with tarfile.open(fileobj=content, mode="r|*", tarinfo=_Member) as archive:
            yield archive


def unpack(path: Path, target: Target) -> None:
    """Unpack the archive at ``path``. Raises UsageError for one that is damaged, too large or leads out."""
    purpose = f"ADD {path.name}"
    count = size_bytes = 0
    with _reported(purpose), _opened(path) as archive:
        for member in archive:
            count, size_bytes = count + 1, size_bytes + max(0, member.size)
            if count > MOST_ENTRIES or size_bytes > MOST_BYTES:
                raise UsageError(f"{purpose}: it has more than {MOST_ENTRIES} entries, or {MOST_BYTES} bytes")
            archive.members.clear()  # type: ignore[attr-defined] # or it keeps a description of each entry
            _add(archive, member, target, purpose)


@contextmanager
def _reported(purpose: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise UsageError(f"{purpose}: the archive is damaged: {str(error)[:200]}") from error


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Target, purpose: str) -> None:
    name = _inside(member.name, purpose)
    owner = target.owner or (member.uid, member.gid)
    tree, where = target.tree, f"{target.place.rstrip('/')}/{name}"
    kind = stat.S_IFDIR if member.isdir() else _TYPES.get(member.type, stat.S_IFREG)
    mode = target.mode.applied(kind | member.mode) if target.mode else stat.S_IMODE(member.mode)
    if member.isdir():
        path = tree.directory(where) if name else tree.directory(target.place)
        if name:
            set_owner(path, owner, mode)
    elif not name:
        raise UsageError(f"{purpose}: an entry that is no directory has no name")
    elif member.issym():
        path = tree.vacate(where, (0, 0), purpose)
        os.symlink(member.linkname, path)
        os.chown(path, *owner, follow_symlinks=False)
    elif member.islnk():
        source = f"{target.place.rstrip('/')}/{_inside(member.linkname, purpose)}"
        path = tree.vacate(where, (0, 0), purpose)
        os.link(tree.existing(source, purpose), path, follow_symlinks=False)
    else:
        path = tree.vacate(where, (0, 0), purpose)
        _write(archive, member, path, kind | 0o600)
        set_owner(path, owner, mode)
    seconds = max(0, int(member.mtime))
    os.utime(path, (seconds, seconds), follow_symlinks=False)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        os.mknod(path, mode, os.makedev(member.devmajor, member.devminor))
        return
    content = archive.extractfile(member)
    with open(path, "xb") as file:
        if content is not None:
            shutil.copyfileobj(content, file, 1 << 20)


def _inside(name: str, purpose: str) -> str:
    """Return a member's name without a leading slash and dots. Raises UsageError for one that climbs."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise UsageError(f"{purpose}: an entry is called {name[:100]!r}, which leads out of the archive")
    return "/".join(parts)
