"""Push an image from the store: its blobs side by side, then its manifest."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from contextlib import closing
from typing import cast

from runtime.errors import UsageError
from runtime.images.descriptors import Descriptor, parse_manifest
from runtime.images.layout import COPY_BYTES
from runtime.images.store import Store
from runtime.registry.client import Client
from runtime.registry.references import Reference, parse

# Repositories of the same registry that are asked for a blob before it is sent.
_MOUNTS = 2


def push(store: Store, client: Client, name: str, target: str, progress: Callable[[str], None]) -> str:
    """Push the image called ``name`` in the store to a registry as ``target``, and return its manifest's digest.

    What the registry has is not sent, and what another of its repositories has is mounted from there. Raises UsageError
    for an image that is not there and for a name that is none, NotThereError, RegistryError.
    """
    stored = store.manifest(name)
    content = store.layout.read(stored.digest, f"manifest of {name}")
    manifest = parse_manifest(content, f"manifest of {name}")
    reference, repository = client.target(target)
    if reference.digest and reference.digest != stored.digest:
        raise UsageError(f"push {name} as {reference}: its digest is {stored.digest}")
    progress(f"pushing {name} to {repository}")
    blobs = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
    nearby = _repositories_of_blobs(store, reference)

    def send(blob: Descriptor) -> str:
        with closing(_open(store, blob)) as file:
            return repository.uploads.send(blob, file, nearby.get(blob.digest, ())[:_MOUNTS])

    largest_first = sorted(blobs.values(), key=lambda blob: -blob.size)
    with client.working() as pool:
        for blob, way in zip(largest_first, pool.map(send, largest_first), strict=True):
            progress(f"{blob.digest[:19]}: {blob.size} bytes {_WAYS[way]}")
    return repository.put_manifest(content, stored.media_type, reference.tag or stored.digest)


_WAYS = {"there": "are there already", "mounted": "are there, in another repository", "sent": "sent"}


def _open(store: Store, blob: Descriptor) -> io.BufferedReader:
    """Open a blob at any offset: one that the store makes again of its files is written out first."""
    file = store.open_blob(blob.digest)
    if not isinstance(cast(io.BufferedReader, file).raw, io.FileIO):
        with file:
            spool = tempfile.TemporaryFile(dir=store.layout.tmp)  # noqa: SIM115 # the caller closes it
            while chunk := file.read(COPY_BYTES):
                spool.write(chunk)
            spool.flush()
            return cast(io.BufferedReader, spool)
    return cast(io.BufferedReader, file)


def _repositories_of_blobs(store: Store, target: Reference) -> dict[str, tuple[str, ...]]:
    """Return which other repositories of the target's registry have the blobs of images in the store, by digest."""
    found: dict[str, tuple[str, ...]] = {}
    for name, descriptor in store.layout.references().items():
        try:
            reference = parse(name)
            manifest = parse_manifest(store.layout.read(descriptor.digest, name), name)
        except UsageError:  # a name that is no reference, or a list: neither says where its layers are
            continue
        if reference.host == target.host and reference.path != target.path:
            for layer in (*manifest.layers, manifest.config):
                found[layer.digest] = (*found.get(layer.digest, ()), reference.path)
    return found
