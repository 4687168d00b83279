"""Find what in a store is no longer what its names say: blobs by their digests, layers by their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import UsageError
from runtime.images import layers as layer_format
from runtime.images.compression import decompressed
from runtime.images.layout import read_chunks
from runtime.images.model import Layer
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
