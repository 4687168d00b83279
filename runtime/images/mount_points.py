"""What the runtime makes in a writable layer for its own mounts, and takes away again before the layer is kept."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.images.model import Layer
from runtime.images.rootfs import lookup, own, resolve
from runtime.unionfs.lookup import is_opaque

# Where the runtime mounts over the image. It makes those that the image lacks as mount points.
_FOLDERS = ("dev", "proc", "sys")
_FILES = ("etc/resolv.conf", "etc/hosts")


def remove_mount_points(upper: Path, layers: Sequence[Layer], targets: Sequence[str] = ()) -> None:
    """Remove from a container's changes those of the runtime: mount points that the image did not have, of its own file
    systems and files and of ``targets``.

    A file under a bind mount is empty in ``upper``, and a directory under a mount has nothing of the mount's. The
    container made what lies in ``upper``, so no link in it is followed.
    """
    for name in (*_FILES, *targets):
        # The path where the runtime found or made it, before the command ran.
        where = resolve("/" + name, layers)
        path = own(where, upper)
        if path is not None and _is_empty_file(path) and not _has_content(where, layers):
            path.unlink()
            _remove_unchanged(upper, where, layers)
    for name in (*_FOLDERS, *targets):
        where = resolve("/" + name, layers)
        path = own(where, upper)
        if path is not None and lookup(where, layers) is None and _is_empty_directory(path):
            path.rmdir()
            _remove_unchanged(upper, where, layers)


def _is_empty_file(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _is_empty_directory(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode) and not any(path.iterdir())


def _has_content(name: str, layers: Sequence[Layer]) -> bool:
    below = lookup(name, layers)
    return below is not None and below.lstat().st_size > 0


def _remove_unchanged(upper: Path, where: str, layers: Sequence[Layer]) -> None:
    """Remove the directories above a bound file that were copied up or made only because of that file."""
    while (where := where.rpartition("/")[0]) and (path := own(where, upper)) is not None:
        below = lookup(where, layers)
        if not _is_empty_directory(path) or is_opaque(path):
            return
        above, under = path.lstat(), below.lstat() if below else None
        attributes = (above.st_mode, above.st_uid, above.st_gid)
        if under and attributes != (under.st_mode, under.st_uid, under.st_gid):
            return
        path.rmdir()
