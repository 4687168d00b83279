"""Collect what a store no longer needs: layers and blobs that no image names, and on request the build cache.

A layer stays while an image names it, while a build step would be answered with it, and while something has it mounted.
Nothing is collected while a run is measured, which may be about to mount what it has looked up.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.atomic import PARTIAL, read_document, remove
from runtime.errors import UsageError
from runtime.images import descriptors, oci
from runtime.images import layers as layer_format
from runtime.images.descriptors import LAYER_TAR
from runtime.images.merging import merged_layers, merged_path
from runtime.images.records import read_record, record_path, write_record
from runtime.images.store import CACHES, MERGED, Cached, Store
from runtime.images.usage import mounted
from runtime.lease import STATE_ROOT, is_held, leases


class Collected(Struct, frozen=True):
    """What was, or would be, removed: how many of each and the bytes of disk. ``cache_bytes`` more are held by the
    build cache only. ``merged`` are directories in which layers were merged."""

    layers: int
    blobs: int
    freed_bytes: int
    cache_bytes: int
    mounted: int
    merged: int = 0


def collect(
    store: Store,
    progress: Callable[[str], None],
    *,
    cache: bool = False,
    dry_run: bool = False,
    keep: Collection[str] = (),
    keep_merged: Collection[str] = (),
    runs: Path = STATE_ROOT,
) -> Collected:
    """Remove what no image needs, or with ``dry_run`` only count it. Layers whose diff_ids are in ``keep`` stay, and
    merged directories whose names are in ``keep_merged``.

    With ``cache`` the build cache goes, too, but for steps whose layers are in images, and the caches of RUN --mount.
    Waits for builds and other writers. Raises UsageError while a run lives, and where it cannot be told which layers
    are mounted.
    """
    if alive := [name for name in leases(runs) if is_held(name, runs)]:
        raise UsageError(f"collect images: the run {alive[0]} is alive, and may use any of them", "wait for its end")
    with store.collecting(progress):
        return _Collection(store, dry_run, keep, keep_merged).run(cache)


class _Collection:
    """One collection, while nobody else writes."""

    def __init__(self, store: Store, dry_run: bool, keep: Collection[str], keep_merged: Collection[str]) -> None:
        self.store, self.dry_run, self.keep_merged = store, dry_run, keep_merged
        self.blobs, self.layers = _reachable(store)
        self.layers |= set(keep)
        records = (store.record(diff_id) for diff_id in keep)
        self.blobs |= {record.blob.digest for record in records if record is not None and record.blob is not None}
        self.removed_layers = self.removed_blobs = self.removed_merged = self.freed = 0

    def run(self, cache: bool) -> Collected:
        by_cache = {*self._cached()} - self.layers
        there = {path.name: path for path in (self.store.root / "layers").iterdir() if path.is_dir()}
        names = {self.store.layer_path(diff_id).name for diff_id in self.layers}
        of_cache = {self.store.layer_path(diff_id).name for diff_id in by_cache} - names
        unneeded = there.keys() - names - (set() if cache else of_cache)
        used = mounted(unneeded) if unneeded else set()
        used |= self._remove_merged()
        for name in sorted(unneeded - used):
            self._remove_layer(there[name])
        cache_bytes = 0 if cache else sum(disk_bytes(there[name]) for name in of_cache & there.keys())
        self._forget_steps(cache)
        cache_bytes += self._empty_caches(cache)
        self._compact()
        self._remove_blobs()
        removed = (self.removed_layers, self.removed_blobs, self.freed)
        return Collected(*removed, cache_bytes, len(used), self.removed_merged)

    def _cached(self) -> Iterator[str]:
        for path in (self.store.root / "cache").glob("*.json"):
            entry = read_document(path, Cached)
            if entry is not None:
                yield entry.diff_id

    def _forget_steps(self, cache: bool) -> None:
        """Forget build steps whose layer is gone, or with ``cache`` all whose layer is in no image."""
        for path in () if self.dry_run else (self.store.root / "cache").glob("*.json"):
            entry = read_document(path, Cached)
            if entry is not None and (
                self.store.layer(entry.diff_id) is None or (cache and entry.diff_id not in self.layers)
            ):
                path.unlink()

    def _empty_caches(self, cache: bool) -> int:
        """Remove the caches of RUN --mount if ``cache`` says so, and return the bytes of those that stay."""
        folder = self.store.root / CACHES
        kept = 0
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if cache:
                self._remove_tree(path)
            else:
                kept += disk_bytes(path)
        return kept

    def _remove_merged(self) -> set[str]:
        """Remove merged directories that no image needs; return the names of those that are mounted instead."""
        folder = self.store.root / MERGED
        there = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
        unneeded = there - self._needed_merged() if there else set()
        used = mounted(unneeded) if unneeded else set()
        for name in sorted(unneeded - used):
            self.removed_merged += 1
            self._remove_recorded(folder / name, linked=True)
        return used

    def _needed_merged(self) -> set[str]:
        """Return the names of the merged directories of all images and of those to be kept."""
        found = filter(None, map(self.store.find, self.store.references()))
        merged = (merged_layers(image.layers) for image in found)
        return {merged_path(self.store, layers).name for layers in merged if layers} | set(self.keep_merged)

    def _remove_layer(self, path: Path) -> None:
        self.removed_layers += 1
        self._remove_recorded(path)

    def _remove_recorded(self, path: Path, linked: bool = False) -> None:
        if not self.dry_run:
            record_path(path).unlink(missing_ok=True)  # first: without it, the layer is not there
        self._remove_tree(path, linked)

    def _remove_tree(self, path: Path, linked: bool = False) -> None:
        self.freed += disk_bytes(path, linked)
        if not self.dry_run:
            away = self.store.layout.tmp / f"{PARTIAL}{path.name}-{os.getpid()}"
            os.rename(path, away)
            remove(away)

    def _compact(self) -> None:
        """Drop a plain tar whose bits are those that the layer's files give: images that were saved here have such."""
        for path in sorted((self.store.root / "layers").glob("*.json")):
            record = read_record(path.with_suffix(""))
            if record is None or record.blob is None or record.blob.media_type != LAYER_TAR:
                continue
            if record.blob.digest != record.diff_id or not self.store.layout.has(record.diff_id):
                continue
            if layer_format.digest(path.with_suffix("")).diff_id == record.diff_id:
                self.removed_blobs += 1
                self.freed += self.store.layout.path(record.diff_id).stat().st_size
                if not self.dry_run:
                    write_record(path.with_suffix(""), replace(record, blob=None))
                    self.store.layout.discard(record.diff_id)

    def _remove_blobs(self) -> None:
        for path in sorted((self.store.root / "blobs" / "sha256").iterdir()):
            if f"sha256:{path.name}" not in self.blobs:
                self.removed_blobs += 1
                self.freed += path.stat().st_size
                if not self.dry_run:
                    path.unlink()


