"""Bring an image from elsewhere into the store, a blob at a time, while it arrives. This is all that a client of a
registry needs to know of the store:

    store.has_blob(digest), store.blob_size(digest), store.open_blob(digest)     to read, for a push
    with ingesting(store, progress) as ingest:
        ingest.blob(descriptor, chunks)                  a configuration or any other small blob
        ingest.layer(descriptor, diff_id, chunks)        a layer, unpacked while it streams
        ingest.image(reference, manifest)                the image, once all its blobs are there

``chunks`` is any iterable of bytes. A client that can resume reconnects within it: what is yielded must be the blob
from its first byte to its last, once. Sizes and digests are verified while it passes, before anything gets its final
name; when the iterable raises, or what it yields is wrong, nothing of the blob remains. Several threads may bring
layers of one image at the same time, and any number of processes images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager

from runtime.errors import UsageError
from runtime.images import descriptors, oci
from runtime.images.ahead import read_ahead
from runtime.images.compression import decompressed
from runtime.images.descriptors import MANIFEST, Descriptor, Manifest
from runtime.images.layout import read_chunks
from runtime.images.model import Image, Layer
from runtime.images.records import Record
from runtime.images.store import Store
from runtime.images.unpack import Limits, unpack


@contextmanager
def ingesting(store: Store, progress: Callable[[str], None], limits: Limits = Limits()) -> Iterator[Ingest]:  # noqa: B008
    """Hold the store to bring in images, besides other writers. Raises PrerequisiteError if the disk becomes full
    within, and if the store may not be written."""
    with store.writing(progress):
        yield Ingest(store, limits)


class Ingest:
    """Brings images into a store that is held to write."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self.store = store
        self.limits = limits

    def blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob as it is, unless it is there; then ``chunks`` are not asked for. Raises UsageError for a wrong
        size or digest."""
        if not self.store.layout.has(descriptor.digest):
            for _ in self.store.layout.store(chunks, descriptor.digest, descriptor.size, f"blob {descriptor.digest}"):
                pass

    def has_layer(self, descriptor: Descriptor, diff_id: str) -> bool:
        """Return whether ``layer`` would not ask for the chunks of a layer: it is there, both unpacked and as it
        came."""
        record = self.store.record(descriptors.check_digest(diff_id))
        return (
            record is not None
            and record.descriptor.digest == descriptor.digest
            and self.store.has_blob(descriptor.digest)
        )

    def layer(self, descriptor: Descriptor, diff_id: str, chunks: Iterable[bytes], created_by: str = "") -> Layer:
        """Store a layer and unpack it at the same time, unless it is there.

        ``descriptor`` is the blob's, plain, gzip or zstd, which its first bytes tell; ``diff_id`` is what the image's
        configuration says of the uncompressed tar. Raises UsageError for a wrong size or digest, for a damaged archive
        and for one that exceeds the limits.
        """
        what = f"layer {descriptor.digest}"
        layer = self.store.layer(descriptors.check_digest(diff_id))
        if layer is not None and self.has_layer(descriptor, diff_id):
            return layer
        with self.store.scratch() as scratch:
            tree = scratch / "root"
            tree.mkdir()
            here = self.store.layout.has(descriptor.digest)
            arriving = self._local(descriptor) if here else self._arriving(descriptor, chunks)
            with closing(arriving):  # which removes what is not complete
                # A blob that has its tar's digest is that, and is hashed as it arrives.
                plain = descriptor.digest == diff_id and not here
                content = arriving if plain else decompressed(arriving)
                tar = _Measured(content, self.limits.tar_bytes(descriptor.size), what, diff_id if plain else "")
                with closing(read_ahead(tar)) as stream:
                    unpacked = unpack(stream, tree, what, self.limits)
                for _ in arriving:  # what a decompressor does not ask for ends the blob all the same
                    pass
            if tar.diff_id != diff_id:
                if not here:
                    self.store.layout.discard(descriptor.digest)
                hint = "./invoke images.verify says whether its blob was damaged here" if here else ""
                raise UsageError(f"{what}: its tar has the digest {tar.diff_id}, and should have {diff_id}", hint)
            blob = descriptors.plain(descriptor)
            record = Record(diff_id, tar.length, created_by, unpacked.newest_s, blob, unpacked.hides_below)
            return self.store.place(tree, record)

    def _local(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        return read_chunks(self.store.layout.open(descriptor.digest))

    def _arriving(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> Generator[bytes, None, None]:
        return self.store.layout.store(chunks, descriptor.digest, descriptor.size, f"layer {descriptor.digest}")

    def image(self, reference: str, manifest: bytes, media_type: str = MANIFEST) -> Image:
        """Let ``reference`` name the image of a manifest, of OCI or of Docker, whose configuration and layers are
        there.

        Raises UsageError where one is not, and where the two do not fit together.
        """
        parsed = descriptors.parse_manifest(manifest, f"manifest of {reference}")
        config = self.configuration(parsed, reference)
        if len(config.rootfs.diff_ids) != len(parsed.layers):
            what = (
                f"{reference}: {len(parsed.layers)} layers, and its configuration names {len(config.rootfs.diff_ids)}"
            )
            raise UsageError(what)
        for descriptor, diff_id in zip(parsed.layers, config.rootfs.diff_ids, strict=True):
            if self.store.layer(diff_id) is None or not self.store.has_blob(descriptor.digest):
                raise UsageError(f"{reference}: its layer {descriptor.digest} is missing")
        digest = self.store.layout.add(manifest)
        self.store.layout.point(reference, Descriptor(media_type, digest, len(manifest)))
        return self.store.get(reference)

    def configuration(self, manifest: Manifest, what: str) -> oci.Document:
        """Return the configuration of a manifest, which is there as a blob: it names the diff_ids of the layers. Raises
        UsageError where it is missing or wrong."""
        text = self.store.layout.read(manifest.config.digest, f"configuration of {what}")
        config = descriptors.decode(text, oci.Document, f"configuration of {what}")
        for diff_id in config.rootfs.diff_ids:
            descriptors.check_digest(diff_id)
        return config


class _Measured:
    """Chunks whose length and digest are known once they have passed; of a digest that is known, only the length."""

    def __init__(self, chunks: Iterable[bytes], limit: int, what: str, known: str) -> None:
        self._chunks, self._limit, self._what, self._known = chunks, limit, what, known
        self._sha256 = hashlib.sha256()
        self.length = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.length += len(chunk)
            if self.length > self._limit:
                raise UsageError(f"{self._what}: it is longer than {self._limit} bytes when it is decompressed")
            if not self._known:
                self._sha256.update(chunk)
            yield chunk

    @property
    def diff_id(self) -> str:
        return self._known or "sha256:" + self._sha256.hexdigest()
