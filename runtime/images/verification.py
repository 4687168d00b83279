"""Find what in a store is no longer what its names say: blobs by their digests, layers by their files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from runtime.errors import UsageError
from runtime.images import descriptors, oci
from runtime.images import layers as layer_format
from runtime.images.compression import decompressed
from runtime.images.layout import read_chunks
from runtime.images.model import Layer
from runtime.images.records import read_record
from runtime.images.unpack import unpack

if TYPE_CHECKING:
    from runtime.images.store import Store


def is_intact(store: Store, layer: Layer) -> bool:
    """Return whether the files of a layer are still those of its tar.

    Those of a layer that was made here have the digest of its canonical tar. Another is unpacked once more, and both
    trees are compared by that. The store must be held to write for it, and have room. Raises UsageError where the blob
    of the layer is missing or damaged.
    """
    record = store.record(layer.diff_id)
    if record is None:
        return False
    now = layer_format.digest(layer.path)
    if record.blob is None:
        return now.diff_id == layer.diff_id
    with store.scratch() as scratch:
        tree = scratch / "root"
        tree.mkdir()
        sha256 = hashlib.sha256()
        chunks = decompressed(read_chunks(store.open_blob(record.blob.digest)))
        unpack(_hashed(chunks, sha256), tree, f"layer {layer.diff_id}")
        if "sha256:" + sha256.hexdigest() != layer.diff_id:
            raise UsageError(f"blob {record.blob.digest}: it is not the layer {layer.diff_id}")
        return layer_format.digest(tree) == now and _same_root(tree, layer.path)


def _hashed(chunks: Iterator[bytes], sha256: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        sha256.update(chunk)
        yield chunk


def _same_root(one: Path, other: Path) -> bool:
    """Return whether two trees' roots have the same owner, mode and time, which no layer's tar of ours has."""
    a, b = one.stat(), other.stat()
    return (a.st_mode, a.st_uid, a.st_gid, a.st_mtime_ns) == (b.st_mode, b.st_uid, b.st_gid, b.st_mtime_ns)


class Problem(Struct, frozen=True):
    """What is wrong with a store: an image's name, or a blob or layer, and what was seen."""

    where: str
    what: str


def verify_store(store: Store, references: Sequence[str], progress: Callable[[str], None]) -> list[Problem]:
    """Return what is wrong with these images, or without any with all that the store holds; nothing where all is well.

    Every blob is read, and every layer's files. Raises UsageError for an unknown image.
    """
    with store.writing(progress):
        seen = _Verification(store, progress)
        for reference in references or store.references():
            seen.image(reference)
        if not references:
            seen.rest()
        return seen.problems


class _Verification:
    """One pass over a store; what images share is looked at once."""

    def __init__(self, store: Store, progress: Callable[[str], None]) -> None:
        self.store, self.progress = store, progress
        self.problems: list[Problem] = []
        self._blobs: dict[str, bool] = {}
        self._layers: dict[str, bool] = {}

    def image(self, reference: str) -> None:
        """Look at an image's documents and layers."""
        self.progress(f"verifying {reference}")
        try:
            named = self.store.manifest(reference)
            text = self.store.layout.read(named.digest, f"manifest of {reference}")
            manifest = descriptors.parse_manifest(text, f"manifest of {reference}")
            what = f"configuration of {reference}"
            config = self.store.layout.read(manifest.config.digest, what)
            diff_ids = descriptors.decode(config, oci.Document, what).rootfs.diff_ids
        except UsageError as error:
            self.problems.append(Problem(reference, error.message))
            return
        if len(diff_ids) != len(manifest.layers):
            self.problems.append(Problem(reference, f"{len(manifest.layers)} layers, {len(diff_ids)} diff_ids"))
        for digest in (named.digest, manifest.config.digest):
            self._blob(digest, reference)
        for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=False):
            if self.store.layer(diff_id) is None:
                self.problems.append(Problem(reference, f"its layer {diff_id} is missing"))
            elif not self.store.has_blob(descriptor.digest):
                self.problems.append(Problem(reference, f"the blob {descriptor.digest} of a layer is missing"))
            else:
                self._layer(diff_id)

    def rest(self) -> None:
        """Look at blobs and layers that no image names, and at what is not complete."""
        for path in sorted((self.store.root / "blobs" / "sha256").iterdir()):
            if len(path.name) == 64:
                self._blob(f"sha256:{path.name}", "")
            else:
                self.problems.append(Problem(str(path), "no blob has such a name"))
        for path in sorted((self.store.root / "layers").glob("*.json")):
            record = read_record(path.with_suffix(""))
            if record is not None:
                self._layer(record.diff_id)
        for path in sorted((self.store.root / "merged").glob("*.json")):
            self._merged(path.with_suffix(""))

    def _blob(self, digest: str, reference: str) -> None:
        if digest in self._blobs:
            return
        with self.store.layout.path(digest).open("rb") as file:
            now = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        self._blobs[digest] = now == digest
        if now != digest:
            self.problems.append(Problem(reference or digest, f"the blob {digest} has the digest {now}"))

    def _layer(self, diff_id: str) -> None:
        if diff_id in self._layers:
            return
        layer = self.store.layer(diff_id)
        try:
            self._layers[diff_id] = layer is not None and is_intact(self.store, layer)
        except UsageError as error:
            self._layers[diff_id] = False
            self.problems.append(Problem(f"layer {diff_id}", error.message))
            return
        if not self._layers[diff_id]:
            self.problems.append(Problem(f"layer {diff_id}", f"its files in {layer and layer.path} were changed"))

    def _merged(self, path: Path) -> None:
        from runtime.images.merging import is_as_its_layers

        if not is_as_its_layers(self.store, path):
            self.problems.append(Problem(str(path), "it shows no more what the layers show that are merged in it"))
