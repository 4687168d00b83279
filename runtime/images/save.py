"""Save images as an oci-archive (a tar of an image layout) or as a docker-archive (as `docker save` wrote them).

The same images give the same bits. A layer that was built here is a plain tar, unless it is to be compressed; one that
came from elsewhere stays as it came in an oci-archive, and in a docker-archive every layer is a plain tar.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images import descriptors
from runtime.images.compression import MEDIA_TYPES, Compression, compressed, decompressed
from runtime.images.descriptors import LAYER_TAR, MANIFEST, Descriptor, Manifest
from runtime.images.layout import VERSION, VERSION_FILE, read_chunks
from runtime.images.oci import EPOCH_S
from runtime.images.store import Store

Format = Literal["oci", "docker"]
FORMATS: tuple[Format, ...] = ("oci", "docker")


class _Member(Struct, frozen=True):
    """A file of an archive: its length, and what opens its content."""

    size: int
    chunks: Callable[[], Iterator[bytes]]


def parse_format(text: str) -> Format:
    """Return the format with this name. Raises UsageError where there is none."""
    for one in FORMATS:
        if one == text:
            return one
    raise UsageError(f"format {text}: there is no such format of archives", f"one of {', '.join(FORMATS)}")


def save(
    store: Store,
    references: Sequence[str],
    target: BinaryIO,
    progress: Callable[[str], None],
    *,
    format: Format = "oci",
    compression: Compression = "none",
) -> None:
    """Write images of the store as an archive to ``target``.

    ``compression`` is that of layers which were built here, in an oci-archive; their manifest, not the image's id,
    depends on it. Raises UsageError for an unknown image, OSError.
    """
    if format == "docker" and compression != "none":
        raise UsageError(
            f"a docker-archive has plain layers, not {compression}", "leave it out, or compress the archive"
        )
    with store.writing(progress), store.scratch() as scratch:
        saving = _Saving(store, scratch, progress)
        members = saving.docker(references) if format == "docker" else saving.layout(references, compression)
        for chunk in _tar(members):
            target.write(chunk)


class _Saving:
    """One archive while it is made. ``scratch`` holds what is compressed for it."""

    def __init__(self, store: Store, scratch: Path, progress: Callable[[str], None]) -> None:
        self.store, self.scratch, self.progress = store, scratch, progress
        self._compressed: dict[str, Descriptor] = {}

    def _manifest(self, reference: str) -> tuple[Descriptor, bytes, Manifest]:
        named = self.store.manifest(reference)
        text = self.store.layout.read(named.digest, f"manifest of {reference}")
        return named, text, descriptors.parse_manifest(text, f"manifest of {reference}")

    def layout(self, references: Sequence[str], compression: Compression) -> dict[str, _Member]:
        """Return the files of an image layout."""
        index, documents, layers = [], {}, {}
        for reference in references:
            named, text, manifest = self._manifest(reference)
            if compression != "none":
                packed = tuple(self._compress(one, compression) for one in manifest.layers)
                if packed != manifest.layers:
                    text = descriptors.encode_manifest(replace(manifest, layers=packed))
                    named = Descriptor(MANIFEST, descriptors.digest_of(text), len(text))
                    manifest = replace(manifest, layers=packed)
            index.append(replace(named, annotations={descriptors.REFERENCE: reference}))
            documents[_blob(named.digest)] = _in_memory(text)
            documents[_blob(manifest.config.digest)] = self._stored(manifest.config.digest)
            for layer in manifest.layers:
                layers[_blob(layer.digest)] = self._stored(layer.digest)
        listed = {"schemaVersion": 2, "manifests": msgspec.to_builtins(index)}
        return {
            VERSION_FILE: _in_memory(VERSION),
            "index.json": _in_memory(msgspec.json.encode(listed, order="deterministic")),
            **dict(sorted(documents.items())),
            **dict(sorted(layers.items())),
        }

    def docker(self, references: Sequence[str]) -> dict[str, _Member]:
        """Return the files of a docker-archive."""
        listed, members = [], {}
        for reference in references:
            manifest = self._manifest(reference)[2]
            image = self.store.get(reference)
            layers = []
            diff_ids = self._diff_ids(manifest, reference)
            for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True):
                name = f"{diff_id.removeprefix('sha256:')}.tar"
                record = self.store.record(diff_id)
                assert record is not None
                members[name] = self._plain(descriptor.digest, record.size_bytes)
                layers.append(name)
            config = f"{image.id.removeprefix('sha256:')}.json"
            members[config] = self._stored(image.id)
            listed.append({"Config": config, "RepoTags": [_tagged(reference)], "Layers": layers})
        text = msgspec.json.encode(listed, order="deterministic")
        return {"manifest.json": _in_memory(text), **dict(sorted(members.items()))}

    def _diff_ids(self, manifest: Manifest, reference: str) -> tuple[str, ...]:
        from runtime.images.oci import Document

        text = self.store.layout.read(manifest.config.digest, f"configuration of {reference}")
        return descriptors.decode(text, Document, f"configuration of {reference}").rootfs.diff_ids

    def _stored(self, digest: str) -> _Member:
        if digest in self._compressed:
            path = self.scratch / digest.removeprefix("sha256:")
            return _Member(path.stat().st_size, lambda: read_chunks(path.open("rb")))
        return _Member(self.store.blob_size(digest), lambda: read_chunks(self.store.open_blob(digest)))

    def _plain(self, digest: str, size: int) -> _Member:
        return _Member(size, lambda: decompressed(read_chunks(self.store.open_blob(digest))))

    def _compress(self, layer: Descriptor, compression: Compression) -> Descriptor:
        """Compress a layer that was built here; return the descriptor of what it became."""
        if layer.media_type != LAYER_TAR or self.store.layout.has(layer.digest):
            return layer
        for descriptor in self._compressed.values():
            if (descriptor.annotations or {}).get("diff_id") == layer.digest:
                return descriptors.plain(descriptor)
        self.progress(f"compressing layer {layer.digest[7:19]} ({layer.size >> 10} KiB)")
        sha256 = hashlib.sha256()
        size = 0
        temporary = self.scratch / "compressed"
        with temporary.open("wb") as file:
            for chunk in compressed(read_chunks(self.store.open_blob(layer.digest)), compression):
                sha256.update(chunk)
                size += len(chunk)
                file.write(chunk)
        digest = "sha256:" + sha256.hexdigest()
        temporary.rename(self.scratch / sha256.hexdigest())
        made = Descriptor(MEDIA_TYPES[compression], digest, size, {"diff_id": layer.digest})
        self._compressed[digest] = made
        return descriptors.plain(made)


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _in_memory(content: bytes) -> _Member:
    return _Member(len(content), lambda: iter((content,)))


def _tagged(reference: str) -> str:
    return reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"


def _tar(members: dict[str, _Member]) -> Iterator[bytes]:
    """Yield a tar of the members and of the directories that they are in."""
    made: set[str] = set()
    for name, member in members.items():
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            folder = "/".join(folders[:depth])
            if folder not in made:
                made.add(folder)
                yield _header(folder, tarfile.DIRTYPE, 0o755, 0)
        yield _header(name, tarfile.REGTYPE, 0o644, member.size)
        yield from _exactly(member, name)
        yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, kind: bytes, mode: int, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, size, EPOCH_S
    return info.tobuf(tarfile.PAX_FORMAT)


def _exactly(member: _Member, name: str) -> Iterable[bytes]:
    length = 0
    for chunk in member.chunks():
        length += len(chunk)
        yield chunk
    if length != member.size:
        raise UsageError(f"{name}: it has {length} bytes, and should have {member.size}", "./invoke images.verify")
