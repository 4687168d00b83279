"""An image's layers merged into one tree, as overlayfs would show them, without mounting anything.

``merge`` decides what is seen; ``stage`` lays it out as a directory tree of hard links. The rules are those of
Documentation/filesystems/overlayfs.rst: a character device 0/0 is a whiteout, a directory with
``trusted.overlay.opaque=y`` hides what lies below, directories are merged and take the upper one's attributes,
and anything else replaces what has its name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError

_OVERLAY_XATTRS = "trusted.overlay."
_OPAQUE = f"{_OVERLAY_XATTRS}opaque"


class Node(Struct, frozen=True):
    """What one name shows: ``source`` in a layer, and the ``children`` by name when it is a directory."""

    source: Path
    children: dict[str, Node] | None = None

    def walk(self, name: str = "") -> Iterator[tuple[str, Node]]:
        """Every node with its path below the root, parents first, in the order of names."""
        yield name, self
        for child in sorted(self.children or ()):
            assert self.children is not None
            yield from self.children[child].walk(f"{name}/{child}" if name else child)


class Staged(Struct, frozen=True):
    """A laid out tree: the sum of its files' sizes, and its newest modification time in nanoseconds since 1970."""

    total_bytes: int
    newest_ns: int


def is_whiteout(status: os.stat_result) -> bool:
    """Whether an entry only says that the name is absent."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: Path) -> bool:
    """Whether a directory hides those of the same name in the layers below."""
    try:
        return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        return False


def _lay(children: dict[str, Node], directory: Path) -> None:
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = directory / entry.name
        status = entry.stat(follow_symlinks=False)
        if is_whiteout(status):
            children.pop(entry.name, None)
        elif stat.S_ISDIR(status.st_mode):
            below = children.get(entry.name)
            merged = {} if below is None or below.children is None or is_opaque(path) else below.children
            children[entry.name] = Node(path, merged)
            _lay(merged, path)
        else:
            children[entry.name] = Node(path)


def merge(layers: Sequence[Path]) -> Node:
    """The root directory that the layers, bottom first, make together."""
    children: dict[str, Node] = {}
    for layer in layers:
        _lay(children, layer)
    return Node(layers[-1], children)


def side_by_side(layers: Mapping[str, Path], folder: Path) -> Node:
    """A root directory, with the attributes of ``folder``, in which each layer lies as it is under its name."""

    def lay(directory: Path) -> Node:
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        below = {e.name: lay(Path(e.path)) if e.is_dir(follow_symlinks=False) else Node(Path(e.path)) for e in entries}
        return Node(directory, below)

    return Node(folder, {name: lay(layer) for name, layer in layers.items()})


def _copy_directory_attributes(source: Path, target: Path, *, as_layer: bool) -> None:
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if as_layer or not name.startswith(_OVERLAY_XATTRS):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def stage(root: Node, target: Path, *, as_layers: bool = False) -> Staged:
    """Lay the tree out at ``target``, a new directory. ``as_layers`` keeps what says that a directory is opaque.

    Directories are made anew with the attributes of their source. Everything else is a hard link, so no data is
    copied; of the layers only link counts and ctimes change, the first until the staging tree is
    removed. Raises PrerequisiteError when the layers are on another file system.
    """
    directories: list[tuple[Path, Path]] = []
    total_bytes = newest_ns = 0
    for name, node in root.walk():
        status = node.source.lstat()
        newest_ns = max(newest_ns, status.st_mtime_ns)
        path = target / name if name else target
        if node.children is not None:
            path.mkdir()
            directories.append((node.source, path))
            continue
        try:
            os.link(node.source, path, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            hint = "set TESTBED_HOME to a directory on one file system"
            raise PrerequisiteError(f"link {node.source} to {path}: {error.strerror}", hint) from error
        total_bytes += status.st_size
    for source, path in reversed(directories):  # children first: making them changes the parent's mtime
        _copy_directory_attributes(source, path, as_layer=as_layers)
    return Staged(total_bytes, newest_ns)
