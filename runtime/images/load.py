"""Load images from archives: oci-archive (a tar of an image layout), docker-archive (`docker save`), and layouts.

An oci-archive's manifests are kept as they are. A docker-archive has none: its layers are plain tars, whose digests its
configurations have, and a manifest is written for them. Archives of recent Docker are both; the layout is read then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from runtime.errors import UsageError
from runtime.images import descriptors, oci
from runtime.images.archive import Files, open_files, read_document
from runtime.images.compression import MEDIA_TYPES, detect
from runtime.images.descriptors import CONFIG, MANIFEST, Descriptor, Manifest, choose_platform
from runtime.images.ingest import Ingest, ingesting
from runtime.images.model import Image
from runtime.images.store import Store

# An index may name indexes; a few deep is a mistake, or worse.
_DEPTH_LIMIT = 4
# Docker writes the full reference under this annotation, and the tag alone under image-spec's.
_CONTAINERD_NAME = "io.containerd.image.name"


class _DockerImage(Struct, frozen=True, rename="pascal"):
    """One image of a docker-archive's ``manifest.json``."""

    config: str
    layers: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None


def load(
    store: Store,
    source: Path | BinaryIO,
    progress: Callable[[str], None],
    *,
    reference: str = "",
    platform: str = "",
) -> tuple[Image, ...]:
    """Bring the images of an archive or image layout into the store, and return them.

    ``reference`` names the image where the archive has one; without it each is called what the archive calls it.
    ``platform`` is chosen from indexes, ``linux/arm64`` for example, by default this host's. Raises UsageError, which
    names the archive, for one that is damaged or holds no image; images that were complete before that remain.
    """
    with ingesting(store, progress) as ingest, store.scratch() as scratch:
        files, opened = open_files(source, scratch)
        try:
            loading = _Loading(ingest, files, platform, progress)
            if files.has("index.json") and files.has("oci-layout"):
                images = loading.layout(reference)
            elif files.has("manifest.json"):
                images = loading.docker(reference)
            else:
                hint = "give an oci-archive, a docker-archive, or a directory with an image layout"
                raise UsageError(f"{files.what}: neither index.json nor manifest.json is in it", hint)
        finally:
            if opened is not None:
                opened.close()
    if not images:
        raise UsageError(f"{files.what}: it names no image")
    return tuple(images)