def _reachable(store: Store) -> tuple[set[str], set[str]]:
    """Return the digests of all blobs, and the diff_ids of all layers, that the index leads to."""
    blobs: set[str] = set()
    layers: set[str] = set()
    pending = list(store.layout.read_index().manifests)
    while pending:
        named = pending.pop()
        if named.digest in blobs:
            continue
        blobs.add(named.digest)
        with suppress(UsageError):  # what is damaged leads nowhere; verify names it
            text = store.layout.read(named.digest, named.digest)
            if descriptors.is_index(text, named.media_type, named.digest):
                pending += descriptors.parse_index(text, named.digest).manifests
                continue
            manifest = descriptors.parse_manifest(text, named.digest)
            blobs |= {manifest.config.digest, *(layer.digest for layer in manifest.layers)}
            config = store.layout.read(manifest.config.digest, named.digest)
            layers |= {*descriptors.decode(config, oci.Document, named.digest).rootfs.diff_ids}
    return blobs, layers


def disk_bytes(tree: Path, linked: bool = False) -> int:
    """Return how much of the disk a directory and all below it takes, a file with several names once; of one that is
    made of links, without the files that have names elsewhere."""
    blocks = {status.st_ino: status.st_blocks for status in (tree.lstat(), *_statuses(tree, linked))}
    return 512 * sum(blocks.values())


def _statuses(tree: Path, linked: bool) -> Iterator[os.stat_result]:
    for _, status in layer_format.walk(tree):
        if not linked or stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            yield status
