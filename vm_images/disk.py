"""The guest's disk: an image's layers as one file system, erofs or ext4, the same bits for the same image.

Nothing is mounted. The file system is uncompressed: a container does not decompress its files on every cold
read either, and under emulation that would be dear. All guests share the disk, which nobody writes to; one that
is to write has a clone of it (``qcow2``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from runtime.atomic import partial, scratch
from runtime.errors import PrerequisiteError
from runtime.images.layers import walk
from runtime.images.merging import mountable
from runtime.images.model import Image, Layer
from runtime.images.store import NAME_DIGITS
from vm_images.ext4 import make_ext4
from vm_images.flatten import Node, lay_side_by_side, merge, stage

FileSystem = Literal["erofs", "ext4"]

# Part of the file's name: to be raised when equal layers should give other bits.
_FORMAT = 1
_NAMESPACE = uuid.UUID("6f1f1c44-6b5e-4a55-9d0c-5a1b7d0a7e1e")


def disk_path(disks: Path, image: Image, file_system: FileSystem = "erofs") -> Path:
    """Return where the disk of an image is stored below ``disks``."""
    return disks / f"{image.id.removeprefix('sha256:')}-{_FORMAT}.{file_system}"


def _make_erofs(target: Path, tree: Path, volume: uuid.UUID, epoch_s: int) -> None:
    """Make the directory ``tree`` the file system ``target``.

    erofs-utils puts SOURCE_DATE_EPOCH, in seconds, into the superblock and cuts later modification times down to
    it. (-T would set every file's.)
    """
    command = ["mkfs.erofs", "--quiet", f"-U{volume}", str(target), str(tree)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch_s)}
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"build disk {target}: {error}", "install erofs-utils") from error
    except subprocess.CalledProcessError as error:
        output = (error.stderr + error.stdout).strip()
        hint = "check the free space"
        if longest := next((name for name, _ in walk(tree) if len(os.fsencode(name.rpartition("/")[2])) > 254), ""):
            hint = (
                f"erofs-utils 1.5 takes no name of 255 bytes: shorten {longest}, or use a platform with ext4 (vm-disk)"
            )
        raise PrerequisiteError(f"build disk {target}: mkfs.erofs: {output}", hint) from error


def build_disk(layers: Sequence[Path], identity: str, target: Path, file_system: FileSystem = "erofs") -> None:
    """Write the layers, bottom first, as a disk to ``target``, whole or not at all.

    ``identity`` is the file system's UUID. Raises PrerequisiteError without erofs-utils (for erofs), e2fsprogs
    (for ext4) or space.
    """
    _build(merge(layers), identity, target, file_system)


def _build(root: Node, identity: str, target: Path, file_system: FileSystem, *, as_layers: bool = False) -> None:
    with scratch(target.with_suffix(".tree")) as tree, partial(target) as unfinished:
        staged = stage(root, tree, as_layers=as_layers)
        free_bytes = shutil.disk_usage(target.parent).free
        if free_bytes < staged.total_bytes:
            raise PrerequisiteError(
                f"build disk {target}: {staged.total_bytes >> 20} MiB are needed, {free_bytes >> 20} MiB are free",
                "make space, or set TESTBED_HOME to another file system",
            )
        make = make_ext4 if file_system == "ext4" else _make_erofs
        # Just above the newest file: it was made after all that it holds, and their times are left as they are.
        make(unfinished, tree, uuid.uuid5(_NAMESPACE, identity), staged.newest_ns // 10**9 + 1)


def ensure_disk(disks: Path, image: Image, file_system: FileSystem = "erofs") -> Path:
    """Build the disk of an image below ``disks``, unless it is there, and return its path."""
    path = disk_path(disks, image, file_system)
    if not path.exists():
        build_disk([layer.path for layer in image.layers], image.id, path, file_system)
    return path


def layer_name(layer: Layer) -> str:
    """Return what a layer is called on a disk of layers."""
    return layer.diff_id.removeprefix("sha256:")[:NAME_DIGITS]


def ensure_layer_disk(disks: Path, images: Iterable[Image]) -> Path:
    """Return a disk on which every layer of the images is a directory, whiteouts and all: lowerdirs for overlays that
    are mounted by whoever has the disk. A layer that images share is there once, and what is merged of very many."""
    given = [layer for image in images for layer in (*image.layers, *mountable(image.layers))]
    layers = {layer_name(layer): layer.path for layer in given}
    identity = hashlib.sha256("\n".join(sorted(layers)).encode()).hexdigest()
    path = disks / f"{identity}-layers-{_FORMAT}.erofs"
    if not path.exists():
        root = lay_side_by_side(layers, next(iter(layers.values())))
        _build(root, identity, path, "erofs", as_layers=True)
    return path
