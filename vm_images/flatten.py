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
        """Yield every node with its path below the root, parents first, in the order of names."""
        pending = [(name, self)]
        while pending:
            name, node = pending.pop()
            yield name, node
            below = sorted((node.children or {}).items(), reverse=True)
            pending += [(f"{name}/{child}" if name else child, inside) for child, inside in below]


class Staged(Struct, frozen=True):
    """A laid out tree: the sum of its files' sizes, and its newest modification time in nanoseconds since 1970."""

    total_bytes: int
    newest_ns: int


def is_whiteout(status: os.stat_result) -> bool:
    """Return whether an entry only says that the name is absent."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: Path) -> bool:
    """Return whether a directory hides those of the same name in the layers below."""
    try:
        return os.getxattr(directory, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        return False


def _lay(children: dict[str, Node], directory: Path) -> None:
    """Lay the directory, and all below it, over what its names have shown so far."""
    pending = [(children, directory)]
    while pending:
        children, directory = pending.pop()
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            path = directory / entry.name
            status = entry.stat(follow_symlinks=False)
            if is_whiteout(status):
                children.pop(entry.name, None)
            elif stat.S_ISDIR(status.st_mode):
                below = children.get(entry.name)
                merged = {} if below is None or below.children is None or is_opaque(path) else below.children
                children[entry.name] = Node(path, merged)
                pending.append((merged, path))
            else:
                children[entry.name] = Node(path)


def merge(layers: Sequence[Path]) -> Node:
    """Return the root directory that the layers, bottom first, make together."""
    children: dict[str, Node] = {}
    for layer in layers:
        _lay(children, layer)
    return Node(layers[-1], children)


def lay_side_by_side(layers: Mapping[str, Path], folder: Path) -> Node:
    """Return a root directory, with the attributes of ``folder``, in which each layer lies as it is under its name."""
    root = {name: Node(layer, {}) for name, layer in layers.items()}
    pending = list(root.values())
    while pending:
        node = pending.pop()
        assert node.children is not None
        for entry in sorted(os.scandir(node.source), key=lambda entry: entry.name):
            inside = Node(node.source / entry.name, {} if entry.is_dir(follow_symlinks=False) else None)
            node.children[entry.name] = inside
            if inside.children is not None:
                pending.append(inside)
    return Node(folder, root)


def _copy_directory_attributes(source: Path, target: Path, *, as_layer: bool) -> None:
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))
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
