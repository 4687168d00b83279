"""Keep writable roots beside the image store, and do on disk what ``model`` decides.

    roots/roots.json                 all roots; replaced as a whole, so that a change happens or does not
    roots/layers/<name>/upper        a layer that takes writes, or took them until it was frozen
    roots/layers/<name>/work         overlay's own directory for it
    roots/lock                       held by whoever changes something

A layer's directory is made before ``roots.json`` names it, and removed after it does so no more. The next change
removes those that a killed one left unnamed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from runtime.atomic import read_document, remove, replace_file
from runtime.errors import PrerequisiteError, UsageError, in_words
from runtime.images.difference import Change, differences
from runtime.images.layers import settle
from runtime.images.merging import directories, merged_layers, merged_path
from runtime.images.model import History, Image, Layer
from runtime.images.space import full_disk_reported
from runtime.images.store import Store
from runtime.roots import mount_points
from runtime.roots.model import Root, Roots, check_name, split_name
from runtime.roots.pausing import is_running, paused, thaw_all
from runtime.unionfs.branches import Branch, Union
from runtime.unionfs.copying import copy_attributes, copy_layer, copy_union
from runtime.unionfs.overlay import WritableLayer
from runtime.unionfs.usage import is_in_use

_MODE = 0o700
# No file of a root is that new: what is committed keeps its times.
_KEEPS_TIMES = 86400.0


class RootStore:
    """The roots below the directory of the store ``home``, on images of ``images``."""

    def __init__(self, home: Path, images: Store) -> None:
        self.directory, self.images = home / "roots", images

    def read(self) -> Roots:
        """Return all roots. Raises PrerequisiteError when the file that names them is damaged."""
        return read_document(self.directory / "roots.json", Roots) or Roots()

    def create(self, name: str, image: Image) -> Root:
        """Make a root of an image, with nothing written to it. Raises UsageError."""
        diff_ids = tuple(layer.diff_id for layer in image.layers)
        if not image.layers:
            raise UsageError(f"create root {name}: {image.reference} has no layers, and so no root file system")
        with self.held() as roots:
            upper = self._make_layer(str(image.layers[-1].path))
            root = Root(name, image.reference, image.id, diff_ids, image.config, upper)
            self._write(roots.created(root))
        return root

    def snapshot(self, name: str, snapshot: str) -> Root:
        """Take a snapshot of a root: nothing is copied.

        Of a root that ``roots run`` has a container on, the container stands still while its changes are copied, which
        takes as long as they are large. Raises UsageError while something else writes to it.
        """
        return self._change(lambda roots: self._snapshotted(roots, name, snapshot)).get(name)

    def clone(self, name: str, clone: str) -> Root:
        """Make a root that begins as ``NAME@SNAPSHOT`` or, without a snapshot, as the root is now: then it gets one
        with the clone's name. Raises UsageError."""
        check_name(clone)
        origin, snapshot = split_name(name)

        def decide(roots: Roots) -> Roots:
            taken = roots if snapshot else self._snapshotted(roots, origin, clone)
            root = taken.get(origin)
            chain = root.snapshot(snapshot or clone).chain
            return taken.cloned(origin, snapshot or clone, clone, self._make_layer(self._topmost(root, chain)))

        return self._change(decide).get(clone)

    def rollback(self, name: str, snapshot: str) -> Root:
        """Make a root what a snapshot of it is. Raises UsageError while something writes to it."""

        def decide(roots: Roots) -> Roots:
            root = roots.get(name)
            self._check_unused(root, "roll it back")
            upper = self._make_layer(self._topmost(root, root.snapshot(snapshot).chain))
            return roots.rolled_back(name, snapshot, upper)

        return self._change(decide).get(name)

    def promote(self, name: str) -> Root:
        """Have a clone take over the snapshots that it came from. Raises UsageError."""
        return self._change(lambda roots: roots.promoted(name)).get(name)

    def remove(self, name: str) -> None:
        """Remove ``NAME`` with its snapshots, or ``NAME@SNAPSHOT``. Raises UsageError while clones come from it or
        something writes to it."""
        root, snapshot = split_name(name)

        def decide(roots: Roots) -> Roots:
            if snapshot:
                return roots.without_snapshot(root, snapshot)
            self._check_unused(roots.get(root), "remove it")
            return roots.removed(root)

        self._change(decide)

    def flatten(self, name: str) -> Root:
        """Copy all that a root shows into one layer, which stands in place of its image's and of its chain.

        It takes as long as the root is large. Raises UsageError for a root with snapshots, which are of layers that it
        then has no more, and while something writes to it.
        """

        def decide(roots: Roots) -> Roots:
            root = roots.get(name)
            self._check_unused(root, "copy it")
            if root.snapshots:
                raise UsageError(f"flatten {name}: it has snapshots, which are of its layers", "flatten a clone of it")
            copied, upper = self._make_layer(""), self._make_layer(self.upper(root))
            copy_union(tuple(reversed(self._stacked(root))), self._path(copied))
            return roots.with_root(replace(root, diff_ids=(), chain=(copied,), upper=upper, origin=""))

        return self._change(decide).get(name)

    def differences(self, name: str, against: str = "") -> tuple[Change, ...]:
        """Return how ``NAME`` or ``NAME@SNAPSHOT`` differs from another, or from its image. Raises UsageError."""
        roots = self.read()
        root, layers = self._stack(roots, name)
        if against:
            _, before = self._stack(roots, against)
        else:
            image = self.image(root) if root.diff_ids else self.images.get(root.image)  # of a flattened one: by name
            before = tuple(str(layer.path) for layer in image.layers)
        try:
            changes = differences(*([Layer("", Path(path)) for path in one] for one in (before, layers)))
            return tuple(sorted(changes, key=lambda one: one.path.split("/")))
        except OSError as error:
            raise PrerequisiteError(f"diff {name}: {in_words(error)}", "run as root") from error

    def commit(self, name: str, reference: str, progress: Callable[[str], None]) -> Image:
        """Make an image of a root or snapshot: each layer that was written to becomes a layer of it.

        Raises UsageError while something writes to it.
        """
        split = split_name(name)
        with self.images.building(progress), self.held() as roots:
            root = roots.get(split[0])
            chain = root.snapshot(split[1]).chain if split[1] else root.chain
            if not split[1]:
                self._check_unused(root, "commit it")
                chain = (*chain, root.upper)
            image = self.image(root)
            layers, history = list(image.layers), list(image.history)
            for number, one in enumerate(chain):
                if os.listdir(self._path(one)):
                    progress(f"layer {number + 1} of {len(chain)}: {one}")
                    layers.append(self._commit_layer(one, layers, f"roots commit {name}"))
                    history.append(History(f"roots commit {name}", False))
            return self.images.tag(reference, image.config, layers, history)

    def upper(self, root: Root) -> str:
        """Return the directory of a root's writable layer."""
        return self._path(root.upper)

    def writable(self, root: Root) -> WritableLayer:
        """Return a root's writable layer for a container."""
        return WritableLayer(self.upper(root), os.path.join(os.path.dirname(self.upper(root)), "work"))

    def layers(self, root: Root) -> tuple[str, ...]:
        """Return the directories below a root's writable layer, bottom first, of which the lowest are merged where an
        overlay has not as many. Raises PrerequisiteError when the image's are gone from the store."""
        return directories(self._layers_below(root))

    def merged(self) -> set[str]:
        """Return the names of the merged directories that roots stand on. Raises PrerequisiteError."""
        below = map(self._layers_below, self.read().roots)
        return {merged_path(self.images, lowest).name for lowest in map(merged_layers, below) if lowest}

    def union(self, root: Root) -> Union:
        """Return a root as a union to be mounted."""
        below = tuple(Branch(path, "ro") for path in reversed(self.layers(root)))
        return Union((Branch(self.upper(root), "rw"), *below))

    def image(self, root: Root) -> Image:
        """Return the image that a root stands on, whatever its reference names now. Raises PrerequisiteError when the
        store has its layers no more."""
        found = [self.images.layer(diff_id) for diff_id in root.diff_ids]
        layers = tuple(layer for layer in found if layer is not None)
        if len(layers) != len(found):
            raise PrerequisiteError(
                f"root {root.name}: layers of its image {root.image} are gone from the store",
                "build the image again as it was",
            )
        named = self.images.find(root.image)
        as_it_was = named is not None and named.id == root.image_id and bool(layers)
        history = named.history if named and as_it_was else (History(f"root of {root.image}", False),) * len(layers)
        return Image(root.image, root.image_id, root.config, layers, history)

    def _below(self, root: Root) -> tuple[str, ...]:
        return tuple(str(layer.path) for layer in self._layers_below(root))

    def _layers_below(self, root: Root) -> tuple[Layer, ...]:
        """Return the image's layers, and the chain's by their names, which no others get."""
        chain = (Layer(f"root:{name}", Path(self._path(name))) for name in root.chain)
        return (*self.image(root).layers, *chain)

    def _stacked(self, root: Root) -> tuple[str, ...]:
        return (*self._below(root), self.upper(root))

    def _stack(self, roots: Roots, name: str) -> tuple[Root, tuple[str, ...]]:
        split = split_name(name)
        root = roots.get(split[0])
        if not split[1]:
            return root, self._stacked(root)
        return root, self._below(replace(root, chain=root.snapshot(split[1]).chain))

    def _topmost(self, root: Root, chain: tuple[str, ...]) -> str:
        """Return the directory whose owner and mode the root directory above a chain shows."""
        return self._below(replace(root, chain=chain))[-1]

    def _snapshotted(self, roots: Roots, name: str, snapshot: str) -> Roots:
        root = roots.get(name)
        if is_in_use(self.upper(root)) and is_running(root):
            with paused(root):
                copy = self._copied(root.upper)
            mount_points.remove_from(self._path(copy), self._below(root))
            return roots.snapshotted_by_copy(name, snapshot, copy)
        self._check_unused(root, "take a snapshot of it")
        frozen = bool(os.listdir(self.upper(root))) or _differs(self.upper(root), self._topmost(root, root.chain))
        return roots.snapshotted(name, snapshot, frozen, self._make_layer(self.upper(root)) if frozen else "")

    def _check_unused(self, root: Root, purpose: str) -> None:
        if is_in_use(self.upper(root)):
            raise UsageError(
                f"root {root.name}: something writes to it, so nobody can {purpose}",
                "end its containers (./invoke clean ends those of killed runs) and unmount where it is mounted",
            )

    def _commit_layer(self, name: str, below: list[Layer], created_by: str) -> Layer:
        with self.images.scratch() as scratch:
            tree = scratch / "layer"
            tree.mkdir()
            copy_layer(self._path(name), str(tree))
            newest = max((self.images.newest_s(layer) for layer in below), default=0)
            return self.images.add_layer(tree, created_by, settle(tree, time.time() + _KEEPS_TIMES, newest))

    def _copied(self, name: str) -> str:
        copy = self._make_layer("")
        copy_layer(self._path(name), self._path(copy))
        return copy

    def _path(self, name: str) -> str:
        return str(self.directory / "layers" / name / "upper")

    def _make_layer(self, attributes_of: str) -> str:
        """Make an empty writable layer whose root directory is like another; return its name."""
        name = secrets.token_hex(8)
        directory = self.directory / "layers" / name
        directory.mkdir()
        (directory / "work").mkdir()
        (directory / "upper").mkdir()
        if attributes_of:
            copy_attributes(attributes_of, str(directory / "upper"))
        return name

    def _change(self, decide: Callable[[Roots], Roots]) -> Roots:
        with self.held() as roots:
            changed = decide(roots)
            self._write(changed)
        return changed

    @contextmanager
    def held(self) -> Iterator[Roots]:
        """Keep others from changing or starting roots meanwhile; the roots. Layers that no root is made of are removed
        before and at the end. Raises PrerequisiteError where that cannot be done."""
        try:
            with full_disk_reported(self.directory, "write to the roots"):
                (self.directory / "layers").mkdir(mode=_MODE, parents=True, exist_ok=True)
                self.directory.chmod(_MODE)
                with open(self.directory / "lock", "w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    self._sweep()
                    thaw_all(self.read().roots)
                    try:
                        yield self.read()
                    finally:
                        self._sweep()
        except OSError as error:
            raise PrerequisiteError(f"roots below {self.directory}: {in_words(error)}") from error

    def _sweep(self) -> None:
        used = self.read().layer_names()
        for name in os.listdir(self.directory / "layers"):
            if name not in used:
                remove(self.directory / "layers" / name)

    def _write(self, roots: Roots) -> None:
        replace_file(self.directory / "roots.json", msgspec.json.encode(roots))


def _differs(upper: str, below: str) -> bool:
    """Return whether the root directory itself was changed."""
    one, other = os.lstat(upper), os.lstat(below)
    return (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid)
