"""The image store: an OCI image layout, whose layers are unpacked beside it.

    oci-layout, index.json, blobs/      the layout (``layout``): references, manifests, configurations
    layers/<first 26 hex digits of the diff_id>/      a layer, unpacked, an overlay lowerdir
    layers/<the same>.json              its record: full diff_id, size, origin; written last
    merged/<26 hex digits>/             the lowest layers of one that has very many, as one directory (``merging``)
    cache/<key>.json                    build step -> diff_id
    tmp/                                what is being written
    lock, writers, commit               held by a builder, by who writes, and while names change

A layer that was built here is stored once, unpacked. Manifests name it as a plain tar of its diff_id, and that blob is
not in ``blobs/``, as image-layout.md allows ("missing blobs SHOULD be fulfilled by an external blob store"): it is
made again, bit for bit, of the layer's files (``open_blob``). So the base image takes 233 MB and not twice that. A
layer that came from elsewhere is kept as it came, too, since nobody can compress it to the same bits again: what is
saved or pushed has the digests with which it came.

Everything has its final name only once it is complete. Readers take no lock. There is one builder at a time, besides
any number of others who bring images in (``ingest``).
"""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.atomic import PARTIAL, read_document, remove, replace_file
from runtime.errors import PrerequisiteError, UsageError
from runtime.home import store_root
from runtime.images import descriptors, oci
from runtime.images import layers as layer_format
from runtime.images.compression import Chunks
from runtime.images.descriptors import CONFIG, MANIFEST, Descriptor, Manifest
from runtime.images.layout import Layout, hold, sync_file_system
from runtime.images.migration import OLD_INDEX, migrate
from runtime.images.model import History, Image, ImageConfig, Layer
from runtime.images.records import Record, current_boot, read_record, settle_records, write_record
from runtime.images.reference import find_name
from runtime.images.space import full_disk_reported

# Overlay's lowerdir list must fit in one page of mount options. 104 bits do not collide by accident, and the full
# digest is checked all the same.
NAME_DIGITS = 26

_MODE = 0o700
# Below the root: a directory for each cache that steps of builds share, which lasts from build to build; and one for
# each merged directory.
CACHES, MERGED = "caches", "merged"


class Cached(Struct, frozen=True):
    """The result of a build step."""

    diff_id: str


