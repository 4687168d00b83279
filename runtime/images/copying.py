"""COPY and WORKDIR: make a layer's directory by hand, without a mount.

In an overlay the directory of the upper layer decides owner and mode of a merged one. So each directory
on the way to what is written is made here as the layers below have it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from runtime.errors import UsageError
from runtime.images.context import Entry
from runtime.images.layers import OVERLAY_XATTRS
from runtime.images.model import Layer
from runtime.images.oci import EPOCH_S
from runtime.images.rootfs import is_directory, lookup, resolve


class Tree:
    """A new layer at ``root`` (empty), to lie on top of ``layers``; paths are the image's, absolute."""

    def __init__(self, root: Path, layers: Sequence[Layer]) -> None:
        self.root = root
        self.layers = layers

    def directory(self, path: str, uid: int = 0, gid: int = 0) -> Path:
        """Make ``path`` and its parents, links followed; those that the image lacks belong to ``uid``, ``gid``."""
        made, below = self.root, PurePosixPath("/")
        for part in PurePosixPath(resolve(path, self.layers)).parts[1:]:
            below /= part
            made = made / part
            if made.is_dir() and not made.is_symlink():
                continue
            if made.is_symlink() or made.exists():
                raise UsageError(f"{below} is a file, not a directory")
            self._make_directory(made, str(below), uid, gid)
        return made

    def copy(self, entry: Entry, target: str, owner: tuple[int, int], mode: int | None) -> None:
        """Put one entry of the context at ``target``; ``mode`` None keeps its permissions."""
        uid, gid = owner
        if stat.S_ISDIR(entry.mode):
            made = self.directory(target, uid, gid)
            if lookup(target, self.layers) is None:
                os.chmod(made, mode if mode is not None else stat.S_IMODE(entry.mode))
            return
        if not (stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode)):
            raise UsageError(f"COPY {entry.path}: neither a file, a directory nor a link")
        if is_directory(target, self.layers):
            raise UsageError(f"COPY {entry.path}: {target} is a directory in the image")
        parent, _, name = target.rpartition("/")
        path = self.directory(parent or "/", uid, gid) / name
        path.unlink(missing_ok=True)
        if stat.S_ISLNK(entry.mode):
            os.symlink(os.readlink(entry.path), path)
        else:
            shutil.copyfile(entry.path, path)
        os.chown(path, uid, gid, follow_symlinks=False)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(path, mode if mode is not None else stat.S_IMODE(entry.mode))
        os.utime(path, (EPOCH_S, EPOCH_S), follow_symlinks=False)

    def _make_directory(self, made: Path, path: str, uid: int, gid: int) -> None:
        made.mkdir()
        existing = lookup(path, self.layers)
        if existing is None:
            os.chown(made, uid, gid)
            os.chmod(made, 0o755)
            return
        if not existing.is_dir():
            raise UsageError(f"{path} is a file in the image, not a directory")
        status = existing.stat()
        os.chown(made, status.st_uid, status.st_gid)
        os.chmod(made, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(existing):
            if not name.startswith(OVERLAY_XATTRS):
                os.setxattr(made, name, os.getxattr(existing, name))


def destination(path: str, source_is_directory: bool, sources: int, layers: Sequence[Layer]) -> tuple[str, bool]:
    """Where a COPY's files go: the absolute path, and whether it is a directory to put them into.

    It is one when its name ends in a slash, when it exists as one, or when a directory is copied. Raises
    UsageError when several sources are copied to a single file.
    """
    named = path.endswith("/")
    into = named or source_is_directory or is_directory(path, layers)
    if sources > 1 and not into:
        raise UsageError(f"COPY of {sources} sources: the destination {path} must end with a slash")
    return path.rstrip("/") or "/", into
