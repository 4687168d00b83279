"""From an OCI layer tar to an overlay directory: the inverse of ``runtime.images.layers.write_tar``."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import IO

from runtime.errors import UsageError
from runtime.images.layers import OPAQUE_MARKER, OPAQUE_XATTR, WHITEOUT_PREFIX

XATTR_RECORD = "SCHILY.xattr."


def unpack(stream: IO[bytes], tree: Path) -> None:
    """Extract the layer tar read from ``stream`` into the empty directory ``tree``, owners included.

    Whiteouts become 0/0 character devices and opaque attributes. Raises UsageError for a member that
    would be written outside ``tree`` (``..``, or through a link that the layer itself made).
    """
    directories: list[tuple[Path, int]] = []
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            target = _target(tree, member.name)
            if target == tree:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.name == OPAQUE_MARKER:
                os.setxattr(target.parent, OPAQUE_XATTR, b"y")
                continue
            if target.name.startswith(WHITEOUT_PREFIX):
                _make_whiteout(target.with_name(target.name.removeprefix(WHITEOUT_PREFIX)), member)
                continue
            _make(archive, member, tree, target)
            if member.isdir():
                directories.append((target, int(member.mtime)))
    # Last, because every file made in a directory changes its time.
    for directory, mtime_s in reversed(directories):
        os.utime(directory, (mtime_s, mtime_s))


def _target(tree: Path, name: str) -> Path:
    """Where a member goes; its parents must be real directories inside ``tree``."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"layer member {name!r} leads out of the layer")
    target = tree
    for part in parts[:-1]:
        target /= part
        if target.is_symlink():
            raise UsageError(f"layer member {name!r} goes through the link {target.relative_to(tree)}")
    return target / parts[-1] if parts else tree


def _make_whiteout(target: Path, member: tarfile.TarInfo) -> None:
    os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.utime(target, (member.mtime, member.mtime))


def _make(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Path, target: Path) -> None:
    if member.islnk():
        os.link(_target(tree, member.linkname), target, follow_symlinks=False)
        return
    if member.isdir():
        target.mkdir(exist_ok=True)
    elif member.issym():
        os.symlink(member.linkname, target)
    elif member.isfifo():
        os.mkfifo(target)
    elif member.ischr() or member.isblk():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(target, kind | 0o600, os.makedev(member.devmajor, member.devminor))
    else:
        content = archive.extractfile(member)
        if content is None:
            raise UsageError(f"layer member {member.name!r} has the unknown type {member.type!r}")
        with open(target, "xb") as file:
            shutil.copyfileobj(content, file)
    _set_metadata(member, target)


def _set_metadata(member: tarfile.TarInfo, target: Path) -> None:
    # The owner first: changing it clears the set-id bits and file capabilities.
    os.chown(target, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(target, member.mode)
    for record, value in member.pax_headers.items():
        if record.startswith(XATTR_RECORD):
            name = record.removeprefix(XATTR_RECORD)
            os.setxattr(target, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
    os.utime(target, (member.mtime, member.mtime), follow_symlinks=False)