class Store:
    """Images below ``root`` (created at the first write), which only its owner may enter."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(root)
        self._unsynced: list[Path] = []

    # Reading

    def find(self, reference: str) -> Image | None:
        """Return the image called ``reference``, or None if it or one of its layers is missing."""
        self._enter()
        references = self.layout.references()
        name = find_name(reference, references)
        return None if name is None else self._image(reference, references[name])

    def get(self, reference: str) -> Image:
        """Return the image called ``reference``. Raises UsageError listing all images if there is none."""
        image = self.find(reference)
        if image is None:
            known = ", ".join(self.references()) or "none"
            raise UsageError(f"no image {reference!r} in {self.root}", f"known images: {known}")
        return image

    def references(self) -> tuple[str, ...]:
        """Return the sorted names of all images."""
        self._enter()
        return tuple(sorted(self.layout.references()))

    def manifest(self, reference: str) -> Descriptor:
        """Return the descriptor of an image's manifest. Raises UsageError listing all images if there is none."""
        self._enter()
        references = self.layout.references()
        if (name := find_name(reference, references)) is not None:
            return references[name]
        known = ", ".join(sorted(references)) or "none"
        raise UsageError(f"no image {reference!r} in {self.root}", f"known images: {known}")

    def layer(self, diff_id: str) -> Layer | None:
        """Return the layer with this diff_id, or None."""
        record = self.record(diff_id)
        return None if record is None else Layer(diff_id, self.layer_path(diff_id))

    def record(self, diff_id: str) -> Record | None:
        """Return the record of a layer, or None when the layer is not there."""
        path = self.layer_path(diff_id)
        record = read_record(path)
        return None if record is None or record.diff_id != diff_id or not path.is_dir() else record

    def has_blob(self, digest: str) -> bool:
        """Return whether ``open_blob`` can open a blob. Raises UsageError for what is no digest."""
        return self.layout.has(digest) or self._remade(digest) is not None

    def blob_size(self, digest: str) -> int:
        """Return the length of a blob. Raises UsageError where it is missing."""
        with suppress(FileNotFoundError):
            return self.layout.path(digest).stat().st_size
        record = self._remade(digest)
        if record is None:
            raise UsageError(f"no blob {digest} in {self.root}", "./invoke images.verify names what is missing")
        return record.size_bytes

    def open_blob(self, digest: str) -> BinaryIO:
        """Open a blob to read it from its beginning: a manifest, a configuration, or a layer, which may be made again
        of its files. Raises UsageError where it is missing."""
        with suppress(FileNotFoundError):
            return self.layout.open(digest)
        if self._remade(digest) is None:
            raise UsageError(f"no blob {digest} in {self.root}", "./invoke images.verify names what is missing")
        return io.BufferedReader(Chunks(layer_format.tar_chunks(self.layer_path(digest))), 1 << 20)

    def verify(self, image: Image) -> tuple[Layer, ...]:
        """Return the layers of ``image`` whose content on disk is no longer that of their diff_id."""
        from runtime.images.verification import is_intact

        return tuple(layer for layer in image.layers if not is_intact(self, layer))

    def newest_s(self, layer: Layer) -> int:
        """Return the newest time in a layer, in seconds since 1970."""
        record = read_record(layer.path)
        return record.newest_s if record else oci.EPOCH_S

    def cached(self, key: str) -> Layer | None:
        """Return the layer that the build step with this key made before, or None if there is none any more."""
        entry = read_document(self._cache_path(key), Cached)
        return self.layer(entry.diff_id) if entry else None

    def leftovers(self) -> tuple[Path, ...]:
        """Return what is not complete. While nobody writes there is nothing, unless a writer was killed."""
        return self.layout.leftovers()

    # Writing

    @contextmanager
    def building(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Wait for other builders and hold the store's lock, after removing what a killed builder left.

        Raises PrerequisiteError if the disk becomes full within, and if the store may not be written.
        """
        with full_disk_reported(self.root, "write to the image store"):
            self._make_folders()
            waiting = f"waiting for another build in {self.root}"
            with hold(self.root / "lock", waiting, progress), self.writing(progress):
                yield

    @contextmanager
    def writing(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Hold the store as one of its writers, besides any others and a builder; errors as for ``building``."""
        with full_disk_reported(self.root, "write to the image store"):
            self._make_folders()
            with self.layout.writing(progress):
                try:
                    yield
                finally:
                    self._sync()

    @contextmanager
    def collecting(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Hold the store while nobody else writes; errors as for ``building``."""
        with full_disk_reported(self.root, "write to the image store"):
            self._make_folders()
            waiting = f"waiting for another build in {self.root}"
            with hold(self.root / "lock", waiting, progress), self.layout.alone(progress):
                yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make an empty directory on the store's file system, which is removed at the end. It must be held to write."""
        path = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=f"-{os.getpid()}", dir=self.root / "tmp"))
        path.chmod(0o755)
        try:
            yield path
        finally:
            with suppress(OSError):
                remove(path)

    def add_layer(self, tree: Path, created_by: str, newest_s: int = oci.EPOCH_S) -> Layer:
        """Make a layer of the settled directory ``tree`` (in a scratch directory), which is moved.

        ``newest_s`` is the newest time in it.
        """
        digest = layer_format.digest(tree)
        return self.place(tree, Record(digest.diff_id, digest.size_bytes, created_by, newest_s))

    def place(self, tree: Path, record: Record) -> Layer:
        """Move the directory ``tree`` to where the layer with this record is; where there is one, that stays."""
        path = self.layer_path(record.diff_id)
        with self.layout.committing():
            if self.layer(record.diff_id) is None:
                if path.exists():  # a writer was killed after the rename, before it wrote the record
                    remove(path)
                os.rename(tree, path)
                write_record(path, replace(record, boot=current_boot()))
                self._unsynced.append(path)
                return Layer(record.diff_id, path)
        remove(tree)
        return Layer(record.diff_id, path)

    def remember(self, key: str, layer: Layer) -> None:
        """Let ``cached`` return ``layer`` for the key of the build step that made it."""
        self._write_json(self._cache_path(key), {"diff_id": layer.diff_id})

    def tag(
        self, reference: str, config: ImageConfig, layers: Sequence[Layer], history: Sequence[History] = ()
    ) -> Image:
        """Write the image of ``config`` and ``layers`` (bottom first), and tag it. The store must be held to write."""
        text = oci.to_json(config, [layer.diff_id for layer in layers], history).encode()
        image_id = self.layout.add(text)
        self.layout.point(reference, self._describe(self.layout, image_id, len(text), layers))
        return Image(reference, image_id, config, tuple(layers), tuple(history))

    def alias(self, reference: str, name: str) -> None:
        """Let ``name`` be a further name of the image called ``reference``. Raises UsageError if there is none."""
        self.layout.point(name, replace(self.manifest(reference), annotations=None))

    def untag(self, reference: str) -> None:
        """Forget a name. Its image's files stay until they are collected. Raises UsageError if there is none."""
        target = self.manifest(reference)
        self.layout.point((target.annotations or {})[descriptors.REFERENCE], None)

    def copy_index(self, images: Iterable[Image], target: Path, layers: str) -> None:
        """Make ``target`` a store of these images whose layers are links to those in the directory ``layers``, where
        each has its name in this store: for a file system that has the layers elsewhere. Raises OSError."""
        copy = Store(target)
        for name in ("layers", "cache"):
            (target / name).mkdir(parents=True)
        copy.layout.make()
        for image in images:
            config = self.layout.read(image.id, f"configuration of {image.reference}")
            copy.layout.add(config)
            copy.layout.point(image.reference, self._describe(copy.layout, image.id, len(config), image.layers))
            for layer in image.layers:
                link = target / "layers" / layer.path.name
                if not link.is_symlink():
                    link.symlink_to(f"{layers}/{link.name}")
                    write_record(link, replace(self.record(layer.diff_id) or Record(layer.diff_id), boot=""))
        for name in ("lock", "writers", "commit"):
            (target / name).touch()

    # Files

    def _describe(self, layout: Layout, image_id: str, size: int, layers: Iterable[Layer]) -> Descriptor:
        """Write a manifest of a configuration, which is there, and of layers of this store to a layout; return its
        descriptor."""
        records = (self.record(layer.diff_id) or Record(layer.diff_id) for layer in layers)
        manifest = Manifest(Descriptor(CONFIG, image_id, size), tuple(record.descriptor for record in records))
        text = descriptors.encode_manifest(manifest)
        return Descriptor(MANIFEST, layout.add(text), len(text))

    def _image(self, reference: str, target: Descriptor) -> Image | None:
        manifest = read_document(self.layout.path(target.digest), Manifest)
        if manifest is None:
            return None
        document = read_document(self.layout.path(manifest.config.digest), oci.Document)
        if document is None:
            return None
        layers: list[Layer] = []
        for diff_id in reversed(document.rootfs.diff_ids):
            record = self.record(diff_id)
            if record is None:
                return None
            layers.append(Layer(diff_id, self.layer_path(diff_id)))
            if record.hides_below:  # overlay knows no layer whose root is opaque
                break
        layers.reverse()
        image_id = manifest.config.digest
        return Image(reference, image_id, oci.config_of(document), tuple(layers), oci.history_of(document))

    def _remade(self, digest: str) -> Record | None:
        """Return the record of the layer of which the blob with this digest can be made again."""
        record = self.record(descriptors.check_digest(digest))
        return record if record is not None and record.blob is None else None

    def _sync(self) -> None:
        """Have the files of new layers on the disk, and note that they are."""
        unsynced, self._unsynced = self._unsynced, []
        if unsynced:
            settle_records(unsynced, lambda: sync_file_system(self.root))

    def layer_path(self, diff_id: str) -> Path:
        """Return where the layer with this diff_id is, if it is there."""
        return self.root / "layers" / diff_id.removeprefix("sha256:")[:NAME_DIGITS]

    def _cache_path(self, key: str) -> Path:
        return self.root / "cache" / f"{key}.json"

    def _make_folders(self) -> None:
        try:
            for name in ("layers", "cache"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._close()
            self.layout.make()
        except (FileExistsError, NotADirectoryError) as error:
            raise PrerequisiteError(f"make {error.filename}: not a directory", "set TESTBED_HOME to one") from error
        except PermissionError as error:
            what = f"make {error.filename}: {error.strerror}"
            raise PrerequisiteError(what, "run as root, or through sudo") from error
        self._enter()

    def _enter(self) -> None:
        """Bring a store of an older version to this one's format."""
        self._close()
        if (self.root / OLD_INDEX).exists():
            with full_disk_reported(self.root, "bring the image store to the OCI image layout"):
                migrate(self.root, self.layout, lambda diff_id: self.record(diff_id))

    def _close(self) -> None:
        """Let only the owner enter: layers hold set-user-ID programs and devices, which only containers may use."""
        with suppress(FileNotFoundError, PermissionError):
            if stat.S_IMODE(self.root.stat().st_mode) != _MODE:
                self.root.chmod(_MODE)

    def _write_json(self, path: Path, document: dict[str, Any]) -> None:
        replace_file(path, msgspec.json.encode(document))


def open_store() -> Store:
    """Return the store of this host, below ``store_root``. Raises PrerequisiteError as that does."""
    return Store(store_root() / "images")
