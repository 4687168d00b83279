"""Push an image from the store: its blobs side by side, then its manifest."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable
from contextlib import closing
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.compression import MEDIA_TYPES, Compression, compressed
from runtime.images.descriptors import MANIFEST, Descriptor, Manifest, digest_of, encode_manifest, parse_manifest
from runtime.images.layout import read_chunks
from runtime.images.store import Store
from runtime.registry.client import Client
from runtime.registry.references import Reference, parse

# Repositories of the same registry that are asked for a blob before it is sent.
_MOUNTS = 2
_WAYS = {"there": "are there already", "mounted": "are there, in another repository", "sent": "sent"}


class _Sent(Struct, frozen=True):
    """A blob that the registry has, as which it has it, and how that came."""

    blob: Descriptor
    way: str


def push(
    store: Store,
    client: Client,
    name: str,
    target: str,
    progress: Callable[[str], None],
    compression: Compression = "none",
) -> str:
    """Push the image called ``name`` in the store to a registry as ``target``, and return its manifest's digest.

    What the registry has is not sent, and what another of its repositories has is mounted from there. ``compression``
    is that of layers which were built here; their manifest, not the image's id, depends on it. Raises UsageError for an
    image that is not there and for a name that is none, NotThereError, RegistryError.
    """
    stored = store.manifest(name)
    content = store.layout.read(stored.digest, f"manifest of {name}")
    manifest = parse_manifest(content, f"manifest of {name}")
    reference, repository = client.target(target)
    progress(f"pushing {name} to {repository}")
    nearby = _repositories_of_blobs(store, reference)

    def send(blob: Descriptor) -> _Sent:
        made, file = _open(store, blob, compression)
        with closing(file):
            return _Sent(made, repository.uploads.send(made, file, nearby.get(made.digest, ())[:_MOUNTS]))

    # Each once, the largest first.
    blobs = sorted(
        {blob.digest: blob for blob in (*manifest.layers, manifest.config)}.values(), key=lambda blob: -blob.size
    )
    sent: dict[str, Descriptor] = {}
    with client.working() as pool:
        for blob, done in zip(blobs, pool.map(send, blobs), strict=True):
            progress(f"{done.blob.digest[:19]}: {done.blob.size} bytes {_WAYS[done.way]}")
            sent[blob.digest] = done.blob
    media_type = stored.media_type
    layers = tuple(sent[layer.digest] for layer in manifest.layers)
    if any(blob.digest != digest for digest, blob in sent.items()):
        content, media_type = encode_manifest(replace(manifest, layers=layers)), MANIFEST
    digest = digest_of(content)
    if reference.digest and reference.digest != digest:
        raise UsageError(f"push {name} as {reference}: its digest is {digest}")
    return repository.put_manifest(content, media_type, reference.tag or digest)


def _open(store: Store, blob: Descriptor, compression: Compression) -> tuple[Descriptor, io.BufferedReader]:
    """Open a blob, and return what it is then: one that the store makes of files is written out and compressed."""
    file = cast(io.BufferedReader, store.open_blob(blob.digest))
    if isinstance(file.raw, io.FileIO):
        return blob, file
    sha256, size = hashlib.sha256(), 0
    spool = tempfile.TemporaryFile(dir=store.layout.tmp)  # noqa: SIM115 # the caller closes it
    try:
        for chunk in compressed(read_chunks(file), compression):
            sha256.update(chunk)
            size += spool.write(chunk)
        spool.flush()
    except BaseException:
        spool.close()
        raise
    made = blob
    if compression != "none":
        made = Descriptor(MEDIA_TYPES[compression], f"sha256:{sha256.hexdigest()}", size)
    return made, cast(io.BufferedReader, spool)


def _repositories_of_blobs(store: Store, target: Reference) -> dict[str, tuple[str, ...]]:
    """Return which other repositories of the target's registry have the blobs of images in the store, by digest."""
    found: dict[str, tuple[str, ...]] = {}
    for name, descriptor in store.layout.references().items():
        try:
            reference = parse(name)
            manifest: Manifest = parse_manifest(store.layout.read(descriptor.digest, name), name)
        except UsageError:  # a name that is no reference, or a list: neither says where its layers are
            continue
        if reference.host == target.host and reference.path != target.path:
            for blob in (*manifest.layers, manifest.config):
                found[blob.digest] = (*found.get(blob.digest, ()), reference.path)
    return found
