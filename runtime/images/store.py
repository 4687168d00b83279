"""The image store: layers by their content, images by their configuration, references by name.

    layers/<first 26 hex digits of the diff_id>/      the layer, extracted, an overlay lowerdir
    layers/<the same>.json                            its full diff_id, size and origin; written last
    images/<image id>.json                            the OCI image configuration
    references.json                                   reference -> image id
    cache/<key>.json                                  build step -> diff_id
    tmp/                                              what a build is working on

Whatever appears under its final name was renamed there complete. Readers take no lock; whoever builds
holds ``lock``, so that all of ``tmp/`` is rubbish to the next holder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.atomic import PARTIAL, remove, replace_file
from runtime.errors import PrerequisiteError, UsageError
from runtime.images import layers as layer_format
from runtime.images import oci
from runtime.images.model import History, Image, ImageConfig, Layer
from runtime.images.space import full_disk_reported

# Overlay's lowerdir list must fit in one page of mount options. 104 bits do not collide by accident, and
# the full digest is checked all the same.
NAME_DIGITS = 26


_MODE = 0o700


class Store:
    """Images below ``root`` (created at the first write), which only its owner may enter. One builder at a time, any
    number of readers."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, reference: str) -> Image | None:
        """The image called ``reference``, or None; also None when one of its layers has been removed."""
        self._close()
        image_id = self._references().get(reference)
        document = _read_json(self._image_path(image_id)) if image_id else None
        if image_id is None or document is None:
            return None
        found = [self.layer(diff_id) for diff_id in document["rootfs"]["diff_ids"]]
        layers = tuple(layer for layer in found if layer is not None)
        if len(layers) != len(found):
            return None
        return Image(reference, image_id, oci.config_of(document), layers, oci.history_of(document))

    def get(self, reference: str) -> Image:
        """The image called ``reference``; UsageError, listing the known ones, when there is none."""
        image = self.find(reference)
        if image is None:
            known = ", ".join(self.references()) or "none"
            raise UsageError(f"no image {reference!r} in {self.root}", f"known images: {known}")
        return image

    def references(self) -> tuple[str, ...]:
        """The names of all images, sorted."""
        return tuple(sorted(self._references()))

    def layer(self, diff_id: str) -> Layer | None:
        """The layer with this diff_id, or None."""
        path = self._layer_path(diff_id)
        metadata = _read_json(path.with_name(path.name + ".json"))
        if metadata is None or metadata["diff_id"] != diff_id or not path.is_dir():
            return None
        return Layer(diff_id, path)

    def verify(self, image: Image) -> tuple[Layer, ...]:
        """The layers of ``image`` whose content on disk no longer has their diff_id (none: all is well)."""
        return tuple(layer for layer in image.layers if layer_format.digest(layer.path).diff_id != layer.diff_id)

    @contextmanager
    def building(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Hold the store's lock, waiting for another builder; what a killed one left is removed first.

        A full disk within, and a store that may not be written, are reported as PrerequisiteError.
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
        """An empty directory on the store's file system, removed at the end. The lock must be held."""
        path = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=f"-{os.getpid()}", dir=self.root / "tmp"))
        path.chmod(0o755)
        try:
            yield path
        finally:
            with suppress(OSError):
                remove(path)

    def leftovers(self) -> tuple[Path, ...]:
        """What builds have not completed; empty while none runs, unless one was killed."""
        return tuple(sorted((*self.root.glob(f"{PARTIAL}*"), *self.root.glob(f"*/{PARTIAL}*"))))

    def newest_s(self, layer: Layer) -> int:
        """The newest time in a layer, in seconds since 1970, as it was told when the layer was added."""
        metadata = _read_json(layer.path.with_name(layer.path.name + ".json")) or {}
        return int(metadata.get("newest_s", oci.EPOCH_S))

    def add_layer(self, tree: Path, created_by: str, newest_s: int = oci.EPOCH_S) -> Layer:
        """Take over the settled directory ``tree`` (in a scratch directory) as a layer; it is moved.

        ``newest_s`` is the newest time in it.
        """
        digest = layer_format.digest(tree)
        existing = self.layer(digest.diff_id)
        if existing is not None:
            remove(tree)
            return existing
        path = self._layer_path(digest.diff_id)
        if path.exists():  # a builder was killed between the rename and the metadata
            remove(path)
        os.rename(tree, path)
        metadata = {"diff_id": digest.diff_id, "size_bytes": digest.size_bytes, "created_by": created_by}
        metadata["newest_s"] = newest_s
        self._write_json(path.with_name(path.name + ".json"), metadata)
        return Layer(digest.diff_id, path)

    def cached(self, key: str) -> Layer | None:
        """The layer that the build step with this key made before, if it is still there."""
        entry = _read_json(self._cache_path(key))
        return self.layer(entry["diff_id"]) if entry else None

    def remember(self, key: str, layer: Layer) -> None:
        """Let ``cached`` find ``layer`` by the key of the build step that made it."""
        self._write_json(self._cache_path(key), {"diff_id": layer.diff_id})

    def tag(
        self, reference: str, config: ImageConfig, layers: Sequence[Layer], history: Sequence[History] = ()
    ) -> Image:
        """Write the image of ``config`` over ``layers`` (bottom first) and name it. The lock must be held."""
        text = oci.to_json(config, [layer.diff_id for layer in layers], history)
        image_id = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        replace_file(self._image_path(image_id), text.encode())
        references = self._references()
        if references.get(reference) != image_id:
            self._write_json(self.root / "references.json", {**references, reference: image_id})
        return Image(reference, image_id, config, tuple(layers), tuple(history))

    def _references(self) -> dict[str, str]:
        return _read_json(self.root / "references.json") or {}

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
        except PermissionError as error:
            what = f"make {error.filename}: {error.strerror}"
            raise PrerequisiteError(what, "run as root, or through sudo") from error
        self._close()

    def _close(self) -> None:
        """Let nobody but the owner in: layers hold set-user-ID programs and devices, for the containers' users only."""
        with suppress(FileNotFoundError, PermissionError):
            if stat.S_IMODE(self.root.stat().st_mode) != _MODE:
                self.root.chmod(_MODE)

    def _sweep(self) -> None:
        for path in self.leftovers():
            remove(path)

    def _write_json(self, path: Path, document: dict[str, Any]) -> None:
        replace_file(path, json.dumps(document, sort_keys=True, indent=1).encode())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
