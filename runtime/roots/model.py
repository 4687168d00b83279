"""Roots of containers as frozen data, and what becomes of them; all of it is pure.

A root is an image's layers, below a chain of layers that were written to once and are frozen, below one that takes the
writes. A snapshot is a name for a chain. So none of these copies a file: a snapshot freezes the writable layer and puts
an empty one above it, a clone is an empty one above a snapshot's chain, and a rollback is, too, in place of the root's
own. The words are those of ZFS; since chains are shared, later snapshots survive a rollback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.model import ImageConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Snapshot(Struct, frozen=True):
    """A name for a state of a root: the ``chain`` of frozen layers above the image's, bottom first."""

    name: str
    chain: tuple[str, ...]


class Root(Struct, frozen=True):
    """A root: its image (reference and id as they were, the diff_ids of its layers, its configuration), the chain of
    frozen layers, bottom first, and the layer ``upper`` that takes the writes. ``origin`` is the snapshot that it was
    cloned from, ``NAME@SNAPSHOT``, or empty."""

    name: str
    image: str
    image_id: str
    diff_ids: tuple[str, ...]
    config: ImageConfig
    upper: str
    chain: tuple[str, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    origin: str = ""

    def snapshot(self, name: str) -> Snapshot:
        """Return a snapshot by its name. Raises UsageError."""
        for one in self.snapshots:
            if one.name == name:
                return one
        there = ", ".join(one.name for one in self.snapshots) or "none"
        raise UsageError(f"root {self.name} has no snapshot {name}", f"it has: {there}")

    def layer_names(self) -> set[str]:
        """Return the layers that this root and its snapshots are made of."""
        return {self.upper, *self.chain, *(name for one in self.snapshots for name in one.chain)}


class Roots(Struct, frozen=True):
    """All roots, by name. Each change returns the roots as they are after it."""

    roots: tuple[Root, ...] = ()

    def get(self, name: str) -> Root:
        """Return a root by its name. Raises UsageError when there is none."""
        for one in self.roots:
            if one.name == name:
                return one
        raise UsageError(
            f"there is no root {name}", f"there are: {', '.join(one.name for one in self.roots) or 'none'}"
        )

    def layer_names(self) -> set[str]:
        """Return all layers that are in use."""
        return set().union(*(one.layer_names() for one in self.roots))

    def needed_diff_ids(self) -> set[str]:
        """Return the layers of images that roots stand on: a collection of unneeded images must keep them."""
        return {diff_id for one in self.roots for diff_id in one.diff_ids}

    def with_root(self, root: Root) -> Roots:
        """Return the roots with this one, in place of the one of its name if there is one."""
        others = [one for one in self.roots if one.name != root.name]
        return Roots(tuple(sorted([*others, root], key=lambda one: one.name)))

    def created(self, root: Root) -> Roots:
        """Return the roots with a new one. Raises UsageError for a name that is taken or none."""
        check_name(root.name)
        if any(one.name == root.name for one in self.roots):
            raise UsageError(f"there is a root {root.name}", "choose another name, or remove that one: roots rm")
        return self.with_root(root)

    def snapshotted(self, name: str, snapshot: str, frozen: bool, upper: str) -> Roots:
        """Return the roots after a snapshot. Where the writable layer is ``frozen``, because something is in it,
        ``upper`` takes the writes from now on."""
        root = self.get(name)
        check_name(snapshot)
        if any(one.name == snapshot for one in root.snapshots):
            raise UsageError(f"root {name} has a snapshot {snapshot}", "choose another name")
        chain = (*root.chain, root.upper) if frozen else root.chain
        taken = (*root.snapshots, Snapshot(snapshot, chain))
        return self.with_root(replace(root, chain=chain, snapshots=taken, upper=upper if frozen else root.upper))

    def snapshotted_by_copy(self, name: str, snapshot: str, copy: str) -> Roots:
        """Return the roots after a snapshot of one that goes on writing to its layer, of which ``copy`` is a copy."""
        taken = self.snapshotted(name, snapshot, False, "")
        root = taken.get(name)
        *before, last = root.snapshots
        return self.with_root(replace(root, snapshots=(*before, replace(last, chain=(*root.chain, copy)))))

    def cloned(self, name: str, snapshot: str, clone: str, upper: str) -> Roots:
        """Return the roots with one that begins as a snapshot of another."""
        root = self.get(name)
        chain = root.snapshot(snapshot).chain
        return self.created(
            replace(root, name=clone, chain=chain, upper=upper, snapshots=(), origin=f"{name}@{snapshot}")
        )

    def rolled_back(self, name: str, snapshot: str, upper: str) -> Roots:
        """Return the roots after one became again what a snapshot of it is; what was written since is gone."""
        root = self.get(name)
        return self.with_root(replace(root, chain=root.snapshot(snapshot).chain, upper=upper))

    def promoted(self, name: str) -> Roots:
        """Return the roots after a clone has taken over the snapshot that it came from, and those below that one; its
        origin becomes a clone of it, and can be removed."""
        clone = self.get(name)
        if not clone.origin:
            raise UsageError(f"root {name} is no clone", "only a clone can be promoted")
        origin_name, _, snapshot_name = clone.origin.partition("@")
        origin = self.get(origin_name)
        snapshot = origin.snapshot(snapshot_name)
        moved = tuple(one for one in origin.snapshots if one.chain == snapshot.chain[: len(one.chain)])
        if taken := {one.name for one in moved} & {one.name for one in clone.snapshots}:
            raise UsageError(f"promote {name}: it and {origin_name} both have a snapshot {min(taken)}", "remove one")
        left = tuple(one for one in origin.snapshots if one not in moved)
        names = {f"{origin_name}@{one.name}": f"{name}@{one.name}" for one in moved}
        roots = self.with_root(replace(clone, snapshots=(*moved, *clone.snapshots), origin=origin.origin))
        roots = roots.with_root(replace(origin, snapshots=left, origin=f"{name}@{snapshot_name}"))
        return Roots(tuple(replace(one, origin=names.get(one.origin, one.origin)) for one in roots.roots))

    def removed(self, name: str) -> Roots:
        """Return the roots without one. Raises UsageError while clones come from its snapshots."""
        self.get(name)
        self._check_no_clones(name, [one.origin for one in self.roots if one.origin.partition("@")[0] == name])
        return Roots(tuple(one for one in self.roots if one.name != name))

    def without_snapshot(self, name: str, snapshot: str) -> Roots:
        """Return the roots without a snapshot. Raises UsageError while clones come from it."""
        root = self.get(name)
        gone = root.snapshot(snapshot)
        self._check_no_clones(name, [f"{name}@{snapshot}"])
        return self.with_root(replace(root, snapshots=tuple(one for one in root.snapshots if one != gone)))

    def _check_no_clones(self, name: str, origins: Iterable[str]) -> None:
        clones = [one.name for one in self.roots if one.origin in set(origins)]
        if clones:
            hint = f"roots promote {clones[0]} makes {name} the clone, or remove them before"
            raise UsageError(f"root {name}: clones come from its snapshots: {', '.join(clones)}", hint)


def check_name(name: str) -> None:
    """Raise UsageError for what is no name of a root or snapshot."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a root or snapshot", "letters, digits, '_', '.' and '-', at most 100"
        )


def split_name(text: str) -> tuple[str, str]:
    """Return the root and the snapshot of ``NAME`` or ``NAME@SNAPSHOT``; the latter may be empty. Raises UsageError."""
    name, at, snapshot = text.partition("@")
    check_name(name)
    if at:
        check_name(snapshot)
    return name, snapshot
