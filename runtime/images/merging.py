"""Merge the lowest layers of an image that has more than an overlay can, into one directory that stands for them.

    merged/<first 26 hex digits of the id>/           what these layers show, as a plain tree, to be an overlay lowerdir
    merged/<the same>.json                            the whole id, and which layers they are; written last

The id is the image-spec's ChainID of the layers (config.md, "Layer ChainID"), so all images that begin with the same
ones have the directory together. Nothing is below them, so what they delete is just not there. Files are hard links of
the layers' own: what is merged takes the disk of its directories. It is there whole and flushed, or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path

import msgspec
from msgspec import Struct

from runtime.atomic import read_document, remove, replace_file
from runtime.images.difference import differences
from runtime.images.layout import sync_file_system
from runtime.images.model import Image, Layer
from runtime.images.records import record_path
from runtime.images.rootfs import folders
from runtime.images.store import MERGED, NAME_DIGITS, Store
from runtime.unionfs.copying import copy_union
from runtime.unionfs.depth import effective, merged_count


class Merged(Struct, frozen=True):
    """What is noted of a merged directory: its id, and of each layer the diff_id and the path from the store's root."""

    id: str
    layers: tuple[tuple[str, str], ...]


def mountable(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return layers, bottom first, that show what these of one store show, and no more than an overlay has at once.

    Of more than that, the lowest are merged in the store first, unless they are. Raises PrerequisiteError when the
    store may not be written or its disk is full.
    """
    lowest = merged_layers(layers)
    if not lowest:
        return tuple(layers)
    return _merge(Store(layers[0].path.parent.parent), lowest), *effective(tuple(layers))[len(lowest) :]


def directories(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the paths of the ``mountable`` layers; errors as there."""
    return tuple(str(layer.path) for layer in mountable(layers))


def link_merged(images: Iterable[Image], target: Path, layers: str) -> None:
    """Give the store ``target``, a copy of these images' index (``Store.copy_index``), what is merged of them, as links
    to the directory ``layers``. Raises OSError, and errors as ``mountable``."""
    for image in images:
        if merged_layers(image.layers):
            path = mountable(image.layers)[0].path
            link = target / MERGED / path.name
            link.parent.mkdir(exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(f"{layers}/{path.name}")
                shutil.copyfile(record_path(path), record_path(link))


def merged_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return those of the layers, bottom first, that are merged so that an overlay has all; none where it has them."""
    different = effective(tuple(layers))
    return different[: merged_count(len(different))]


def merged_path(store: Store, layers: Iterable[Layer]) -> Path:
    """Return where the store has these layers merged, if it has."""
    return store.root / MERGED / _chain_id(layers).removeprefix("sha256:")[:NAME_DIGITS]


def read_merged(path: Path) -> Merged | None:
    """Return what is noted of the merged directory at a path, or None where it is not there, whole. Raises
    PrerequisiteError when the note is damaged."""
    return read_document(record_path(path), Merged) if path.is_dir() else None


def is_as_its_layers(store: Store, path: Path) -> bool:
    """Return whether a merged directory still shows what its layers do; of one whose layers are gone, nobody knows,
    and nobody will ask for it. Raises OSError and PrerequisiteError."""
    noted = read_merged(path)
    if noted is None:
        return False
    layers = [Layer(diff_id, store.root / where) for diff_id, where in noted.layers]
    if not all(layer.path.is_dir() for layer in layers):
        return True
    same_root = os.lstat(path).st_mode == os.lstat(layers[-1].path).st_mode
    return same_root and not any(differences(layers, [Layer(noted.id, path)]))


def _chain_id(layers: Iterable[Layer]) -> str:
    def add(chain: str, diff_id: str) -> str:
        return "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()

    return reduce(add, (layer.diff_id for layer in layers))


def _merge(store: Store, layers: Sequence[Layer]) -> Layer:
    """Return the merged directory of these layers, as a layer, which is made unless it is there."""
    path = merged_path(store, layers)
    where = tuple((layer.diff_id, os.path.relpath(layer.path, store.root)) for layer in layers)
    noted = Merged(_chain_id(layers), where)
    if read_merged(path) == noted:
        return Layer(noted.id, path)
    with store.writing(_silent), store.scratch() as scratch:
        tree = scratch / "root"
        tree.mkdir()
        copy_union(folders(layers), str(tree), linking=True)
        sync_file_system(store.root)
        with store.layout.committing():
            if read_merged(path) != noted:
                path.parent.mkdir(exist_ok=True)
                remove(path)  # its writer was killed before it wrote the note
                os.rename(tree, path)
                replace_file(record_path(path), msgspec.json.encode(noted))
    return Layer(noted.id, path)


def _silent(line: str) -> None:
    pass
