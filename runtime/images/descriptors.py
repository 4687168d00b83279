"""The documents that name blobs: descriptors, manifests and indexes of the OCI image-spec 1.1, and Docker's equivalents
(Image Manifest Version 2, Schema 2), which have the same members under other media types.

All of them come from archives and registries: they are decoded within bounds, and what is wrong is a UsageError.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from runtime.errors import UsageError
from runtime.images.oci import architecture

T = TypeVar("T")

# What a registry must accept at least (distribution-spec 1.1, "Pushing Manifests"); no more is read.
DOCUMENT_LIMIT_BYTES = 4 << 20

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = f"{LAYER_TAR}+gzip"
LAYER_ZSTD = f"{LAYER_TAR}+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_INDEX)
# image-spec annotations.md: the reference of an image in a layout's index.
REFERENCE = "org.opencontainers.image.ref.name"

_DIGEST = re.compile("sha256:[0-9a-f]{64}")


class Platform(Struct, frozen=True, omit_defaults=True):
    """What a manifest of an index runs on."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The name of a blob: its media type, its digest, and its ``size`` in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(Struct, frozen=True):
    """An image: the descriptors of its configuration and of its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(Struct, frozen=True):
    """A list of manifests: of a layout's images, or of one image's platforms."""

    manifests: tuple[Descriptor, ...]


class _Kind(Struct, frozen=True, rename="camel"):
    """What tells a manifest from an index when no media type was given."""

    media_type: str = ""
    manifests: tuple[msgspec.Raw, ...] | None = None
    schema_version: int = 2


def check_digest(digest: str) -> str:
    """Return ``digest``. Raises UsageError unless it is a sha256, which is the algorithm that all registries have."""
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"digest {digest[:80]!r}: not sha256: and 64 hexadecimal digits")
    return digest


def plain(descriptor: Descriptor) -> Descriptor:
    """Return a descriptor with what names the blob, and nothing besides."""
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)


def digest_of(content: bytes) -> str:
    """Return the digest of some bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def decode(content: bytes, kind: type[T], what: str) -> T:
    """Return a JSON document. Raises UsageError, which names it as ``what``, for one that is too long or wrong."""
    if len(content) > DOCUMENT_LIMIT_BYTES:
        raise UsageError(f"{what}: it is longer than {DOCUMENT_LIMIT_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what}: {error}") from error


def is_index(content: bytes, media_type: str, what: str) -> bool:
    """Return whether a document is an index rather than a manifest, by its media type or else by its members."""
    kind = decode(content, _Kind, what)
    if kind.schema_version != 2:
        raise UsageError(f"{what}: it has schema version {kind.schema_version}", "push it again with a newer tool")
    return (media_type or kind.media_type) in INDEXES or kind.manifests is not None


def parse_manifest(content: bytes, what: str) -> Manifest:
    """Return a manifest, of OCI or of Docker. Raises UsageError, which names it as ``what``."""
    manifest = decode(content, Manifest, what)
    for descriptor in (manifest.config, *manifest.layers):
        _check(descriptor, what)
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as canonical JSON, so that the same image has the same digest."""
    document = {"schemaVersion": 2, "mediaType": MANIFEST, **msgspec.to_builtins(manifest)}
    return msgspec.json.encode(document, order="deterministic")


def parse_index(content: bytes, what: str) -> Index:
    """Return an index, of OCI or of Docker (a manifest list). Raises UsageError, which names it as ``what``."""
    index = decode(content, Index, what)
    for descriptor in index.manifests:
        _check(descriptor, what)
    return index


def _check(descriptor: Descriptor, what: str) -> None:
    try:
        check_digest(descriptor.digest)
    except UsageError as error:
        raise UsageError(f"{what}: {error.message}") from error
    if descriptor.size < 0:
        raise UsageError(f"{what}: {descriptor.digest} has a size of {descriptor.size} bytes")


def choose_platform(manifests: Sequence[Descriptor], wanted: str, what: str) -> Descriptor:
    """Return the manifest of an index for a platform: ``linux/arm64``, ``linux/arm/v7``, or "" for this host's.

    Without a variant in ``wanted`` the first of its architecture is taken; a manifest that names no platform serves
    when it is the only one. Raises UsageError listing what there is.
    """
    system, _, rest = (wanted or f"linux/{architecture()}").partition("/")
    machine, _, variant = rest.partition("/")
    for one in manifests:
        has = one.platform or Platform()
        if (has.os, has.architecture) == (system, machine) and variant in ("", has.variant):
            return one
    if len(manifests) == 1 and manifests[0].platform is None:
        return manifests[0]
    there = ", ".join(sorted({str(one.platform) for one in manifests if one.platform} - {"unknown/unknown"})) or "none"
    raise UsageError(f"{what}: no image for {system}/{rest}", f"there are: {there}")
