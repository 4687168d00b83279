"""Make the layers of COPY and WORKDIR directly in a directory, without a mount.

In an overlay the upper layer's directory determines owner and mode of a merged one. So each directory on the way to
what is written gets those that it has in the layers below.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from runtime.builder.context import Entry, attributes
from runtime.errors import UsageError
from runtime.images.layers import OVERLAY_XATTRS
from runtime.images.model import Layer
from runtime.images.rootfs import folders, is_directory, resolve
from runtime.unionfs.lookup import Folders, step

_PIECE_BYTES = 1 << 18


class _Made(Struct, frozen=True):
    """A directory of the new layer, at ``path``, and the directories of the layers below that it covers."""

    path: Path
    below: Folders


class Tree:
    """A new layer at ``root`` (empty) on top of ``layers``; paths are those of the image, absolute and normalised."""

    def __init__(self, root: Path, layers: Sequence[Layer]) -> None:
        self.root = root
        self.layers = layers
        self._made = {"": _Made(root, folders(layers))}

    def directory(self, path: str, uid: int = 0, gid: int = 0, mode: int = 0o755) -> Path:
        """Make ``path`` and its parents, following the image's links.

        Directories that the image lacks belong to ``uid`` and ``gid``. If it lacks the last one, that has ``mode``.
        """
        path = path.rstrip("/")
        parent, _, name = path.rpartition("/")
        if path not in self._made and parent in self._made:
            here, _ = step(self._made[parent].below, name)
            if here is None or not os.path.islink(here):
                self._made[path] = self._below(self._made[parent], name, path, (uid, gid), mode)
        if path not in self._made:
            made, parts = self._made[""], resolve(path, self.layers).split("/")[1:]
            for depth, part in enumerate(parts, start=1):
                made = self._below(made, part, path, (uid, gid), mode if depth == len(parts) else 0o755)
            self._made[path] = made
        return self._made[path].path

    def _below(self, parent: _Made, name: str, shown: str, owner: tuple[int, int], mode: int) -> _Made:
        existing, below = step(parent.below, name)
        if existing is not None and not below:
            raise UsageError(f"{shown} is below a file, or is one, in the image: {name}")
        made = parent.path / name
        try:
            made.mkdir()
        except FileExistsError as error:
            if not stat.S_ISDIR(made.lstat().st_mode):
                raise UsageError(f"{shown} is below a file, or is one, of another source: {name}") from error
            return _Made(made, below)
        if existing is None:
            set_owner(made, owner, mode)
        else:
            status = os.lstat(existing)
            set_owner(made, (status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode))
            for attribute in os.listxattr(existing):
                if not attribute.startswith(OVERLAY_XATTRS):
                    os.setxattr(made, attribute, os.getxattr(existing, attribute))
        return _Made(made, below)

    def copy(self, entry: Entry, target: str, owner: tuple[int, int], mode: int | None) -> None:
        """Copy one entry to ``target``; ``mode`` None keeps its permissions. Special files only come from images."""
        mode = stat.S_IMODE(entry.mode) if mode is None else mode
        if stat.S_ISDIR(entry.mode):
            made = self.directory(target, *owner)
            set_owner(made, owner, mode)
            _date(made, entry)
            return
        is_special = not (stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode))
        if is_special and entry.owner is None:
            raise UsageError(f"COPY {entry.path}: neither a file, a directory nor a link")
        path = self.vacate(target, owner, f"COPY {entry.path}")
        if stat.S_ISLNK(entry.mode):
            os.symlink(os.readlink(entry.path), path)
            os.chown(path, *owner, follow_symlinks=False)
        else:
            if is_special:
                os.mknod(path, entry.mode, os.lstat(entry.path).st_rdev)
                set_owner(path, owner, mode)
            else:
                _copy_file(entry.path, path, owner, mode)
            for attribute, value in attributes(entry.path):  # last, because a change of owner removes capabilities
                os.setxattr(path, attribute, value, follow_symlinks=False)
        _date(path, entry)

    def write(self, target: str, content: bytes, owner: tuple[int, int], mode: int) -> None:
        """Make a file with this content at ``target``."""
        path = self.vacate(target, owner, "COPY <<")
        path.write_bytes(content)
        set_owner(path, owner, mode)

    def vacate(self, target: str, owner: tuple[int, int], purpose: str) -> Path:
        """Return the path on the host for something new at ``target`` that is no directory, and make its parents.

        Raises UsageError, which begins with ``purpose``, where a directory is in its way.
        """
        parent, _, name = target.rpartition("/")
        path = self.directory(parent, *owner) / name
        if step(self._made[parent].below, name)[1]:
            raise UsageError(f"{purpose}: {target} is a directory in the image")
        try:
            there = os.lstat(path)
        except FileNotFoundError:
            return path
        if stat.S_ISDIR(there.st_mode):
            raise UsageError(f"{purpose}: another source has a directory of this name")
        os.unlink(path)
        return path

    def existing(self, target: str, purpose: str) -> Path:
        """Return the path on the host of a file that this layer has. Raises UsageError where it does not."""
        parent, _, name = target.rpartition("/")
        path = self.directory(parent) / name
        if not os.path.lexists(path) or (path.is_dir() and not path.is_symlink()):
            raise UsageError(f"{purpose}: {target} is a hard link to a file that does not come before it")
        return path


def set_owner(path: Path, owner: tuple[int, int], mode: int) -> None:
    """Set owner and mode, in this order: a change of owner clears the set-user-ID bits."""
    os.chown(path, *owner, follow_symlinks=False)
    os.chmod(path, mode)


def _copy_file(source: Path, target: Path, owner: tuple[int, int], mode: int) -> None:
    """Make the new file ``target`` with the content of a regular one. Raises OSError when ``source`` is none by now."""
    # Without waiting: somebody may have put a named pipe there.
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise OSError(errno.EINVAL, "it is no file any more", str(source))
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while piece := os.read(reading, _PIECE_BYTES):
                while piece:
                    piece = piece[os.write(writing, piece) :]
            os.fchown(writing, *owner)  # in this order, as in set_owner
            os.fchmod(writing, mode)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _date(path: Path, entry: Entry) -> None:
    """Give a copy the time of what it was copied from, if that is to be kept."""
    if entry.owner is not None:
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def destination(path: str, source_is_directory: bool, sources: int, layers: Sequence[Layer]) -> tuple[str, bool]:
    """Return where a COPY's files go: the absolute path, and whether it is a directory to put them into.

    It is one if its name ends in a slash, if it exists as one, or if a directory is copied. Raises UsageError if
    several sources are copied to a single file.
    """
    named = path.endswith("/")
    into = named or source_is_directory or is_directory(path, layers)
    if sources > 1 and not into:
        raise UsageError(f"COPY of {sources} sources: the destination {path} must end with a slash")
    return path.rstrip("/") or "/", into
