"""The image store: layers by their content, images by their configuration, references by name.

    layers/<first 26 hex digits of the diff_id>/      the layer, extracted, an overlay lowerdir
    layers/<the same>.json                            its full diff_id, size and origin; written last
    images/<image id>.json                            the OCI image configuration
    references.json                                   reference -> image id
    cache/<key>.json                                  build step -> diff_id
    tmp/                                              the files of a running build

Everything is renamed to its final name once it is complete. Readers take no lock. A builder holds ``lock``, so the next
holder can remove all of ``tmp/``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from runtime.atomic import PARTIAL, read_document, remove, replace_file
from runtime.errors import PrerequisiteError, UsageError
from runtime.images import layers as layer_format
from runtime.images import oci
from runtime.images.model import History, Image, ImageConfig, Layer
from runtime.images.space import full_disk_reported

# Overlay's lowerdir list must fit in one page of mount options. 104 bits do not collide by accident, and the full
# digest is checked all the same.
NAME_DIGITS = 26


_MODE = 0o700


class _Named(Struct, frozen=True):
    """A file that names a layer: the layer's description, or the cached result of a build step. ``newest_s`` is the
    newest time in the layer."""

    diff_id: str
    newest_s: int = oci.EPOCH_S


class Store:
    """Images below ``root`` (created at the first write), which only its owner may enter. It has one builder at a time,
    and any number of readers."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, reference: str) -> Image | None:
        """Return the image called ``reference``, or None if it or one of its layers is missing."""
        self._close()
        image_id = self._references().get(reference)
        document = read_document(self._image_path(image_id), oci.Document) if image_id else None
        if image_id is None or document is None:
            return None
        found = [self.layer(diff_id) for diff_id in document.rootfs.diff_ids]
        layers = tuple(layer for layer in found if layer is not None)
        if len(layers) != len(found):
            return None
        return Image(reference, image_id, oci.config_of(document), layers, oci.history_of(document))

    def get(self, reference: str) -> Image:
        """Return the image called ``reference``. Raises UsageError listing all images if there is none."""
        image = self.find(reference)
        if image is None:
            known = ", ".join(self.references()) or "none"
            raise UsageError(f"no image {reference!r} in {self.root}", f"known images: {known}")
        return image

    def references(self) -> tuple[str, ...]:
        """Return the sorted names of all images."""
        return tuple(sorted(self._references()))

    def layer(self, diff_id: str) -> Layer | None:
        """Return the layer with this diff_id, or None."""
        path = self._layer_path(diff_id)
        metadata = read_document(path.with_name(path.name + ".json"), _Named)
        if metadata is None or metadata.diff_id != diff_id or not path.is_dir():
            return None
        return Layer(diff_id, path)

    def verify(self, image: Image) -> tuple[Layer, ...]:
        """Return the layers of ``image`` whose content on disk no longer has their diff_id."""
        return tuple(layer for layer in image.layers if layer_format.digest(layer.path).diff_id != layer.diff_id)

    @contextmanager
    def building(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Wait for other builders and hold the store's lock, after removing what a killed builder left.

        Raises PrerequisiteError if the disk becomes full within, and if the store may not be written.
        """
        with full_disk_reported(self.root, "write to the image store"):
            self._make_folders()
            with open(self.root / "lock", "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    progress(f"waiting for another build in {self.root}")
                    fcntl.flock(lock, fcntl.LOCK_EX)
                self._sweep()
                yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make an empty directory on the store's file system, which is removed at the end. The lock must be held."""
        path = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=f"-{os.getpid()}", dir=self.root / "tmp"))
        path.chmod(0o755)
        try:
            yield path
        finally:
            with suppress(OSError):
                remove(path)

    def leftovers(self) -> tuple[Path, ...]:
        """Return the files of incomplete builds. While no build runs there are none, unless one was killed."""
        return tuple(sorted((*self.root.glob(f"{PARTIAL}*"), *self.root.glob(f"*/{PARTIAL}*"))))

    def newest_s(self, layer: Layer) -> int:
        """Return the newest time in a layer, in seconds since 1970, as given to ``add_layer``."""
        metadata = read_document(layer.path.with_name(layer.path.name + ".json"), _Named)
        return metadata.newest_s if metadata else oci.EPOCH_S

    def add_layer(self, tree: Path, created_by: str, newest_s: int = oci.EPOCH_S) -> Layer:
        """Make a layer of the settled directory ``tree`` (in a scratch directory), which is moved.

        ``newest_s`` is the newest time in it.
        """
        digest = layer_format.digest(tree)
        existing = self.layer(digest.diff_id)
        if existing is not None:
            remove(tree)
            return existing
        path = self._layer_path(digest.diff_id)
        if path.exists():  # a builder was killed after the rename, before it wrote the metadata
            remove(path)
        os.rename(tree, path)
        metadata = {"diff_id": digest.diff_id, "size_bytes": digest.size_bytes, "created_by": created_by}
        metadata["newest_s"] = newest_s
        self._write_json(path.with_name(path.name + ".json"), metadata)
        return Layer(digest.diff_id, path)

    def cached(self, key: str) -> Layer | None:
        """Return the layer that the build step with this key made before, or None if there is none any more."""
        entry = read_document(self._cache_path(key), _Named)
        return self.layer(entry.diff_id) if entry else None

    def remember(self, key: str, layer: Layer) -> None:
        """Let ``cached`` return ``layer`` for the key of the build step that made it."""
        self._write_json(self._cache_path(key), {"diff_id": layer.diff_id})

    def tag(
        self, reference: str, config: ImageConfig, layers: Sequence[Layer], history: Sequence[History] = ()
    ) -> Image:
        """Write the image of ``config`` and ``layers`` (bottom first), and tag it. The lock must be held."""
        text = oci.to_json(config, [layer.diff_id for layer in layers], history)
        image_id = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        replace_file(self._image_path(image_id), text.encode())
        references = self._references()
        if references.get(reference) != image_id:
            self._write_json(self.root / "references.json", {**references, reference: image_id})
        return Image(reference, image_id, config, tuple(layers), tuple(history))

    def copy_index(self, images: Iterable[Image], target: Path, layers: str) -> None:
        """Make ``target`` a store of these images whose layers are links to those in the directory ``layers``, where
        each has its name in this store: for a file system that has the layers elsewhere. Raises OSError."""
        for name in ("layers", "images", "cache", "tmp"):
            (target / name).mkdir(parents=True)
        references: dict[str, str] = {}
        for image in images:
            references[image.reference] = image.id
            path = self._image_path(image.id)
            shutil.copyfile(path, target / "images" / path.name)
            for layer in image.layers:
                link = target / "layers" / layer.path.name
                if not link.is_symlink():
                    link.symlink_to(f"{layers}/{link.name}")
                    shutil.copyfile(f"{layer.path}.json", f"{link}.json")
        (target / "references.json").write_text(json.dumps(references, indent=1, sort_keys=True) + "\n")
        (target / "lock").touch()

    def _references(self) -> dict[str, str]:
        return read_document(self.root / "references.json", dict[str, str]) or {}

    def _layer_path(self, diff_id: str) -> Path:
        return self.root / "layers" / diff_id.removeprefix("sha256:")[:NAME_DIGITS]

    def _image_path(self, image_id: str) -> Path:
        return self.root / "images" / f"{image_id.removeprefix('sha256:')}.json"

    def _cache_path(self, key: str) -> Path:
        return self.root / "cache" / f"{key}.json"

    def _make_folders(self) -> None:
        try:
            for name in ("layers", "images", "cache", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise PrerequisiteError(f"make {error.filename}: not a directory", "set TESTBED_HOME to one") from error
        except PermissionError as error:
            what = f"make {error.filename}: {error.strerror}"
            raise PrerequisiteError(what, "run as root, or through sudo") from error
        self._close()

    def _close(self) -> None:
        """Let only the owner enter: layers hold set-user-ID programs and devices, which only containers may use."""
        with suppress(FileNotFoundError, PermissionError):
            if stat.S_IMODE(self.root.stat().st_mode) != _MODE:
                self.root.chmod(_MODE)

    def _sweep(self) -> None:
        for path in self.leftovers():
            remove(path)

    def _write_json(self, path: Path, document: dict[str, Any]) -> None:
        replace_file(path, json.dumps(document, sort_keys=True, indent=1).encode())