class _Loading:
    """One archive while it is loaded."""

    def __init__(self, ingest: Ingest, files: Files, platform: str, progress: Callable[[str], None]) -> None:
        self.ingest, self.files, self.platform, self.progress = ingest, files, platform, progress

    def layout(self, reference: str) -> list[Image]:
        """Load the images that an image layout names."""
        index = descriptors.parse_index(read_document(self.files, "index.json"), f"{self.files.what}: index.json")
        named = self._names(index.manifests, reference)
        return [self._oci_image(name, descriptor) for name, descriptor in named]

    def _names(self, manifests: Sequence[Descriptor], reference: str) -> list[tuple[str, Descriptor]]:
        """Return the images to load with their names. Raises UsageError where one has none, or one is asked for and
        there are several."""
        named = [(_name_of(one), one) for one in manifests]
        if reference:
            chosen = [one for name, one in named if name == reference] or [one for _, one in named]
            if len(chosen) > 1 and all(one.platform for one in chosen):
                chosen = [choose_platform(chosen, self.platform, self.files.what)]
            if len(chosen) != 1:
                there = ", ".join(sorted(name for name, _ in named if name))
                raise UsageError(f"{self.files.what}: it has {len(chosen)} images, not one", f"there are: {there}")
            return [(reference, chosen[0])]
        if any(not name for name, _ in named):
            raise UsageError(f"{self.files.what}: an image in it has no name", "give it one with --name")
        return named

    def _oci_image(self, name: str, descriptor: Descriptor) -> Image:
        what = f"{self.files.what}: {name}"
        for _ in range(_DEPTH_LIMIT):
            text = self._document(descriptor, what)
            if not descriptors.is_index(text, descriptor.media_type, what):
                break
            descriptor = choose_platform(descriptors.parse_index(text, what).manifests, self.platform, what)
        else:
            raise UsageError(f"{what}: more than {_DEPTH_LIMIT} indexes, one in the other")
        manifest = descriptors.parse_manifest(text, what)
        self.ingest.blob(manifest.config, self._blob(manifest.config))
        diff_ids = self.ingest.configuration(manifest, what).rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise UsageError(f"{what}: {len(manifest.layers)} layers, and its configuration names {len(diff_ids)}")
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            self.progress(f"{name}: layer {layer.digest[7:19]} ({layer.size >> 10} KiB)")
            self.ingest.layer(layer, diff_id, self._blob(layer))
        return self.ingest.image(name, text, descriptor.media_type or MANIFEST)

    def _blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        digest = descriptors.check_digest(descriptor.digest)
        yield from self.files.chunks(f"blobs/sha256/{digest.removeprefix('sha256:')}")

    def _document(self, descriptor: Descriptor, what: str) -> bytes:
        digest = descriptors.check_digest(descriptor.digest).removeprefix("sha256:")
        text = read_document(self.files, f"blobs/sha256/{digest}")
        if descriptors.digest_of(text) != descriptor.digest:
            raise UsageError(f"{what}: the digest of its manifest is {descriptors.digest_of(text)}")
        return text

    def docker(self, reference: str) -> list[Image]:
        """Load the images of a docker-archive."""
        what = f"{self.files.what}: manifest.json"
        listed = descriptors.decode(read_document(self.files, "manifest.json"), tuple[_DockerImage, ...], what)
        if reference and len(listed) != 1:
            listed = tuple(one for one in listed if reference in (one.repo_tags or ()))
            if not listed:
                raise UsageError(f"{self.files.what}: it has several images, and none is called {reference}")
        images = []
        for one in listed:
            names = (reference,) if reference else one.repo_tags or ()
            if not names:
                raise UsageError(f"{self.files.what}: an image in it has no name", "give it one with --name")
            manifest = self._docker_manifest(one, names[0])
            images += [self.ingest.image(name, manifest) for name in names]
        return images

    def _docker_manifest(self, one: _DockerImage, name: str) -> bytes:
        """Bring in the configuration and layers of an image, and return a manifest of them."""
        what = f"{self.files.what}: {name}"
        text = read_document(self.files, one.config)
        document = descriptors.decode(text, oci.Document, f"{what}: {one.config}")
        config = Descriptor(CONFIG, descriptors.digest_of(text), len(text))
        self.ingest.blob(config, iter((text,)))
        files, diff_ids = one.layers or (), document.rootfs.diff_ids
        if len(files) != len(diff_ids):
            raise UsageError(f"{what}: {len(files)} layers, and its configuration names {len(diff_ids)}")
        layers = []
        for file, diff_id in zip(files, diff_ids, strict=True):
            descriptor = self._describe(file)
            self.progress(f"{name}: layer {diff_id[7:19]} ({descriptor.size >> 10} KiB)")
            self.ingest.layer(descriptor, diff_id, self.files.chunks(file))
            layers.append(descriptor)
        return descriptors.encode_manifest(Manifest(config, tuple(layers)))

    def _describe(self, file: str) -> Descriptor:
        """Return the descriptor of a layer's file, which names no digest of its own."""
        sha256 = hashlib.sha256()
        size = 0
        start = b""
        for chunk in self.files.chunks(file):
            start = start or chunk[:16]
            sha256.update(chunk)
            size += len(chunk)
        return Descriptor(MEDIA_TYPES[detect(start)], "sha256:" + sha256.hexdigest(), size)


def _name_of(descriptor: Descriptor) -> str:
    annotations = descriptor.annotations or {}
    return annotations.get(_CONTAINERD_NAME) or annotations.get(descriptors.REFERENCE) or ""
