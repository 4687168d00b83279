"""Images made of a few files in memory, as others make them, and brought into a store."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Iterator

import zstandard

from runtime.images.descriptors import CONFIG, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor, digest_of
from runtime.images.ingest import ingesting
from runtime.images.model import Image
from runtime.images.store import Store

COMPRESSIONS = {LAYER_TAR: lambda tar: tar, LAYER_GZIP: gzip.compress, LAYER_ZSTD: zstandard.compress}


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pieces(content: bytes, size: int = 100) -> Iterator[bytes]:
    yield from (content[at : at + size] for at in range(0, len(content), size))


def described(content: bytes, media_type: str = LAYER_TAR) -> Descriptor:
    return Descriptor(media_type, digest_of(content), len(content))


def documents(layers: Iterable[tuple[Descriptor, bytes]]) -> tuple[bytes, bytes]:
    """The configuration and the manifest of an image with these layers: descriptor and uncompressed tar."""
    layers = list(layers)
    diff_ids = [digest_of(tar) for _, tar in layers]
    config = json.dumps({"rootfs": {"diff_ids": diff_ids}, "config": {"Cmd": ["sh"]}}).encode()
    named = [{"mediaType": one.media_type, "digest": one.digest, "size": one.size} for one, _ in layers]
    about = {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)}
    return config, json.dumps({"schemaVersion": 2, "config": about, "layers": named}).encode()


def bring(store: Store, reference: str, files: dict[str, bytes], media_type: str = LAYER_GZIP) -> Image:
    tar = tar_of(files)
    blob = COMPRESSIONS[media_type](tar)
    config, manifest = documents([(described(blob, media_type), tar)])
    with ingesting(store, print) as ingest:
        ingest.layer(described(blob, media_type), digest_of(tar), pieces(blob))
        ingest.blob(described(config), pieces(config))
        return ingest.image(reference, manifest)
