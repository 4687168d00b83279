"""Images for tests of registries: made of a few files, without a build."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from runtime.images.descriptors import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, digest_of
from runtime.images.oci import architecture
from runtime.registry.repository import Repository


def push_blob(repository: Repository, folder: Path, content: bytes, media_type: str) -> Descriptor:
    """Push some bytes, and return their descriptor."""
    path = folder / digest_of(content).removeprefix("sha256:")
    path.write_bytes(content)
    descriptor = Descriptor(media_type, digest_of(content), len(content))
    with path.open("rb") as file:
        repository.uploads.send(descriptor, file)
    return descriptor


def push_image(
    repository: Repository,
    folder: Path,
    tag: str,
    layers: Sequence[bytes],
    *,
    media_type: str = LAYER_GZIP,
    machine: str = "",
    diff_ids: Sequence[str] = (),
) -> Descriptor:
    """Push an image of these tars, compressed, and return its manifest's descriptor. ``diff_ids`` are wrong ones."""
    config = {
        "os": "linux",
        "architecture": machine or architecture(),
        "config": {"Env": ["A=b"], "Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids) or [digest_of(one) for one in layers]},
    }
    named = push_blob(repository, folder, json.dumps(config).encode(), CONFIG)
    blobs = [push_blob(repository, folder, gzip.compress(one, mtime=0), media_type) for one in layers]
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": members(named), "layers": [members(one) for one in blobs]}
    ).encode()
    repository.put_manifest(content, MANIFEST, tag)
    return Descriptor(MANIFEST, digest_of(content), len(content))


def members(descriptor: Descriptor, **more: object) -> dict[str, object]:
    """A descriptor as it stands in JSON."""
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size, **more}
